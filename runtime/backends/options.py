"""The options a backend is opened with: a frozen dataclass a backend, read from names and values.

Values come from Python (`{"delay_ms": 5.0}`) or from a command line (`{"delay_ms": "5"}`); both are checked by the
types of the dataclass's fields, which are bool, int, float, str, or a Literal of strings, each perhaps or None.
An option that a backend does not know is an error, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ...errors import InputError

Options = TypeVar("Options")

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def read_options(kind: type[Options], given: Mapping[str, object] | None, *, backend: str) -> Options:
    """Make a backend's options.

    Args:
        kind: its dataclass; every field has a default.
        given: values by the names of its fields; strings are read as the field's type.
        backend: the backend's name, for errors.

    Raises:
        InputError: for a name it does not know, or a value of another type.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(given or {}) - set(known))
    if unknown:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise InputError(f'the {backend} backend has no option "{unknown[0]}"; {has}')
    hints = get_type_hints(kind)
    return kind(
        **{name: _read_value(f"{backend}: {name}", hints[name], value) for name, value in (given or {}).items()}
    )


def _read_value(where: str, wanted: Any, value: object) -> object:
    members = [wanted] if get_origin(wanted) is Literal or not get_args(wanted) else list(get_args(wanted))
    for member in members:
        try:
            return _convert(member, value)
        except ValueError:
            continue
    raise InputError(f"option {where} must be {' or '.join(_describe(member) for member in members)}, got {value!r}")


def _convert(member: Any, value: object) -> object:
    if get_origin(member) is Literal:
        if value in get_args(member):
            return value
    elif member is NoneType:
        if value is None or value in ("none", "None"):
            return None
    elif member is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _WORDS:
            return _WORDS[value.lower()]
    elif isinstance(value, str):
        return member(value)  # int, float or str
    elif isinstance(value, int | float) and not isinstance(value, bool) and (member is float or type(value) is member):
        return member(value)
    raise ValueError


def _describe(member: Any) -> str:
    if get_origin(member) is Literal:
        return ", ".join(get_args(member))
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "none"}
    return names.get(member, str(member))
