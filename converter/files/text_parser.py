"""Parser of protobuf text format into the messages of `atrous.proto`.

`google.protobuf.text_format` keeps no line numbers for later messages, does not support `${NAME}` templates or forks,
suggests no names for misspelled fields, and is slower. The rules are those of the C++ parser that Caffe uses:

1. A singular field given twice is rejected, messages included.
2. `name: value` for scalars; the colon is optional before `{` or `<`.
3. Repeated fields may be lists, `[a, b]`; `,` or `;` may follow a field.
4. Adjacent strings are joined. Integers are decimal, 0x hexadecimal or 0 octal; floats may end in `f`.
5. Enums are given by name, or by BVLC Caffe's number.
6. Missing `required` fields are rejected.

A lenient parser (`keep_unknown`) keeps fields and enum values that the schema lacks, if they are inside a layer.

Time is linear in the text. The text is limited to `MAX_TEXT_BYTES`, nesting by the schema, as no message contains
itself, and in unknown messages by `text_untyped.MAX_UNKNOWN_DEPTH`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from ...errors import PrototxtError, UnknownFieldError
from ...proto import schema
from ..dialects.detect import ForkUse
from ..dialects.inert import is_inert
from ..dialects.renumber import PRIVATE_NUMBERS
from .text_schema import Layout, TextField, find_layout, shorten, suggest_nearest, suggest_owner
from .text_tree import UnknownField
from .text_untyped import FLOAT, INTEGER, UntypedReader, parse_integer

MAX_TEXT_BYTES = 64 << 20
MAX_NAME = 128
"""Longest enum value that is kept where the schema lacks it."""
_LAYER_FIELDS = ("layer", "layers")

_BOOLS = {"true": True, "True": True, "t": True, "1": True, "false": False, "False": False, "f": False, "0": False}
_INT_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}


@dataclass
class ParsedText:
    """A parsed message and facts about its text."""

    message: Any  # the parsed message
    # top-level message field -> 1-based line of each of its entries
    lines: dict[str, list[int]] = field(default_factory=dict)
    # every use of a fork's field or enum value, in the order of the text
    forks: list[ForkUse] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)  # `${NAME}` in place of a value -> the line of its first use
    # `${NAME}` inside quoted strings -> the line of its first use
    in_strings: dict[str, int] = field(default_factory=dict)
    unknown: list[UnknownField] = field(default_factory=list)  # kept unknown fields of layers
    # index of a layer of V1 syntax -> its type, where the schema lacks the name
    unknown_types: dict[int, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)  # unknown fields of the net itself that change no result


def parse_text(
    text: str, message_name: str, *, path: str | Path | None = None, keep_unknown: bool = False
) -> ParsedText:
    """Parse text format into a message of the schema.

    Args:
        text: the text.
        message_name: the message at the top.
        path: the file, for messages.
        keep_unknown: keep unknown fields of layers in `ParsedText.unknown`, and skip unknown settings of the net that
            change no result, instead of rejecting them.

    Raises:
        PrototxtError: the text is invalid; with line and column.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise PrototxtError(f"has {len(text)} characters; the limit is {MAX_TEXT_BYTES}", path=path)
    return _TextParser(text, path, keep_unknown).parse(message_name)


class _TextParser(UntypedReader):
    def __init__(self, text: str, path: str | Path | None, keep_unknown: bool) -> None:
        super().__init__(text, path)
        self._keep_unknown = keep_unknown
        #: names of the messages around the current field, from the layer on
        self._scopes: list[str] = []

    def parse(self, message_name: str) -> ParsedText:
        message = schema.message(message_name)()
        self._result = ParsedText(message, missing=self._missing, in_strings=self._in_strings)
        self._fields(message, find_layout(message_name), message_name, "", 0)
        return self._result

    # The grammar ------------------------------------------------------------------------------------------------

    def _fields(self, message: Any, layout: Layout, name: str, closing: str, opened_at: int) -> None:
        """Parse fields up to `closing`, or to the end of the text at the top level."""
        seen: set[str] = set()
        while self._kind is not None and self._token != closing:
            if self._kind != "name":
                self._fail_expected("a field name")
            item, at = layout.fields.get(self._token), self._at
            if item is None:
                self._keep_field(name, partial(self._make_unknown, self._token, name, layout, at))
                continue
            if not item.repeated and item.name in seen:
                make_error = partial(self._make_error, f'"{item.name}" is given twice; {name} has one', at)
                if len(self._scopes) < 2:
                    raise make_error()
                self._keep_field(name, make_error)
                continue
            seen.add(item.name)
            if item.dialects:
                self._result.forks.append(ForkUse(f"{name}.{item.name}", item.dialects, self._line(at)))
            self._advance()
            if not self._skip(":") and item.message is None:
                self._fail_expected(f'":" after {item.name}')
            self._values(message, item, at)
            self._skip_separator()
        if self._kind is None and closing:
            self._fail(f'missing "{closing}" of the {name} opened in line {self._line(opened_at)}')
        for needed in layout.required:
            if needed not in seen:
                self._fail(f'"{needed}" is missing; {name} must have it', opened_at)

    def _values(self, message: Any, item: TextField, at: int) -> None:
        """Parse one value or message, or a list of them."""
        parse = self._scalar if item.message is None else self._message
        if item.repeated and self._skip("["):
            if not self._skip("]"):
                parse(message, item, self._at)
                while self._skip(","):
                    parse(message, item, self._at)
                self._require("]")
        else:
            parse(message, item, at)

    def _message(self, message: Any, item: TextField, at: int) -> None:
        closing = self._open(item.name)
        child = getattr(message, item.name)
        if item.repeated:
            child = child.add()
        else:
            child.SetInParent()
        if message is self._result.message:
            self._result.lines.setdefault(item.name, []).append(self._line(at))
        assert item.message is not None
        self._scopes.append(item.name)
        self._fields(child, find_layout(item.message), item.message, closing, at)
        self._scopes.pop()
        self._require(closing)

    def _scalar(self, message: Any, item: TextField, _at: int) -> None:
        if self._kind == "placeholder":
            self._placeholder()
            return
        at = self._at
        try:
            value = _READERS[item.kind](self, item)
        except PrototxtError as error:
            if self._entry is None or len(self._scopes) < 2:
                raise
            self._keep_value(item, at, error)
            return
        if value is None:
            return  # an unknown enum value, kept elsewhere
        if item.repeated:
            getattr(message, item.name).append(value)
        else:
            setattr(message, item.name, value)

    # Unknown fields ---------------------------------------------------------------------------------------------

    @property
    def _entry(self) -> int | None:
        """Index of the layer around the current field, or None outside."""
        if not self._keep_unknown or not self._scopes or self._scopes[0] not in _LAYER_FIELDS:
            return None
        return len(self._result.lines[self._scopes[0]]) - 1

    def _keep_field(self, message: str, make_error: Callable[[], PrototxtError]) -> None:
        """Keep a field that does not fit the schema, if it is inside a layer; otherwise raise the error."""
        name, at, entry = self._token, self._at, self._entry
        if entry is None and not (self._keep_unknown and message == "NetParameter" and is_inert(name)):
            raise make_error()
        self._advance()
        value = self._unknown_value(name, 1)
        self._skip_separator()
        if entry is None:
            self._result.ignored.append(f"{name} (line {self._line(at)})")
        else:
            self._keep(entry, name, value, at, make_error)

    def _keep(self, entry: int, name: str, value: Any, at: int, make_error: Callable[[], PrototxtError]) -> None:
        path = (*self._scopes[1:], name)
        self._result.unknown.append(UnknownField(entry, path, value, self._line(at), make_error))

    def _keep_value(self, item: TextField, at: int, error: PrototxtError) -> None:
        """Keep a value whose type is another fork's, or raise the error if it is a value of no type."""
        assert self._entry is not None
        self._tokens = self._scan(at)
        self._advance()
        try:
            value = self._unknown_item(item.name, 1, True)
        except PrototxtError:
            raise error from None
        self._keep(self._entry, item.name, value, at, lambda: error)

    def _keep_enum_value(self, item: TextField) -> None:
        """Keep the name of an enum value that the schema lacks, or raise the error outside layers."""
        token, at, entry = self._token, self._at, self._entry

        def make_error() -> PrototxtError:
            near = suggest_nearest(token, item.values)
            return self._make_error(f'{item.enum} has no value "{shorten(token)}"{near}', at)

        if entry is None or len(token) > MAX_NAME:
            raise make_error()
        if item.owner == "V1LayerParameter" and item.name == "type":
            self._result.unknown_types[entry] = token
        else:
            self._keep(entry, item.name, token, at, make_error)
        self._advance()

    # Values -----------------------------------------------------------------------------------------------------

    def _integer(self, item: TextField) -> int:
        at, negative = self._at, self._skip("-")
        if self._kind != "number" or not INTEGER.fullmatch(self._token):
            self._fail_expected(f"an integer for {item.name}")
        value = -parse_integer(self._token) if negative else parse_integer(self._token)
        low, high = _INT_RANGES[item.kind]
        if not low <= value <= high:
            self._fail(f"{value} does not fit {item.name} ({low} to {high})", at)
        self._advance()
        return value

    def _float(self, item: TextField) -> float:
        negative = self._skip("-")
        lowered = self._token.lower()
        if self._kind == "number" and FLOAT.fullmatch(self._token):
            value = float(lowered.rstrip("f"))
        elif self._kind == "name" and lowered in ("inf", "infinity", "inff", "infinityf"):
            value = float("inf")
        elif self._kind == "name" and lowered in ("nan", "nanf"):
            value = float("nan")
        else:
            self._fail_expected(f"a number for {item.name}")
        self._advance()
        return -value if negative else value

    def _bool(self, item: TextField) -> bool:
        if self._kind not in ("name", "number") or self._token not in _BOOLS:
            self._fail_expected(f"true or false for {item.name}")
        value = _BOOLS[self._token]
        self._advance()
        return value

    def _string(self, item: TextField) -> str | bytes:
        if self._kind != "string":
            hint = ""
            if item.owner == "LayerParameter" and item.name == "type" and self._kind == "name":
                hint = '; enum types such as CONVOLUTION belong to the older "layers { ... }"'
            self._fail_expected(f"a quoted string for {item.name}", hint)
        return self._byte_string() if item.is_bytes else self._text_string(item.name)

    def _enum(self, item: TextField) -> int | None:
        assert item.enum is not None
        if self._kind == "name":
            number = item.values.get(self._token)
            if number is None:
                self._keep_enum_value(item)
                return None
            wire = schema.value_wire(item.enum, self._token)
            if wire is not None:
                self._result.forks.append(ForkUse(f"{item.enum}.{self._token}", tuple(wire), self._line(self._at)))
        elif self._kind == "number" and INTEGER.fullmatch(self._token):
            number = parse_integer(self._token)
            if number >= PRIVATE_NUMBERS or number not in item.values.values():
                self._fail(f"{item.enum} has no value {number} in BVLC Caffe; use the name")
        else:
            hint = ""
            if item.owner == "V1LayerParameter" and self._kind == "string":
                hint = '; string types belong to the newer "layer { ... }"'
            self._fail_expected(f"a name of {item.enum}", hint)
        self._advance()
        return number

    # Errors -----------------------------------------------------------------------------------------------------

    def _make_unknown(self, name: str, message: str, layout: Layout, at: int) -> PrototxtError:
        text = f'{message} has no field "{shorten(name)}"'
        return UnknownFieldError(
            text + (suggest_nearest(name, layout.fields) or suggest_owner(name)),
            message=message,
            field=name,
            path=self._path,
            line=self._line(at),
            column=self._column(at),
        )


_READERS: dict[int, Callable[[_TextParser, TextField], Any]] = {
    FieldDescriptor.CPPTYPE_INT32: _TextParser._integer,
    FieldDescriptor.CPPTYPE_UINT32: _TextParser._integer,
    FieldDescriptor.CPPTYPE_INT64: _TextParser._integer,
    FieldDescriptor.CPPTYPE_UINT64: _TextParser._integer,
    FieldDescriptor.CPPTYPE_FLOAT: _TextParser._float,
    FieldDescriptor.CPPTYPE_DOUBLE: _TextParser._float,
    FieldDescriptor.CPPTYPE_BOOL: _TextParser._bool,
    FieldDescriptor.CPPTYPE_STRING: _TextParser._string,
    FieldDescriptor.CPPTYPE_ENUM: _TextParser._enum,
}
