"""Parser of protobuf text format into the messages of `atrous.proto`.

`google.protobuf.text_format` keeps no line numbers for later messages, does not support `${NAME}` templates or forks,
suggests no names for misspelled fields, and is slower. The rules are those of the C++ parser that Caffe uses:

1. A singular field given twice is rejected, messages included.
2. `name: value` for scalars; the colon is optional before `{` or `<`.
3. Repeated fields may be lists, `[a, b]`; `,` or `;` may follow a field.
4. Adjacent strings are joined. Integers are decimal, 0x hexadecimal or 0 octal; floats may end in `f`.
5. Enums are given by name, or by BVLC Caffe's number.
6. Missing `required` fields are rejected.

Time is linear in the text. The text is limited to `MAX_TEXT_BYTES`, nesting by the schema: no message contains itself.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from google.protobuf.descriptor import FieldDescriptor

from ...errors import PrototxtError, UnknownFieldError
from ...proto import schema
from ..dialects.detect import ForkUse
from ..dialects.renumber import PRIVATE_NUMBERS
from .text_schema import Layout, TextField, find_layout, shorten, suggest_nearest, suggest_owner, unescape

MAX_TEXT_BYTES = 64 << 20

_TOKEN = re.compile(
    r"""[\s\ufeff]+ | \#[^\n]*
      | (?P<name>[A-Za-z_]\w*)
      | (?P<number>\.?\d[\w.]*(?:(?<=[eE])[-+]\d+[fF]?)?)
      | (?P<string>"[^"\\\n]*" | '[^'\\\n]*')
      | (?P<quote>["'])
      | (?P<placeholder>\$\{\w+\})
      | (?P<symbol>[{}<>\[\]:;,-])
      | (?P<bad>.)""",
    re.VERBOSE | re.ASCII,
)
_STRING_PIECE = re.compile(r"""[^"'\\\n]+|\\.|["'\n]|\\""")
_TEMPLATE = re.compile(r"\$\{(\w+)\}", re.ASCII)
_INTEGER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,22}|[1-9][0-9]{0,19}")
_FLOAT = re.compile(r"(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?[fF]?")
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


def parse_text(text: str, message_name: str, *, path: str | Path | None = None) -> ParsedText:
    """Parse text format into a message of the schema; raises PrototxtError with line and column if it is invalid."""
    if len(text) > MAX_TEXT_BYTES:
        raise PrototxtError(f"has {len(text)} characters; the limit is {MAX_TEXT_BYTES}", path=path)
    return _TextParser(text, path).parse(message_name)


class _TextParser:
    def __init__(self, text: str, path: str | Path | None) -> None:
        self._text, self._path = text, path
        self._tokens = self._scan(0)
        self._newlines: list[int] | None = None
        self._kind: str | None = None
        self._token = ""
        self._at = 0
        self._advance()

    def parse(self, message_name: str) -> ParsedText:
        message = schema.message(message_name)()
        self._result = ParsedText(message)
        self._fields(message, find_layout(message_name), message_name, "", 0)
        return self._result

    # The grammar ------------------------------------------------------------------------------------------------

    def _fields(self, message: Any, layout: Layout, name: str, closing: str, opened_at: int) -> None:
        """Parse fields up to `closing`, or to the end of the text at the top level."""
        seen: set[str] = set()
        while self._kind is not None and self._token != closing:
            if self._kind != "name":
                self._fail_expected("a field name")
            item = layout.fields.get(self._token) or self._fail_unknown(name, layout)
            at = self._at
            if not item.repeated and item.name in seen:
                self._fail(f'"{item.name}" is given twice; {name} has one')
            seen.add(item.name)
            if item.dialects:
                self._result.forks.append(ForkUse(f"{name}.{item.name}", item.dialects, self._line(at)))
            self._advance()
            if not self._skip(":") and item.message is None:
                self._fail_expected(f'":" after {item.name}')
            self._values(message, item, at)
            if not self._skip(","):
                self._skip(";")
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
        closing = {"{": "}", "<": ">"}.get(self._token if self._kind == "symbol" else "")
        if closing is None:
            self._fail_expected(f'"{{" to open {item.name}')
        self._advance()
        child = getattr(message, item.name)
        if item.repeated:
            child = child.add()
        else:
            child.SetInParent()
        if message is self._result.message:
            self._result.lines.setdefault(item.name, []).append(self._line(at))
        assert item.message is not None
        self._fields(child, find_layout(item.message), item.message, closing, at)
        self._require(closing)

    def _scalar(self, message: Any, item: TextField, _at: int) -> None:
        if self._kind == "placeholder":
            self._result.missing.setdefault(self._token[2:-1], self._line(self._at))
            self._advance()
            return
        value = _READERS[item.kind](self, item)
        if item.repeated:
            getattr(message, item.name).append(value)
        else:
            setattr(message, item.name, value)

    # Values -----------------------------------------------------------------------------------------------------

    def _integer(self, item: TextField) -> int:
        at, negative = self._at, self._skip("-")
        if self._kind != "number" or not _INTEGER.fullmatch(self._token):
            self._fail_expected(f"an integer for {item.name}")
        digits = self._token
        base = 16 if digits[:2] in ("0x", "0X") else 8 if digits.startswith("0") else 10
        value = int(digits, base)
        value = -value if negative else value
        low, high = _INT_RANGES[item.kind]
        if not low <= value <= high:
            self._fail(f"{value} does not fit {item.name} ({low} to {high})", at)
        self._advance()
        return value

    def _float(self, item: TextField) -> float:
        negative = self._skip("-")
        lowered = self._token.lower()
        if self._kind == "number" and _FLOAT.fullmatch(self._token):
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
        at, parts = self._at, []
        while self._kind == "string":
            if "${" in self._token:
                for found in _TEMPLATE.finditer(self._token):
                    self._result.in_strings.setdefault(found[1], self._line(self._at))
            parts.append(unescape(self._token[1:-1], self._fail))
            self._advance()
        joined = b"".join(parts)
        if item.is_bytes:
            return joined
        try:
            return joined.decode("utf-8")
        except UnicodeDecodeError:
            self._fail(f"the string for {item.name} is not UTF-8", at)

    def _enum(self, item: TextField) -> int:
        assert item.enum is not None
        if self._kind == "name":
            number = item.values.get(self._token)
            if number is None:
                self._fail(
                    f'{item.enum} has no value "{shorten(self._token)}"' + suggest_nearest(self._token, item.values)
                )
            wire = schema.value_wire(item.enum, self._token)
            if wire is not None:
                self._result.forks.append(ForkUse(f"{item.enum}.{self._token}", tuple(wire), self._line(self._at)))
        elif self._kind == "number" and _INTEGER.fullmatch(self._token):
            number = int(self._token, 0) if not self._token.startswith("0") else int(self._token, 8)
            if number >= PRIVATE_NUMBERS or number not in item.values.values():
                self._fail(f"{item.enum} has no value {number} in BVLC Caffe; use the name")
        else:
            hint = ""
            if item.owner == "V1LayerParameter" and self._kind == "string":
                hint = '; string types belong to the newer "layer { ... }"'
            self._fail_expected(f"a name of {item.enum}", hint)
        self._advance()
        return number

    # Tokens and errors ------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        found = next(self._tokens, None)
        if found is None:
            self._kind, self._token, self._at = None, "", len(self._text)
        else:
            self._kind, self._token, self._at = found.lastgroup, found.group(), found.start()
            if self._kind == "bad":
                self._fail_bad_character()
            elif self._kind == "quote":
                self._take_escaped_string()

    def _scan(self, at: int) -> Iterator[re.Match[str]]:
        return (found for found in _TOKEN.finditer(self._text, at) if found.lastgroup)

    def _take_escaped_string(self) -> None:
        """Parse a string with escapes piece by piece: one expression for all would use memory for each escape."""
        for piece in _STRING_PIECE.finditer(self._text, self._at + 1):
            if piece.group() == self._token:
                self._kind, self._token = "string", self._text[self._at : piece.end()]
                self._tokens = self._scan(piece.end())
                return
            if piece.group() in ("\n", "\\"):
                break
        self._fail("the string does not end in its line")

    def _skip(self, symbol: str) -> bool:
        if self._token == symbol and self._kind == "symbol":
            self._advance()
            return True
        return False

    def _require(self, symbol: str) -> None:
        if not self._skip(symbol):
            self._fail_expected(f'"{symbol}"')

    def _line(self, at: int) -> int:
        if self._newlines is None:
            self._newlines = [found.start() for found in re.finditer("\n", self._text)]
        return bisect_right(self._newlines, at - 1) + 1

    def _fail_expected(self, wanted: str, hint: str = "") -> NoReturn:
        if self._kind == "placeholder":
            self._fail(f"expected {wanted}, got {self._token}; give --set {self._token[2:-1]}=VALUE")
        got = "the end of the text" if self._kind is None else shorten(self._token)
        self._fail(f"expected {wanted}, got {got}{hint}")

    def _fail_bad_character(self) -> NoReturn:
        if self._token == "$":
            self._fail("templates are written ${NAME}")
        self._fail(f"unexpected character {self._token!r}")

    def _fail_unknown(self, message: str, layout: Layout) -> NoReturn:
        line = self._line(self._at)
        unknown = self._token
        text = f'{message} has no field "{shorten(unknown)}"'
        raise UnknownFieldError(
            text + (suggest_nearest(unknown, layout.fields) or suggest_owner(unknown)),
            message=message,
            field=unknown,
            path=self._path,
            line=line,
            column=self._column(self._at),
        )

    def _fail(self, text: str, at: int | None = None) -> NoReturn:
        at = self._at if at is None else at
        raise PrototxtError(text, path=self._path, line=self._line(at), column=self._column(at))

    def _column(self, at: int) -> int:
        return at - self._text.rfind("\n", 0, at)


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
