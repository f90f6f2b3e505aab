"""The report's charts: matplotlib SVG, colored by the page's CSS variables for light, dark and print.

No sample is left out: a histogram reaches to the slowest sample, and a long series keeps its peaks. Text stays text, so
that CSS sets font and size; the same data gives the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from itertools import cycle
from typing import Any

import numpy as np

from ....dependencies import import_optional
from ..plan import name_stage
from ..results import StageView, find_quantile
from ..tables import format_number

WIDTH = 720  # CSS pixels at full size
_TOP, _BOTTOM, _ROW = 26, 48, 30  # pixels: margins, a bar
_BINS = 60
_MOST_MARKERS = 300  # of a time series
_SPREAD_FOR_LOG = 6.0  # slowest / fastest from which an axis is logarithmic
# stand-in colors, replaced by the variables of page.css
_INK, _SOFT, _GRID, _PAPER = "#010101", "#010102", "#010103", "#010104"
_SERIES = tuple(f"#0200{number:02x}" for number in range(1, 7))
_VARIABLES = {_INK: "ink", _SOFT: "soft", _GRID: "grid", _PAPER: "paper"}
_VARIABLES |= {color: f"series-{number}" for number, color in enumerate(_SERIES, 1)}
_STYLE: dict[str, Any] = {
    **{f"axes.spines.{side}": False for side in ("top", "right", "left")},
    **{f"{axis}tick.color": _SOFT for axis in "xy"},
    "axes.axisbelow": True,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _SOFT,
    "axes.titlelocation": "left",
    "axes.titlesize": 13,
    "font.size": 13,
    "grid.color": _GRID,
    "lines.markeredgecolor": _PAPER,
    "svg.fonttype": "none",
    "text.color": _INK,
    "text.parse_math": False,
    "ytick.major.size": 0,
}


@contextmanager
def _style() -> Iterator[None]:
    matplotlib: Any = import_optional("matplotlib")
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about glyphs that matplotlib's own font lacks
        yield


@_style()
def draw_stages(view: StageView) -> str:
    """Stages one after another as one image passes them: bars are medians, whiskers reach to p99."""
    stages = [stage for stage in view.stages if stage.name != "end_to_end"]
    medians = [stage.series.typical_ms for stage in stages]
    total, start = sum(medians), 0.0
    chart = _Chart("Stages of one image", _ROW * len(stages), left=114, right=160)
    for row, (stage, median) in enumerate(zip(stages, medians, strict=True)):
        chart.axes.barh(row, median, left=start, height=0.6, color=_SERIES[0], alpha=0.75)
        start += median
        p99_ms = find_quantile(stage.series.quantiles, 0.99) or 0.0
        if p99_ms > median:
            chart.axes.errorbar(start, row, xerr=[[0], [p99_ms - median]], color=_SOFT, capsize=4)
        text = f"{format_number(median)} ms ({median / total:.0%})"
        chart.axes.annotate(text, (1, row), xycoords=("figure fraction", "data"), ha="right", va="center")
    chart.axes.set_yticks(range(len(stages)), [name_stage(stage.name) for stage in stages], color=_INK)
    chart.axes.set_ylim(len(stages) - 0.5, -0.5)  # the first on top
    chart.axes.set_xlim(left=0)
    chart.axes.set_xlabel("milliseconds")
    chart.axes.grid(axis="x")
    return chart.finish(f"together {format_number(total)} ms")


@_style()
def draw_histogram(series: Mapping[str, Sequence[float]]) -> str:
    """Latencies by name, in milliseconds, counted in bins; all samples are counted."""
    chart = _Chart("Latency histogram", 220)
    everything = np.concatenate([np.asarray(values, float) for values in series.values()])
    is_log = _is_log(everything)
    edges = (np.geomspace if is_log else np.linspace)(everything.min() * 0.98, everything.max() * 1.02, _BINS + 1)
    for values, color in zip(series.values(), cycle(_SERIES), strict=False):
        counts = np.histogram(values, edges)[0]
        heights = np.where(counts > 0, np.maximum(counts, 0.01 * counts.max()), 0)  # a single slow sample is visible
        chart.axes.bar(edges[:-1], heights, np.diff(edges), align="edge", color=color, alpha=0.75)
    chart.axes.yaxis.get_major_locator().set_params(integer=True)
    chart.name_axes("latency, ms" + (" (logarithmic)" if is_log else ""), "samples", log="x" if is_log else "")
    return chart.finish(", ".join(f"{name}: {len(values)} samples" for name, values in series.items()))


@_style()
def draw_time_series(times_s: Sequence[float], latencies_ms: Sequence[float], *, name: str = "latency") -> str:
    """Latency over time, all samples."""
    chart = _Chart(f"{name} over time", 190)
    marker = "o" if len(times_s) <= _MOST_MARKERS else None  # a line alone is simplified, keeping every peak
    chart.axes.plot(times_s, latencies_ms, color=_SERIES[0], linewidth=0.7, marker=marker, markersize=4)
    chart.name_axes("seconds since the start", "latency, ms", log="y" if _is_log(np.asarray(latencies_ms)) else "")
    return chart.finish(f"{len(latencies_ms)} samples")


def make_legend(names: Sequence[str]) -> str:
    """The series' names with their colors as HTML, which wraps on a phone; empty for a single series."""
    items = (f'<li class="s{index % len(_SERIES) + 1}">{escape(name)}</li>' for index, name in enumerate(names))
    return f'<ul class="legend">{"".join(items)}</ul>' if len(names) > 1 else ""


class _Chart:
    """Axes of a height, with margins, in pixels."""

    def __init__(self, title: str, height: int, *, left: int = 64, right: int = 16):
        from matplotlib.figure import Figure

        self._title, self._height = title, _TOP + height + _BOTTOM
        self._figure = Figure(figsize=(WIDTH / 72, self._height / 72), dpi=72)
        margins = {"left": left / WIDTH, "right": 1 - right / WIDTH}
        margins |= {"top": 1 - _TOP / self._height, "bottom": _BOTTOM / self._height}
        self.axes: Any = self._figure.subplots(gridspec_kw=margins)

    def name_axes(self, x: str, y: str, *, log: str = "") -> None:
        """Name the axes, and make the one named `log` logarithmic."""
        from matplotlib.ticker import LogLocator, NullLocator

        self.axes.set_xlabel(x)
        self.axes.set_title(y, color=_SOFT)
        self.axes.grid(axis="y")
        if log:
            getattr(self.axes, f"set_{log}scale")("log")
            axis = getattr(self.axes, f"{log}axis")
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(lambda value, _: format_number(value))

    def finish(self, description: str) -> str:
        """The SVG element, with a title and a description for screen readers."""
        import matplotlib

        matplotlib.rcParams["svg.hashsalt"] = self._title
        buffer = io.BytesIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        self._figure.savefig(buffer, format="svg", metadata=metadata, transparent=True)
        body = buffer.getvalue().decode().partition("</defs>")[2]  # the first ones style the whole page
        body = re.sub(r'<g id="[^"]*">', "<g>", body)
        body = re.sub(r'font-family: [^;"]*(; )?', "", body)
        for color, name in _VARIABLES.items():
            body = body.replace(color, f"var(--{name})")
        names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        texts = f"<title>{escape(self._title)}</title><desc>{escape(description)}</desc>"
        return f'<svg viewBox="0 0 {WIDTH} {self._height}" role="img" {names}>{texts}{body.strip()}'


def _is_log(values: Any) -> bool:
    return bool(values.size) and values.min() > 0 and values.max() / values.min() > _SPREAD_FOR_LOG
