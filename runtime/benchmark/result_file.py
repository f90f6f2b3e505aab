"""Reads and writes result files of `atrous bench`; `.results` has their types and rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ...bundle.files import write_file
from ...errors import InputError
from .results import RESULT_VERSION, BenchResult

MAX_RESULT_BYTES = 256 << 20
_READ_VERSIONS = (1, RESULT_VERSION)


class _Header(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    schema_version: int
    kind: Literal["atrous-bench"]


def write_result(result: BenchResult, path: str | Path) -> None:
    """Write a result file.

    Raises:
        OutputError: if it cannot be written.
    """
    write_file(path, (result.model_dump_json() + "\n").encode())


def read_result(path: str | Path) -> BenchResult:
    """Read a result file of version 1 or 2.

    Raises:
        InputError: if it is missing, too long, not a result of `atrous bench`, or of an unknown version; names the
            field at fault.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_RESULT_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(text) > MAX_RESULT_BYTES:
        raise InputError(f"{path}: longer than {MAX_RESULT_BYTES} bytes, the limit of a result of `atrous bench`")
    try:
        version = _Header.model_validate_json(text).schema_version
    except ValidationError as error:
        raise InputError(f"{path}: not a result of `atrous bench`: {_describe(error)}") from error
    if version not in _READ_VERSIONS:
        remedy = "update atrous" if version > RESULT_VERSION else "measure again"
        known = " and ".join(map(str, _READ_VERSIONS))
        raise InputError(f"{path}: schema_version is {version}, this atrous reads {known}: {remedy}")
    try:
        if version == RESULT_VERSION:
            return BenchResult.model_validate_json(text)
        return BenchResult.model_validate_json(json.dumps({**json.loads(text), "schema_version": RESULT_VERSION}))
    except ValidationError as error:
        raise InputError(f"{path}: {_describe(error)}") from error


def make_schema() -> str:
    """The JSON schema of the file, as published in docs/bench-schema.json."""
    return json.dumps(BenchResult.model_json_schema(mode="validation"), indent=2, sort_keys=True) + "\n"


def _describe(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_input=False)
    place = ".".join(str(part) for part in faults[0]["loc"])
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return (f"{place}: " if place else "") + faults[0]["msg"].removeprefix("Value error, ") + more
