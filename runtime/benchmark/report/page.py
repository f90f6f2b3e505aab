"""The page of a report as data, and its rendering: one HTML file that asks nobody for anything.

The page forbids itself every request and every script (its Content-Security-Policy); text of a result is escaped by
the template, drawings escape their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ....dependencies import import_optional
from .words import MISSING

_FOLDER = Path(__file__).parent
Cell = str | int | float


@dataclass(frozen=True)
class Card:
    """A figure that is read first."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """A sentence on how far the figures can be trusted."""

    text: str
    tone: Literal["good", "warn", "bad"]


@dataclass(frozen=True)
class Figure:
    """A drawing; `drawing` and `legend` are markup made by `svg`."""

    drawing: str
    title: str = ""
    caption: str = ""
    legend: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under columns; a column whose cells all begin like numbers is aligned to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    @cached_property
    def numbers(self) -> frozenset[int]:
        """The indices of columns of numbers."""
        return frozenset(
            index
            for index in range(len(self.columns))
            if self.rows and all(_is_number(row[index]) for row in self.rows if row[index] not in ("", MISSING))
        )


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    title: str
    notes: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    code: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    subtitle: str
    verdicts: Sequence[Verdict] = ()
    cards: Sequence[Card] = ()
    sections: Sequence[Section] = field(default_factory=tuple)


def render_page(page: Page) -> str:
    """The page as HTML.

    Raises:
        MissingDependencyError: if Jinja is not installed.
    """
    jinja: Any = import_optional("jinja2")
    environment = jinja.Environment(autoescape=True, undefined=jinja.StrictUndefined, keep_trailing_newline=True)
    safe = import_markup()
    template = environment.from_string((_FOLDER / "page.html.j2").read_text(encoding="utf-8"))
    css = safe((_FOLDER / "page.css").read_text(encoding="utf-8"))
    drawn = [
        Section(
            section.title,
            section.notes,
            [Figure(safe(f.drawing), f.title, f.caption, safe(f.legend)) for f in section.figures],
            section.tables,
            section.code,
        )
        for section in page.sections
    ]
    whole = Page(page.title, page.subtitle, page.verdicts, page.cards, drawn)
    html: str = template.render(page=whole, css=css)
    return html


def import_markup() -> Any:
    """The class that marks text as finished markup."""
    import_optional("jinja2")
    from markupsafe import Markup

    return Markup


def _is_number(cell: str) -> bool:
    return cell.lstrip("<>~+-")[:1].isdigit()
