"""Charts of single measurements: how latencies spread, and how they lie in time beside the machine's clocks.

No sample is left out: a histogram reaches to the slowest one, and where a series has more samples than the drawing has
columns, each column shows the lowest and the highest of its samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .scale import Scale, format_number, make_scale
from .svg import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Drawing, Point, draw_axes

_BINS = 60
_SPREAD_FOR_LOG = 6.0  # slowest over fastest from which equal ratios read better
_COLUMNS = 600


@dataclass(frozen=True)
class Trace:
    """Something of the machine over time, drawn in a strip below the latencies.

    Attributes:
        name: what it is.
        unit: of the values.
        times_s: seconds since the measurement began.
        values: one for each time.
    """

    name: str
    unit: str
    times_s: Sequence[float]
    values: Sequence[float]


def draw_histogram(series: Mapping[str, Sequence[float]]) -> str:
    """How many samples took how long.

    Args:
        series: name -> latencies in milliseconds; every one is counted.
    """
    everything = [value for values in series.values() for value in values]
    described = ", ".join(f"{name}: {len(values)} samples" for name, values in series.items())
    drawing = Drawing(280, "Latency histogram", described)
    is_log = bool(everything) and min(everything) > 0 and max(everything) / min(everything) > _SPREAD_FOR_LOG
    x = make_scale(everything, LEFT, WIDTH - RIGHT, is_log=is_log)
    edges = _make_edges(x)
    counts = {name: _count(values, edges) for name, values in series.items()}
    most = max((max(bins) for bins in counts.values() if bins), default=1)
    y = Scale(0, most * 1.05, 280 - BOTTOM, TOP, is_count=True)
    draw_axes(drawing, x, y, "latency, ms" + (" (logarithmic)" if is_log else ""), "samples")
    for index, (name, bins) in enumerate(counts.items()):
        for low, high, count in zip(edges, edges[1:], bins, strict=False):
            if count:
                tip = f"{name}: {count} of {format_number(low)} to {format_number(high)} ms"
                left, right = x.place(low), x.place(high)
                top = min(y.place(count), y.start - 2)  # a single slow sample must be seen
                drawing.box(left, top, right - left - 0.5, y.start - top, "bar", index, tip)
    return drawing.finish()


def draw_quantiles(rows: Sequence[tuple[str, float, float, float]]) -> str:
    """Quantiles as dots with their intervals.

    Args:
        rows: (name, value, low, high) in milliseconds, from the lowest quantile up; a quantile without an interval
            has NaN for both ends.
    """
    height = TOP + BOTTOM + 26 * max(len(rows), 1)
    described = "; ".join(f"{name} {format_number(value)} ms" for name, value, _, _ in rows)
    drawing = Drawing(height, "Latency quantiles", described)
    numbers = [number for row in rows for number in row[1:] if math.isfinite(number)]
    is_log = bool(numbers) and min(numbers) > 0 and max(numbers) / min(numbers) > _SPREAD_FOR_LOG
    x = make_scale(numbers, LEFT, WIDTH - RIGHT - 70, is_log=is_log)
    for tick in x.ticks():
        drawing.line((x.place(tick), TOP), (x.place(tick), height - BOTTOM), "grid")
        drawing.text((x.place(tick), height - BOTTOM + 18), format_number(tick), "tick", "middle")
    drawing.text(((x.start + x.end) / 2, height - 8), "latency, ms", "axis-name", "middle")
    for index, (name, value, low, high) in enumerate(rows):
        at = TOP + 26 * index + 13
        drawing.text((LEFT - 10, at + 4), name, "tick", "end")
        if math.isfinite(low) and math.isfinite(high):
            drawing.line((x.place(low), at), (x.place(high), at), "interval s1")
        drawing.dot((x.place(value), at), 0, f"{name}: {format_number(value)} ms")
        drawing.text((WIDTH - RIGHT, at + 4), f"{format_number(value)} ms", "label", "end")
    return drawing.finish()


def draw_time_series(
    times_s: Sequence[float], latencies_ms: Sequence[float], traces: Sequence[Trace] = (), *, name: str = "latency"
) -> str:
    """Latency over time, every sample in it, and what the machine did meanwhile in strips below.

    Args:
        times_s: when each sample began, in seconds since the first.
        latencies_ms: milliseconds.
        traces: clocks, load, power or temperature.
        name: what the latencies are of.
    """
    strips = [trace for trace in traces if len(trace.times_s) and len(trace.times_s) == len(trace.values)]
    body, strip = 190, 58
    height = TOP + body + strip * len(strips) + BOTTOM
    described = f"{len(latencies_ms)} samples; below: " + (", ".join(t.name for t in strips) or "nothing recorded")
    drawing = Drawing(height, f"{name} over time", described)
    ends = [*times_s, *(time for trace in strips for time in trace.times_s)]
    x = make_scale(ends, LEFT, WIDTH - RIGHT)
    is_log = bool(latencies_ms) and min(latencies_ms) > 0 and max(latencies_ms) / min(latencies_ms) > _SPREAD_FOR_LOG
    y = make_scale(latencies_ms, TOP + body, TOP, is_log=is_log)
    for tick in y.ticks(5):
        drawing.line((LEFT, y.place(tick)), (WIDTH - RIGHT, y.place(tick)), "grid")
        drawing.text((LEFT - 8, y.place(tick) + 4), format_number(tick), "tick", "end")
    drawing.upright((14, TOP + body / 2), "latency, ms")
    _draw_samples(drawing, x, y, times_s, latencies_ms)
    for index, trace in enumerate(strips):
        _draw_strip(drawing, x, trace, TOP + body + strip * index, strip, index + 1)
    bottom = height - BOTTOM
    drawing.line((LEFT, bottom), (WIDTH - RIGHT, bottom), "axis")
    for tick in x.ticks(7):
        drawing.text((x.place(tick), bottom + 18), format_number(tick), "tick", "middle")
    drawing.text((WIDTH / 2, bottom + 36), "seconds since the start", "axis-name", "middle")
    return drawing.finish()


def _draw_samples(
    drawing: Drawing, x: Scale, y: Scale, times_s: Sequence[float], latencies_ms: Sequence[float]
) -> None:
    if len(times_s) <= _COLUMNS // 2:
        points = [(x.place(time), y.place(value)) for time, value in zip(times_s, latencies_ms, strict=True)]
        drawing.path(points, "thin", 0)
        for point in points:
            drawing.dot(point, 0, radius=1.8)
        return
    columns: dict[int, tuple[float, float]] = {}
    for time, value in zip(times_s, latencies_ms, strict=True):
        column = int(x.place(time))
        low, high = columns.get(column, (value, value))
        columns[column] = (min(low, value), max(high, value))
    for column, (low, high) in sorted(columns.items()):
        top, bottom = y.place(high), y.place(low)
        drawing.box(column, top - 1, 1.8, bottom - top + 2, "bar", 0)


def _draw_strip(drawing: Drawing, x: Scale, trace: Trace, top: float, height: float, series: int) -> None:
    y = make_scale(trace.values, top + height - 6, top + 16)
    drawing.line((LEFT, top + height - 2), (WIDTH - RIGHT, top + height - 2), "grid")
    last = f"{format_number(min(trace.values))} to {format_number(max(trace.values))} {trace.unit}".rstrip()
    drawing.text((LEFT, top + 10), f"{trace.name}: {last}", "label")
    points: list[Point] = [(x.place(t), y.place(v)) for t, v in zip(trace.times_s, trace.values, strict=True)]
    drawing.path(points, "curve", series)


def _make_edges(x: Scale) -> list[float]:
    if x.is_log:
        ratio = (x.high / x.low) ** (1 / _BINS)
        return [x.low * ratio**index for index in range(_BINS + 1)]
    return [x.low + (x.high - x.low) * index / _BINS for index in range(_BINS + 1)]


def _count(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    counts = [0] * (len(edges) - 1)
    is_log = len(edges) > 2 and not math.isclose(edges[2] - edges[1], edges[1] - edges[0], rel_tol=1e-6)
    for value in values:
        if is_log:
            share = math.log(max(value, edges[0]) / edges[0]) / math.log(edges[-1] / edges[0])
        else:
            share = (value - edges[0]) / (edges[-1] - edges[0])
        counts[min(max(int(share * len(counts)), 0), len(counts) - 1)] += 1
    return counts
