"""Charts of whole settings: stages, throughput against latency, the roofline, accuracy against speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .scale import Scale, format_number, make_scale
from .svg import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Drawing, draw_axes, place_labels

_ROW = 30
_LABEL_GAP = 20  # a phone's larger words need it


@dataclass(frozen=True)
class StageTime:
    """A stage of the waterfall: its median and its 99th percentile in milliseconds (NaN where unknown)."""

    name: str
    p50_ms: float
    p99_ms: float = math.nan


@dataclass(frozen=True)
class Mark:
    """A named point of a chart, its value along y with an interval (NaN where there is none)."""

    name: str
    x: float
    y: float
    low: float = math.nan
    high: float = math.nan


def draw_waterfall(stages: Sequence[StageTime]) -> str:
    """Stages one after another as one image passes them: bars are medians, whiskers reach to the 99th percentile."""
    height = TOP + BOTTOM + _ROW * max(len(stages), 1)
    total = sum(stage.p50_ms for stage in stages)
    described = "; ".join(f"{stage.name} {format_number(stage.p50_ms)} ms" for stage in stages)
    drawing = Drawing(height, "Stages of one image", f"{described}; together {format_number(total)} ms")
    starts = [sum(stage.p50_ms for stage in stages[:index]) for index in range(len(stages))]
    ends = [start + _reach(stage) for start, stage in zip(starts, stages, strict=True)]
    left = LEFT + 50
    x = Scale(0, max([*ends, total, 1e-6]) * 1.02, left, WIDTH - RIGHT - 150)
    for tick in x.ticks():
        drawing.line((x.place(tick), TOP), (x.place(tick), height - BOTTOM), "grid")
        drawing.text((x.place(tick), height - BOTTOM + 18), format_number(tick), "tick", "middle")
    drawing.text(((x.start + x.end) / 2, height - 8), "milliseconds", "axis-name", "middle")
    for index, (stage, start) in enumerate(zip(stages, starts, strict=True)):
        top = TOP + _ROW * index
        middle = top + _ROW / 2
        tip = f"{stage.name}: median {format_number(stage.p50_ms)} ms"
        drawing.text((left - 10, middle + 4), stage.name, "label", "end")
        drawing.box(x.place(start), top + 6, x.place(start + stage.p50_ms) - x.place(start), _ROW - 12, "bar", 0, tip)
        if stage.p99_ms > stage.p50_ms:
            end = x.place(start + stage.p99_ms)
            drawing.line((x.place(start + stage.p50_ms), middle), (end, middle), "whisker")
            drawing.line((end, middle - 4), (end, middle + 4), "whisker")
        share = f" ({stage.p50_ms / total:.0%})" if total else ""
        drawing.text((WIDTH - RIGHT, middle + 4), f"{format_number(stage.p50_ms)} ms{share}", "label", "end")
    return drawing.finish()


def draw_throughput_latency(series: Mapping[str, Sequence[Mark]], *, bound_ms: float | None = None) -> str:
    """What latency each throughput costs.

    Args:
        series: name -> marks whose x is images a second and whose y a latency in milliseconds, in the order in which
            they are joined.
        bound_ms: a latency that must not be passed, drawn as a line.
    """
    marks = [mark for points in series.values() for mark in points]
    described = "; ".join(f"{m.name} {format_number(m.x)}/s at {format_number(m.y)} ms" for m in marks)
    drawing = Drawing(320, "Throughput against latency", described)
    latencies = [mark.y for mark in marks] + ([bound_ms] if bound_ms else [])
    is_log = bool(latencies) and min(latencies) > 0 and max(latencies) / min(latencies) > 6
    x = make_scale([mark.x for mark in marks], LEFT, WIDTH - RIGHT, from_zero=True)
    y = make_scale(latencies, 320 - BOTTOM, TOP, is_log=is_log, from_zero=not is_log)
    draw_axes(drawing, x, y, "images a second", "latency, ms")
    if bound_ms:
        drawing.line((x.start, y.place(bound_ms)), (x.end, y.place(bound_ms)), "bound")
        drawing.text((x.start + 6, y.place(bound_ms) - 5), f"bound {format_number(bound_ms)} ms", "label")
    for index, points in enumerate(series.values()):
        if len(points) > 1:
            drawing.path([(x.place(mark.x), y.place(mark.y)) for mark in points], "curve", index)
    _draw_marks(drawing, x, y, [(index, mark) for index, points in enumerate(series.values()) for mark in points])
    return drawing.finish()


def draw_roofline(peak_gflops: float, bandwidth_gbs: float, marks: Sequence[Mark]) -> str:
    """What the machine allows at each arithmetic intensity, and what was reached.

    Args:
        peak_gflops: the fastest matrix product measured, GFLOP/s.
        bandwidth_gbs: measured memory bandwidth, GB/s.
        marks: x in FLOP a byte, y in GFLOP/s.
    """
    ridge = peak_gflops / bandwidth_gbs
    described = f"peak {format_number(peak_gflops)} GFLOP/s, memory {format_number(bandwidth_gbs)} GB/s; " + "; ".join(
        f"{mark.name} {format_number(mark.y)} GFLOP/s" for mark in marks
    )
    drawing = Drawing(320, "Roofline", described)
    intensities = [mark.x for mark in marks if mark.x > 0] + [ridge / 10, ridge * 10]
    reached = [mark.y for mark in marks if mark.y > 0] + [peak_gflops, bandwidth_gbs * min(intensities)]
    x = make_scale(intensities, LEFT, WIDTH - RIGHT, is_log=True)
    y = make_scale(reached, 320 - BOTTOM, TOP, is_log=True)
    draw_axes(drawing, x, y, "FLOP for each byte of memory traffic", "GFLOP/s")
    corner = (x.place(ridge), y.place(peak_gflops))
    drawing.path(
        [(x.place(x.low), y.place(bandwidth_gbs * x.low)), corner, (x.place(x.high), y.place(peak_gflops))], "roof"
    )
    drawing.text((x.end, corner[1] + 16), f"peak {format_number(peak_gflops)} GFLOP/s", "label", "end")
    slope = (x.low * ridge) ** 0.5
    drawing.text(
        (x.place(slope) + 10, y.place(bandwidth_gbs * slope) + 4), f"{format_number(bandwidth_gbs)} GB/s", "label"
    )
    _draw_marks(drawing, x, y, list(enumerate(marks)))
    return drawing.finish()


def draw_accuracy_speed(marks: Sequence[Mark], y_name: str) -> str:
    """Accuracy against speed: up and to the right is better; the points nothing beats are joined.

    Args:
        marks: x in images a second, y in percent, with the interval of y.
        y_name: what y is.
    """
    described = "; ".join(f"{m.name} {format_number(m.x)}/s, {m.y:.2f} %" for m in marks)
    drawing = Drawing(320, f"{y_name} against speed", described)
    spans = [value for mark in marks for value in (mark.y, mark.low, mark.high)]
    x = make_scale([mark.x for mark in marks], LEFT, WIDTH - RIGHT, from_zero=True)
    y = make_scale(spans, 320 - BOTTOM, TOP)
    draw_axes(drawing, x, y, "images a second", f"{y_name}, %")
    front = _find_front(marks)
    if len(front) > 1:
        drawing.path([(x.place(mark.x), y.place(mark.y)) for mark in front], "front")
    for mark in marks:
        if math.isfinite(mark.low) and math.isfinite(mark.high):
            drawing.line((x.place(mark.x), y.place(mark.low)), (x.place(mark.x), y.place(mark.high)), "whisker")
    _draw_marks(drawing, x, y, list(enumerate(marks)))
    return drawing.finish()


def _draw_marks(drawing: Drawing, x: Scale, y: Scale, marks: Sequence[tuple[int, Mark]]) -> None:
    """Dots with their names beside them; names on the right half go to the left, and none covers another."""
    middle = (x.start + x.end) / 2
    for is_right in (False, True):
        half = [(series, mark) for series, mark in marks if (x.place(mark.x) > middle) == is_right]
        wanted = [y.place(mark.y) + 4 for _, mark in half]
        for (series, mark), text_y in zip(half, place_labels(wanted, _LABEL_GAP, TOP + 8, y.start - 4), strict=True):
            at = (x.place(mark.x), y.place(mark.y))
            drawing.dot(at, series, f"{mark.name}: {format_number(mark.x)}, {format_number(mark.y)}")
            if mark.name:
                offset = -9 if is_right else 9
                drawing.text((at[0] + offset, text_y), mark.name, "label", "end" if is_right else "start")


def _find_front(marks: Sequence[Mark]) -> list[Mark]:
    """The marks than which none is both faster and more accurate, slowest first."""
    front: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (-mark.x, -mark.y)):
        if not front or mark.y > front[-1].y:
            front.append(mark)
    return front[::-1]


def _reach(stage: StageTime) -> float:
    return stage.p99_ms if stage.p99_ms > stage.p50_ms else stage.p50_ms
