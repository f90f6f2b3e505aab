"""The report's parts about single images: the stages one after the other, how latencies spread and lie in time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from ..machine_sections import MachineTrace
from ..results import BenchResult
from ..sections import Series
from ..view_sections import Stage, Subject, name_stage
from .latency_charts import Trace, draw_histogram, draw_quantiles, draw_time_series
from .overview_charts import StageTime, draw_waterfall
from .page import Figure, Section, Table
from .svg import legend
from .words import read_ms, write_interval, write_ms, write_rate

_WHOLE: Final = "end_to_end"
_NOT_A_NUMBER = math.nan


def make_stage_section(result: BenchResult) -> Section | None:
    """Waterfall and table of every subject's stages; None where no stages were measured."""
    measured = [subject for subject in result.subjects if subject.stages is not None]
    if not measured:
        return None
    figures, tables = [], []
    for subject in measured:
        assert subject.stages is not None
        parts = [stage for stage in subject.stages.stages if stage.name != _WHOLE]
        times = [StageTime(name_stage(stage.name), stage.series.typical_ms, _p99(stage)) for stage in parts]
        absent = "; ".join(f"no {name_stage(name)}: {why}" for name, why in subject.stages.absent.items())
        caption = (
            f"{subject.stages.images} images of {subject.image_height}x{subject.image_width}, one after the other: "
            f"{write_rate(subject.stages.throughput_per_s)}. Bars are medians, whiskers reach to p99."
        )
        figures.append(Figure(draw_waterfall(times), subject.name, f"{caption} {_sentence(absent)}".rstrip()))
        tables.append(_tabulate(subject))
    return Section(
        "Stages",
        ["Names as trtexec uses them: enqueue, H2D, compute, D2H; end to end has a clock of its own."],
        figures,
        tables,
    )


def make_latency_section(result: BenchResult) -> Section | None:
    """Histogram, quantiles and time series of the network and of the whole way; None where no stages were measured."""
    compute = {s.name: stage for s in result.subjects if (stage := _main_stage(s)) is not None}
    if not compute:
        return None
    figures = [
        Figure(
            draw_histogram({name: stage.series.values_ms for name, stage in compute.items()}),
            f"How {name_stage(next(iter(compute.values())).name)} latencies spread",
            "Every sample is in it; nothing is dropped as an outlier.",
            legend(list(compute)),
        )
    ]
    for name, stage in compute.items():
        rows = [(q.name, q.value_ms, q.low_ms, q.high_ms) for q in stage.series.quantiles if q.value_ms is not None]
        drawing = draw_quantiles([(n, v, _or_nan(low), _or_nan(high)) for n, v, low, high in rows])
        unknown = [f"{q.name}: {q.reason}" for q in stage.series.quantiles if q.reason]
        left_out = f"Not given: {'; '.join(unknown)}." if unknown else ""
        caption = f"Bands are bootstrap intervals at {stage.series.confidence:.0%}. {left_out}"
        figures.append(Figure(drawing, f"Quantiles of {name}", caption.rstrip()))
    for subject in result.subjects:
        whole = subject.stages.find_stage(_WHOLE) if subject.stages else None
        stage = whole or _main_stage(subject)
        if stage is not None:
            traces = [*_canary(result.canary, stage.series), *_machine(result.machine_trace, stage.series)]
            drawing = draw_time_series(stage.series.at_s, stage.series.values_ms, traces, name=name_stage(stage.name))
            title = f"{name_stage(stage.name).capitalize()} of {subject.name} over time"
            figures.append(Figure(drawing, title, "Below it what the machine did at the same moments."))
    return Section("Latency", [], figures)


def _tabulate(subject: Subject) -> Table:
    assert subject.stages is not None
    rows = []
    for stage in subject.stages.stages:
        p50 = next((q for q in stage.series.quantiles if q.q == 0.5), None)
        quantiles = [write_ms(read_ms(stage.series, q)) for q in (0.5, 0.9, 0.99, 0.999)]
        interval = write_interval(p50) if p50 is not None else ""
        rows.append((name_stage(stage.name), *quantiles, write_ms(stage.series.max_ms), interval, stage.clock))
    columns = ("stage", "p50", "p90", "p99", "p99.9", "max", "interval of p50", "clock")
    return Table(columns, rows, subject.name)


def _main_stage(subject: Subject) -> Stage | None:
    if subject.stages is None:
        return None
    return subject.stages.find_stage("compute") or subject.stages.find_stage(_WHOLE)


def _machine(trace: MachineTrace, series: Series) -> list[Trace]:
    """The clocks first, then who else was busy; only while the series ran, and only what the machine tells."""
    columns: list[tuple[str, str, Sequence[float | None]]] = [("CPU clock", "MHz", trace.cpu_mhz)]
    for gpu in trace.gpus:
        columns += [(f"{gpu.name} clock", "MHz", gpu.sm_mhz), (f"{gpu.name} power", "W", gpu.power_w)]
        columns += [(f"{gpu.name} temperature", "°C", gpu.temperature_c)]
    both = zip(trace.cpu_busy, trace.own_busy, strict=True)
    others = [None if busy is None or own is None else max(busy - own, 0.0) for busy, own in both]
    columns += [("cores busy for others", "of 1", others), ("taken by the hypervisor", "of 1", trace.steal)]
    columns += [("CPU temperature", "°C", trace.temperature_c)]
    first, last = _span(series)
    traces = []
    for name, unit, column in columns:
        kept = [(t, v) for t, v in zip(trace.at_s, column, strict=True) if v is not None and first <= t <= last]
        if len(kept) >= 2:
            traces.append(Trace(name, unit, [t for t, _ in kept], [v for _, v in kept]))
    return traces


def _canary(canary: Series | None, series: Series) -> list[Trace]:
    if canary is None:
        return []
    first, last = _span(series)
    kept = [(t, v) for t, v in zip(canary.at_s, canary.values_ms, strict=True) if first <= t <= last]
    return [Trace("canary (fixed arithmetic)", "ms", [t for t, _ in kept], [v for _, v in kept])] if kept else []


def _span(series: Series) -> tuple[float, float]:
    if not series.at_s:
        return 0.0, 0.0
    return min(series.at_s) - 1.0, max(series.at_s) + 1.0


def _p99(stage: Stage) -> float:
    return _or_nan(read_ms(stage.series, 0.99))


def _or_nan(value: float | None) -> float:
    return _NOT_A_NUMBER if value is None else value


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
