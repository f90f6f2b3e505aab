"""Values of protobuf text format without a schema, as a plain tree.

The text itself has their types: a number is int or float, `true` and `false` are bool, a quoted string and a name are
str, a message is a `TextTree`, a list or a repeated field a list.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .text_schema import shorten, unescape
from .text_tokens import TokenReader
from .text_tree import TextTree

MAX_UNKNOWN_DEPTH = 32
MAX_UNKNOWN_VALUES = 100_000

INTEGER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,22}|[1-9][0-9]{0,19}")
FLOAT = re.compile(r"(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?[fF]?")
_TEMPLATE = re.compile(r"\$\{(\w+)\}", re.ASCII)
_CLOSINGS = {"{": "}", "<": ">"}


def parse_integer(token: str) -> int:
    """The value of a token that `INTEGER` matches."""
    return int(token, 16 if token[:2] in ("0x", "0X") else 8 if token.startswith("0") else 10)


class UntypedReader(TokenReader):
    """Reads values without a schema, and the tokens that values with a schema share with them."""

    def __init__(self, text: str, path: str | Path | None) -> None:
        super().__init__(text, path)
        self._missing: dict[str, int] = {}  # `${NAME}` in place of a value -> the line of its first use
        self._in_strings: dict[str, int] = {}  # `${NAME}` inside quoted strings -> the line of its first use
        self._unknown_values = 0

    def _unknown_value(self, name: str, depth: int) -> Any:
        """The value of an unknown field: a scalar, a tree, or a list of them."""
        has_colon = self._skip(":")
        if self._skip("["):
            values = []
            while not self._skip("]"):
                values.append(self._unknown_item(name, depth, True))
                if not self._skip(",") and self._token != "]":
                    self._fail_expected('"," or "]"')
            return values
        return self._unknown_item(name, depth, has_colon)

    def _unknown_item(self, name: str, depth: int, has_colon: bool) -> Any:
        self._unknown_values += 1
        if self._unknown_values > MAX_UNKNOWN_VALUES:
            self._fail(f"more than {MAX_UNKNOWN_VALUES} values of unknown fields")
        if self._kind == "symbol" and self._token in _CLOSINGS:
            return self._unknown_message(name, depth)
        if not has_colon:
            self._fail_expected(f'":" after {shorten(name)}')
        if self._kind == "placeholder":
            return self._placeholder()
        if self._kind == "string":
            return self._text_string(name)
        sign = -1 if self._skip("-") else 1
        token, kind = self._token, self._kind
        if kind == "number" and INTEGER.fullmatch(token):
            value: Any = sign * parse_integer(token)
        elif kind == "number" and FLOAT.fullmatch(token):
            value = sign * float(token.lower().rstrip("f"))
        elif kind == "name" and sign == 1:
            value = {"true": True, "false": False}.get(token, token)
        else:
            self._fail_expected(f"a value for {shorten(name)}")
        self._advance()
        return value

    def _unknown_message(self, name: str, depth: int) -> TextTree:
        opened, closing = self._at, self._open(name)
        if depth > MAX_UNKNOWN_DEPTH:
            self._fail(f"messages nested more than {MAX_UNKNOWN_DEPTH} deep", opened)
        tree = TextTree()
        while self._kind is not None and self._token != closing:
            if self._kind != "name":
                self._fail_expected("a field name")
            field_name = self._token
            self._advance()
            value = self._unknown_value(field_name, depth + 1)
            for item in value if isinstance(value, list) else [value]:
                tree.add(field_name, item)
            self._skip_separator()
        if self._kind is None:
            self._fail(f'missing "{closing}" of the {shorten(name)} opened in line {self._line(opened)}')
        self._advance()
        return tree

    def _open(self, name: str) -> str:
        """Pass the symbol that opens a message, and return the one that closes it."""
        closing = _CLOSINGS.get(self._token if self._kind == "symbol" else "")
        if closing is None:
            self._fail_expected(f'"{{" to open {name}')
        self._advance()
        return closing

    def _placeholder(self) -> str:
        """Note a `${NAME}` in place of a value, and return it."""
        token = self._token
        self._missing.setdefault(token[2:-1], self._line(self._at))
        self._advance()
        return token

    def _byte_string(self) -> bytes:
        """Adjacent quoted strings, joined."""
        parts = []
        while self._kind == "string":
            if "${" in self._token:
                for found in _TEMPLATE.finditer(self._token):
                    self._in_strings.setdefault(found[1], self._line(self._at))
            parts.append(unescape(self._token[1:-1], self._fail))
            self._advance()
        return b"".join(parts)

    def _text_string(self, name: str) -> str:
        at, joined = self._at, self._byte_string()
        try:
            return joined.decode("utf-8")
        except UnicodeDecodeError:
            self._fail(f"the string for {name} is not UTF-8", at)
