"""Untrusted text in messages: no terminal escapes, no forged lines, no reordering."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrous.printable import clean, escape, escape_lines


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("conv1_1, größe 日本", "conv1_1, größe 日本"),
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("\udce9.png", "\\udce9.png"),  # a byte of a file name that is not UTF-8
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_lines_are_indented() -> None:
    forged = 'layer "c\n\x1b[2Katrous: all passed" failed\n  at line 3'
    assert escape_lines(forged) == 'layer "c\n  \\x1b[2Katrous: all passed" failed\n  at line 3'


@given(st.text())
def test_everything_is_printable(text: str) -> None:
    assert escape(text).isprintable()
    assert clean(text, 50).isprintable()
    assert escape_lines(text).replace("\n", "").isprintable()
    assert all(line.startswith("  ") or not line for line in escape_lines(text).split("\n")[1:])
    assert escape(text).isascii() or escape(text).encode("utf-8")
