"""Helpers of the text parser: fields by name, suggestions for unknown names, string escapes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import NoReturn

from google.protobuf.descriptor import FieldDescriptor

from ...proto import schema

_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_SIMPLE_ESCAPES = dict(zip(b"abfnrtv\\'\"?", b"\a\b\f\n\r\t\v\\'\"?", strict=True))


@dataclass(frozen=True)
class TextField:
    """A field of the schema, as the parser needs it."""

    name: str
    owner: str
    repeated: bool
    kind: int
    message: str | None
    enum: str | None
    is_bytes: bool
    values: dict[str, int]
    dialects: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """The fields of one message, by name."""

    fields: dict[str, TextField]
    required: tuple[str, ...]


@cache
def find_layout(name: str) -> Layout:
    """The layout of a message of the schema."""
    fields: dict[str, TextField] = {}
    required = []
    for item in schema.descriptor(name).fields:
        is_required, repeated = _label(item)
        fields[item.name] = TextField(
            name=item.name,
            owner=name,
            repeated=repeated,
            kind=item.cpp_type,
            message=schema.short_name(item.message_type.full_name) if item.message_type else None,
            enum=schema.short_name(item.enum_type.full_name) if item.enum_type else None,
            is_bytes=item.type == FieldDescriptor.TYPE_BYTES,
            values={value.name: value.number for value in item.enum_type.values} if item.enum_type else {},
            dialects=tuple(schema.field_wire(name, item.name) or ()),
        )
        if is_required:
            required.append(item.name)
    return Layout(fields, tuple(required))


def _label(item: FieldDescriptor) -> tuple[bool, bool]:
    """(is required, is repeated), by the API of the installed protobuf."""
    if hasattr(item, "is_required"):
        return bool(item.is_required), bool(item.is_repeated)
    label = getattr(item, "label")  # noqa: B009 - gone from newer protobuf and its type stubs
    return label == FieldDescriptor.LABEL_REQUIRED, label == FieldDescriptor.LABEL_REPEATED


def unescape(body: str, fail: Callable[[str], NoReturn]) -> bytes:
    """The bytes between two quotes with C and Unicode escapes resolved; `fail` is called for any other escape."""
    raw = body.encode("utf-8", errors="replace")
    if b"\\" not in raw:
        return raw

    def replace(found: re.Match[bytes]) -> bytes:
        octal, hexadecimal, short, long, simple = found.groups()
        if octal is not None:
            return bytes([int(octal, 8) & 0xFF])
        if hexadecimal is not None:
            return bytes([int(hexadecimal, 16)])
        if short is not None or long is not None:
            code = int(short or long, 16)
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                fail(f"\\u{code:x} is not a character")
            return chr(code).encode()
        if simple[0] not in _SIMPLE_ESCAPES:
            fail(
                f"unknown escape {found.group().decode('utf-8', 'replace')}; in a Windows path, write / or two "
                "backslashes in place of each backslash"
            )
        return bytes([_SIMPLE_ESCAPES[simple[0]]])

    return _ESCAPE.sub(replace, raw)


def shorten(token: str) -> str:
    """A token, truncated for an error message."""
    return token if len(token) <= 40 else token[:37] + "..."


def suggest_nearest(name: str, known: Iterable[str]) -> str:
    """The most similar known name, as a clause for an error message; empty if none is similar."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7) if len(name) <= 64 else []
    return f'; did you mean "{close[0]}"?' if close else ""


def suggest_owner(name: str) -> str:
    """The messages that have a field of this name, as a clause for an error message."""
    owners = [
        schema.short_name(kind.full_name)
        for kind in schema.descriptor("NetParameter").file.message_types_by_name.values()
        if name in kind.fields_by_name
    ]
    return f" (it is a field of {', '.join(owners[:4])})" if owners else ""
