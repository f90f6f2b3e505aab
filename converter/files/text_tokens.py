"""Tokens of protobuf text format, with line and column for errors."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from ...errors import PrototxtError
from .text_schema import shorten

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


class TokenReader:
    """Reads a text token by token: `_kind` and `_token` are the current one, which begins at `_at`."""

    def __init__(self, text: str, path: str | Path | None) -> None:
        self._text, self._path = text, path
        self._tokens = self._scan(0)
        self._newlines: list[int] | None = None
        self._kind: str | None = None
        self._token = ""
        self._at = 0
        self._advance()

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

    def _skip_separator(self) -> None:
        if not self._skip(","):
            self._skip(";")

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
        if self._kind == "name" and self._token.isupper() and wanted.startswith(("an integer", "a number")):
            hint = f"; write ${{{self._token}}} and give --set {self._token}=VALUE"
        got = "the end of the text" if self._kind is None else shorten(self._token)
        self._fail(f"expected {wanted}, got {got}{hint}")

    def _fail_bad_character(self) -> NoReturn:
        if self._token == "$":
            self._fail("templates are written ${NAME}")
        self._fail(f"unexpected character {self._token!r}")

    def _fail(self, text: str, at: int | None = None) -> NoReturn:
        raise self._make_error(text, self._at if at is None else at)

    def _make_error(self, text: str, at: int) -> PrototxtError:
        return PrototxtError(text, path=self._path, line=self._line(at), column=self._column(at))

    def _column(self, at: int) -> int:
        return at - self._text.rfind("\n", 0, at)
