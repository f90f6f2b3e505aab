"""The report of a benchmark: one HTML file with its drawings inside, that loads nothing and runs nothing.

Readable on a phone, on paper, in light and in dark. `page` is its form, `contents` what it says, the `*_charts` files
its drawings, `svg` and `scale` what they are drawn with.
"""

from __future__ import annotations

from pathlib import Path

from ....bundle.files import write_file
from ..results import BenchResult
from .contents import compose_page
from .page import render_page

__all__ = ["render_report", "write_report"]


def render_report(result: BenchResult) -> str:
    """The report of a result as HTML.

    Raises:
        MissingDependencyError: if Jinja is not installed.
    """
    return render_page(compose_page(result))


def write_report(result: BenchResult, path: str | Path) -> None:
    """Write the report of a result.

    Raises:
        MissingDependencyError: if Jinja is not installed.
        OutputError: if the file cannot be written.
    """
    write_file(path, render_report(result).encode())
