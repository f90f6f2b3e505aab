"""The report's charts: matplotlib SVG, colored by the page's CSS variables for light, dark and print.

No sample is left out: a histogram reaches to the slowest sample, and a long series is drawn as the lowest and highest
sample of each column. Text stays text, so that CSS sets font and size; the same data gives the same bytes.
"""

from __future__ import annotations

import functools
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import cycle
from typing import Any, NamedTuple, ParamSpec

import numpy as np

from ....dependencies import import_optional
from ..plan import name_stage
from ..results import CurvePoint, StageView, find_quantile
from ..tables import format_number

WIDTH = 720  # CSS pixels at full size
_TOP, _BOTTOM, _ROW, _STRIP = 26, 48, 30, 58  # pixels: margins, a bar, a strip
_BINS = 60
_COLUMNS = 600  # of a time series
_SPREAD_FOR_LOG = 6.0  # slowest / fastest from which an axis is logarithmic
_LABEL_GAP = 20  # pixels between labels, for the larger text on a phone
# stand-in colors, replaced by the variables of page.css
_INK, _SOFT, _GRID, _BAD, _PAPER = "#010101", "#010102", "#010103", "#010104", "#010105"
_SERIES = tuple(f"#0200{number:02x}" for number in range(1, 7))
_VARIABLES = {_INK: "ink", _SOFT: "soft", _GRID: "grid", _BAD: "bad", _PAPER: "paper"}
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
Parameters = ParamSpec("Parameters")


class Mark(NamedTuple):
    """A named point of a chart."""

    name: str
    x: float
    y: float


class Trace(NamedTuple):
    """A property of the machine over time, drawn in a strip below the latencies."""

    name: str
    unit: str
    times_s: Sequence[float]
    values: Sequence[float]


def _styled(draw: Callable[Parameters, str]) -> Callable[Parameters, str]:
    """Run a function in the charts' style."""

    @functools.wraps(draw)
    def draw_styled(*arguments: Parameters.args, **words: Parameters.kwargs) -> str:
        matplotlib: Any = import_optional("matplotlib")
        with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about glyphs that matplotlib's own font lacks
            return draw(*arguments, **words)

    return draw_styled


@_styled
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


@_styled
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


@_styled
def draw_time_series(
    times_s: Sequence[float], latencies_ms: Sequence[float], traces: Sequence[Trace] = (), *, name: str = "latency"
) -> str:
    """Latency over time, all samples, and the machine at the same time in strips below."""
    chart = _Chart(f"{name} over time", 190, strips=len(traces))
    if len(times_s) <= _COLUMNS // 2:
        chart.axes.plot(times_s, latencies_ms, color=_SERIES[0], linewidth=0.7, marker="o", markersize=4)
    else:
        chart.axes.vlines(*thin_series(times_s, latencies_ms), color=_SERIES[0], linewidth=2, capstyle="round")
    for strip, trace, color in zip(chart.strips, traces, cycle(_SERIES[1:]), strict=False):
        strip.plot(trace.times_s, trace.values, color=color, linewidth=1.8)
        low, high = format_number(min(trace.values)), format_number(max(trace.values))
        strip.set_title(f"{trace.name}: {low} to {high} {trace.unit}", pad=2)
        strip.set_yticks([])
    chart.name_axes("seconds since the start", "latency, ms", log="y" if _is_log(np.asarray(latencies_ms)) else "")
    return chart.finish(f"{len(latencies_ms)} samples; {', '.join(trace.name for trace in traces) or 'no traces'}")


@_styled
def draw_curves(series: Mapping[str, Sequence[CurvePoint]], q: float, *, bound_ms: float | None = None) -> str:
    """Latency quantile `q` against completed images per second, by name; hollow where the system does not keep up."""
    chart = _Chart("Throughput against latency", 260)
    latencies = []
    for points, color in zip(series.values(), cycle(_SERIES), strict=False):
        known = [(point, value) for point in points if (value := find_quantile(point.quantiles, q)) is not None]
        latencies += [value for _, value in known]
        chart.axes.plot([point.completed_per_s for point, _ in known], [value for _, value in known], color=color)
        for point, value in known:
            face = color if point.kept_up else _PAPER
            chart.axes.plot(point.completed_per_s, value, "o", markerfacecolor=face, markeredgecolor=color)
    if bound_ms is not None:
        chart.axes.axhline(bound_ms, color=_BAD, linestyle="--")
        chart.axes.annotate(f"bound {format_number(bound_ms)} ms", (0, bound_ms), (4, 4), textcoords="offset points")
    chart.axes.set_xlim(left=0)
    is_log = _is_log(np.array(latencies))
    chart.name_axes("images per second", f"latency p{q * 100:g}, ms", log="y" if is_log else "")
    return chart.finish(f"{len(latencies)} rates")


@_styled
def draw_accuracy_speed(marks: Sequence[Mark], y_name: str) -> str:
    """Accuracy in percent against images per second; the marks that no other beats in both are joined."""
    chart = _Chart(f"{y_name} against speed", 260, right=220)
    front = find_front(marks)
    chart.axes.plot([mark.x for mark in front], [mark.y for mark in front], color=_SOFT, linestyle="--", linewidth=1.4)
    chart.axes.set_xlim(0, 1.05 * max(mark.x for mark in marks))
    chart.name_axes("images per second", f"{y_name}, %")
    chart.name_marks(marks)
    return chart.finish("; ".join(f"{mark.name} {format_number(mark.x)}/s, {mark.y:.2f} %" for mark in marks))


def find_front(marks: Sequence[Mark]) -> list[Mark]:
    """The marks that no other beats in both speed and accuracy, slowest first."""
    front: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (-mark.x, -mark.y)):
        if not front or mark.y > front[-1].y:
            front.append(mark)
    return front[::-1]


def thin_series(times_s: Sequence[float], values: Sequence[float]) -> tuple[Any, Any, Any]:
    """The lowest and highest value in each of at most 600 columns: (times, lows, highs), each (columns,)."""
    times = np.asarray(times_s, float)
    columns = ((times - times.min()) / max(float(np.ptp(times)), 1e-9) * (_COLUMNS - 1)).astype(int)
    order = np.argsort(columns, kind="stable")
    starts = np.flatnonzero(np.diff(columns[order], prepend=-1))
    ordered = np.asarray(values, float)[order]
    return times[order][starts], np.minimum.reduceat(ordered, starts), np.maximum.reduceat(ordered, starts)


def spread_labels(wanted: Sequence[float], gap: float, high: float) -> list[float]:
    """Positions close to the wanted ones, at least `gap` apart between 0 and `high`; closer where they do not fit."""
    gap = min(gap, high / max(len(wanted) - 1, 1))
    placed = [0.0] * len(wanted)
    least = 0.0
    for rank, index in enumerate(np.argsort(wanted, kind="stable")):
        placed[index] = min(max(wanted[index], least), high - gap * (len(wanted) - 1 - rank))
        least = placed[index] + gap
    return placed


def make_legend(names: Sequence[str]) -> str:
    """The series' names with their colors as HTML, which wraps on a phone; empty for a single series."""
    items = (f'<li class="s{index % len(_SERIES) + 1}">{escape(name)}</li>' for index, name in enumerate(names))
    return f'<ul class="legend">{"".join(items)}</ul>' if len(names) > 1 else ""


class _Chart:
    """Axes of a height in pixels, with strips below that share their x axis, and margins in pixels."""

    def __init__(self, title: str, height: int, *, left: int = 64, right: int = 16, strips: int = 0):
        from matplotlib.figure import Figure

        self._title, self._height = title, _TOP + height + _STRIP * strips + _BOTTOM
        self._figure = Figure(figsize=(WIDTH / 72, self._height / 72), dpi=72)
        margins = {"left": left / WIDTH, "right": 1 - right / WIDTH}
        margins |= {"top": 1 - _TOP / self._height, "bottom": _BOTTOM / self._height}
        ratios = {"height_ratios": [height, *[_STRIP] * strips], "hspace": 0.4 if strips else 0, **margins}
        axes = self._figure.subplots(1 + strips, 1, sharex=True, squeeze=False, gridspec_kw=ratios)[:, 0]
        self.axes: Any = axes[0]
        self.strips: Any = axes[1:]
        self._lowest: Any = axes[-1]

    def name_axes(self, x: str, y: str, *, log: str = "") -> None:
        """Name the axes, and make the one named `log` logarithmic."""
        from matplotlib.ticker import LogLocator, NullLocator

        self._lowest.set_xlabel(x)
        self.axes.set_title(y, color=_SOFT)
        self.axes.grid(axis="y")
        if log:
            getattr(self.axes, f"set_{log}scale")("log")
            axis = getattr(self.axes, f"{log}axis")
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(lambda value, _: format_number(value))

    def name_marks(self, marks: Sequence[Mark]) -> None:
        """Draw marks and write their names at the right, each joined to its mark by a thin line."""
        for mark, color in zip(marks, cycle(_SERIES), strict=False):
            self.axes.plot(mark.x, mark.y, marker="o", markersize=9, color=color)
        box, _ = self.axes.bbox, self.axes.viewLim  # computes the limits of the axes
        places = [self.axes.transData.transform((mark.x, mark.y))[1] - box.y0 for mark in marks]
        line = {"arrowstyle": "-", "color": _SOFT, "linewidth": 0.7, "shrinkB": 5}
        for mark, y in zip(marks, spread_labels(places, _LABEL_GAP, box.height), strict=True):
            place = {"xytext": (box.x1 + 12, box.y0 + y), "textcoords": "figure pixels", "va": "center"}
            self.axes.annotate(mark.name, (mark.x, mark.y), **place, arrowprops=line)

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
