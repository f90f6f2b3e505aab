"""The type of `--list`: a text file of any length, or `-` for stdin."""

from __future__ import annotations

import io
from typing import Any

import click

from ..text_files import find_wide_codec

_SAMPLE_BYTES = 4096


class ListFile(click.File):
    """A file opened as text in UTF-8, or in UTF-16 as Windows' programs write it."""

    def __init__(self) -> None:
        super().__init__("rb")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The open file, whose lines are read one by one."""
        file: Any = super().convert(value, param, ctx)
        codec = find_wide_codec(file.peek(_SAMPLE_BYTES)[:_SAMPLE_BYTES])
        return io.TextIOWrapper(file, encoding=codec or "utf-8-sig")
