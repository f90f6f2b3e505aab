"""Base of the bundle's types: frozen pydantic models that reject unknown fields, wrong JSON types and NaN."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

Side = Annotated[int, Field(gt=0, le=1 << 20)]
Sides = tuple[Side, Side]  # (height, width) in pixels


def check_contained_name(name: str) -> str:
    """Return `name` if it can only mean a file below the bundle's folder.

    Raises ValueError for an absolute path, a `..`, a backslash, a drive, an empty part or a control character.
    """
    parts = name.split("/")
    contained = (
        name != ""
        and not PurePosixPath(name).is_absolute()
        and not any(part in ("", ".", "..") for part in parts)
        and not any(character in "\\:" or ord(character) < 32 for character in name)
    )
    if not contained:
        raise ValueError(f"{name!r} is not a plain relative path inside the bundle")
    return name


FileName = Annotated[str, AfterValidator(check_contained_name)]


class Section(BaseModel):
    """A frozen, strict section of the manifest."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def describe_fault(error: ValidationError) -> str:
    """The first fault of a validation, with its place and how many more there are."""
    faults = error.errors(include_url=False, include_input=False)
    first = faults[0]
    place = ".".join(str(part) for part in first["loc"] if part != "[key]")
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return (f"{place}: " if place else "") + first["msg"].removeprefix("Value error, ") + more
