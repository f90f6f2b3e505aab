"""Protobuf's text format, written from plain data: what Triton's config.pbtxt is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Union

Value = Union["Word", str, bool, int, Mapping[str, "Value"], Sequence["Value"]]

_INDENT = "  "


class Word(str):
    """The name of an enum's value, which is written without quotes."""

    __slots__ = ()


def write_text(message: Mapping[str, Value], *, indent: str = "") -> str:
    """The text of a message: a field a line.

    A mapping is a message and a sequence is a repeated field, empty ones are left out; a `Word` is an enum's value.
    """
    return "".join(_write_field(name, value, indent) for name, value in message.items())


def _write_field(name: str, value: Value, indent: str) -> str:
    if isinstance(value, Mapping):
        return f"{indent}{name} {{\n{write_text(value, indent=indent + _INDENT)}{indent}}}\n"
    if isinstance(value, str):
        return f"{indent}{name}: {value if isinstance(value, Word) else _quote(value)}\n"
    if isinstance(value, bool):
        return f"{indent}{name}: {str(value).lower()}\n"
    if isinstance(value, int):
        return f"{indent}{name}: {value}\n"
    if all(isinstance(entry, int) for entry in value):  # short lists such as dims on one line
        return f"{indent}{name}: {list(value)}\n" if value else ""
    return "".join(_write_field(name, entry, indent) for entry in value)


def _quote(text: str) -> str:
    """A string in quotes; JSON's escapes of ASCII text are protobuf's too, other bytes are escaped in octal."""
    parts = (json.dumps(char)[1:-1] if char.isascii() else _escape_bytes(char) for char in text)
    return f'"{"".join(parts)}"'


def _escape_bytes(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in char.encode())
