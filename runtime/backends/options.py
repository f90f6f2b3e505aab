"""The options of a backend: a frozen dataclass per backend, filled from names and values.

Values come from Python (`{"delay_ms": 5.0}`) or from a command line (`{"delay_ms": "5"}`). Strings are converted to the
field's type, other values must have it. An unknown option is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ...errors import InputError

Options = TypeVar("Options")


def read_options(kind: type[Options], given: Mapping[str, object] | None, *, backend: str) -> Options:
    """Make a backend's options, a dataclass; InputError if a name is unknown or a value has another type."""
    given = given or {}
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InputError(f'the {backend} backend has no option "{unknown[0]}"; it has {", ".join(known)}')
    hints = get_type_hints(kind)
    return kind(**{name: _read_value(f"{backend}: {name}", hints[name], value) for name, value in given.items()})


def _read_value(where: str, wanted: Any, value: object) -> object:
    adapter = TypeAdapter(wanted)
    try:
        if not isinstance(value, str):
            return adapter.validate_python(value, strict=True)
        if value.lower() == "none":
            return adapter.validate_python(None)
        return adapter.validate_strings(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].replace("Input should", "must", 1)
        raise InputError(f"option {where} {reason}, got {value!r}") from error
