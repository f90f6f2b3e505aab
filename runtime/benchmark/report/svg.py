"""A drawing surface for charts: SVG written by hand, so that the report needs no script, no font and no network.

Colours are CSS variables of the page (`page.css`), which is how one drawing serves light, dark and print. All text
passes through `escape`; nothing else of a result reaches the markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .scale import Scale, format_number

WIDTH = 720
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 44
#: series colours `--series-1` ... in page.css
SERIES_COLORS = 6

Point = tuple[float, float]


class Drawing:
    """SVG markup in the making; user units are CSS pixels at full width."""

    def __init__(self, height: int, title: str, description: str, *, width: int = WIDTH) -> None:
        """Open a drawing of `width` x `height` units; title and description are what a screen reader says."""
        self.width = width
        self.height = height
        self._parts = [
            f'<svg viewBox="0 0 {width} {height}" role="img" xmlns="http://www.w3.org/2000/svg">',
            f"<title>{escape(title)}</title><desc>{escape(description)}</desc>",
        ]

    def line(self, start: Point, end: Point, kind: str) -> None:
        """A straight line of the class `kind`."""
        self._add(f'<line class="{kind}" x1="{_n(start[0])}" y1="{_n(start[1])}" x2="{_n(end[0])}" y2="{_n(end[1])}"/>')

    def path(self, points: Iterable[Point], kind: str, series: int = 0) -> None:
        """A polyline through points."""
        text = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self._add(f'<polyline class="{kind} {_series(series)}" points="{text}"/>')

    def area(self, points: Iterable[Point], kind: str, series: int = 0) -> None:
        """A filled polygon."""
        text = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self._add(f'<polygon class="{kind} {_series(series)}" points="{text}"/>')

    def box(self, x: float, y: float, width: float, height: float, kind: str, series: int = 0, tip: str = "") -> None:
        """A rectangle; `tip` shows under the pointer."""
        body = f"<title>{escape(tip)}</title>" if tip else ""
        self._add(
            f'<rect class="{kind} {_series(series)}" x="{_n(x)}" y="{_n(y)}" width="{_n(max(width, 0.5))}" '
            f'height="{_n(max(height, 0.5))}">{body}</rect>'
        )

    def dot(self, at: Point, series: int = 0, tip: str = "", radius: float = 4.5) -> None:
        """A round mark."""
        body = f"<title>{escape(tip)}</title>" if tip else ""
        self._add(
            f'<circle class="dot {_series(series)}" cx="{_n(at[0])}" cy="{_n(at[1])}" r="{_n(radius)}">{body}</circle>'
        )

    def text(self, at: Point, words: str, kind: str = "label", anchor: str = "start") -> None:
        """Words at a point; `anchor` is start, middle or end."""
        self._add(
            f'<text class="{kind}" x="{_n(at[0])}" y="{_n(at[1])}" text-anchor="{anchor}">{escape(str(words))}</text>'
        )

    def upright(self, at: Point, words: str) -> None:
        """Words that run upwards, for a vertical axis."""
        x, y = _n(at[0]), _n(at[1])
        self._add(
            f'<text class="axis-name" x="{x}" y="{y}" text-anchor="middle" transform="rotate(-90 {x} {y})">'
            f"{escape(words)}</text>"
        )

    def finish(self) -> str:
        """The whole SVG element."""
        return "".join(self._parts) + "</svg>"

    def _add(self, markup: str) -> None:
        self._parts.append(markup)


def draw_axes(drawing: Drawing, x: Scale, y: Scale, x_name: str, y_name: str) -> None:
    """Grid lines, ticks and names of both axes."""
    for tick in y.ticks(5):
        place = y.place(tick)
        drawing.line((x.start, place), (x.end, place), "grid")
        drawing.text((x.start - 8, place + 4), format_number(tick), "tick", "end")
    for tick in x.ticks(7):
        place = x.place(tick)
        drawing.line((place, y.start), (place, y.start + 5), "axis")
        drawing.text((place, y.start + 18), format_number(tick), "tick", "middle")
    drawing.line((x.start, y.start), (x.end, y.start), "axis")
    drawing.text(((x.start + x.end) / 2, y.start + 36), x_name, "axis-name", "middle")
    drawing.upright((14, (y.start + y.end) / 2), y_name)


def place_labels(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions as near the wanted ones as labels that need `gap` of each other can lie between two ends.

    Where there are too many for that they share the room evenly.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    if not order:
        return []
    gap = min(gap, (high - low) / max(len(order) - 1, 1))
    placed = [0.0] * len(order)
    least = low
    for index in order:
        placed[index] = max(wanted[index], least)
        least = placed[index] + gap
    most = high
    for index in reversed(order):
        placed[index] = min(placed[index], most)
        most = placed[index] - gap
    return placed


def legend(names: Sequence[str]) -> str:
    """The series' names with their colours, as HTML, so that it wraps on a phone; empty for a single series."""
    if len(names) < 2:
        return ""
    items = (f'<li class="{_series(index)}">{escape(name)}</li>' for index, name in enumerate(names))
    return f'<ul class="legend">{"".join(items)}</ul>'


def _series(index: int) -> str:
    return f"s{index % SERIES_COLORS + 1}"


def _n(value: float) -> str:
    text = f"{value:.2f}"
    return text.rstrip("0").rstrip(".")
