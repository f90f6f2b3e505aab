"""The report of a result: one HTML file with its charts inside, which loads nothing and runs nothing.

Readable on a phone, on paper, in light and in dark. The page's Content-Security-Policy forbids all requests and
scripts; the template escapes all text, and the charts escape theirs.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...dependencies import import_optional
from ...files import write_file
from ..plan import name_stage
from ..results import BenchResult, MachineTrace, Series, Subject
from ..tables import format_interval, format_number, make_sections
from . import charts
from .charts import Mark, Trace

__all__ = ["check_report_libraries", "render_report", "write_report"]

_FOLDER = Path(__file__).parent


class Figure(NamedTuple):
    """A chart with its legend, both markup."""

    title: str
    drawing: str
    caption: str = ""
    legend: str = ""


class Card(NamedTuple):
    """A figure at the top of the page."""

    name: str
    value: str
    note: str = ""


def render_report(result: BenchResult) -> str:
    """The report of a result as HTML.

    Raises:
        MissingDependencyError: if Jinja or matplotlib is not installed.
    """
    jinja: Any = import_optional("jinja2")
    environment = jinja.Environment(autoescape=True, undefined=jinja.StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string((_FOLDER / "page.html.j2").read_text(encoding="utf-8"))
    first = result.subjects[0]
    names = [result.environment.cpu.name, *(gpu.name for gpu in result.environment.gpus)]
    html: str = template.render(
        title=f"{first.bundle}: {first.image_height}x{first.image_width}, {', '.join(s.name for s in result.subjects)}",
        subtitle=f"{', '.join(names)} · {result.created:%Y-%m-%d %H:%M} UTC · {format_number(result.duration_s)} s of "
        f"measuring · atrous {result.atrous_version}",
        verdicts=list(_list_verdicts(result)),
        cards=list(_list_cards(first)),
        sections=make_sections(result),
        figures={title: list(draw(result)) for title, draw in _FIGURES.items()},
        warnings=result.warnings,
        command=shlex.join(result.command),
        css=(_FOLDER / "page.css").read_text(encoding="utf-8"),
    )
    return html


def check_report_libraries() -> None:
    """Raise MissingDependencyError if a library of the report is not installed."""
    for name in ("jinja2", "matplotlib"):
        import_optional(name)


def write_report(result: BenchResult, path: str | Path) -> None:
    """Write the report of a result.

    Raises:
        MissingDependencyError: if Jinja or matplotlib is not installed.
        OutputError: if the file cannot be written.
    """
    write_file(path, render_report(result).encode())


def _list_verdicts(result: BenchResult) -> Iterator[tuple[str, str]]:
    """(tone, sentence) of what may be concluded."""
    for subject in result.subjects:
        failed = "; ".join(check.text.rstrip(".") for check in subject.noise.failed)
        if failed:
            yield "bad", f"{subject.name}: too noisy to conclude: {failed}."
        else:
            yield "good", f"{subject.name}: the machine was quiet enough to conclude."
    for comparison in result.comparisons:
        yield {"regression": "bad", "inconclusive": "warn"}.get(comparison.verdict, "good"), comparison.reason
    if result.warnings:
        count = f"{len(result.warnings)} warnings" if len(result.warnings) > 1 else "One warning"
        yield "warn", f"{count}, listed below; read before quoting a figure."


def _list_cards(subject: Subject) -> Iterator[Card]:
    for name, label in (("compute", "network, p50"), ("crf", "CRF, p50"), ("end_to_end", "end to end, p50")):
        stage = subject.stages.find_stage(name) if subject.stages is not None else None
        if stage is not None and (median := stage.series.quantiles[0]).value_ms is not None:
            interval = format_interval(median)
            yield Card(label, f"{format_number(median.value_ms)} ms", f"{interval} ms" if interval else "no interval")
    if subject.pipeline is not None:
        limit = "all cores" if subject.pipeline.limit == "cores" else subject.pipeline.limit
        yield Card("side by side", f"{format_number(subject.pipeline.throughput_per_s)}/s", f"bound by {limit}")
    for run in subject.load:
        if run.mode == "performance" and run.scenario in ("Server", "Offline") and run.throughput_per_s is not None:
            yield Card(run.scenario, f"{format_number(run.throughput_per_s)}/s", "valid" if run.valid else "not valid")
    for row in subject.accuracy:
        if row.crf in ("off", "bundle"):
            crf = "without CRF" if row.crf == "off" else "with CRF"
            if row.miou is not None:
                yield Card(f"mean IoU {crf}", f"{row.miou:.2%}", f"{row.images} images")
            elif subject.precision != "fp32":
                yield Card("labels as float32", f"{row.label_agreement:.2%}", crf)


def _draw_stages(result: BenchResult) -> Iterator[Figure]:
    views = [(subject.name, subject.stages) for subject in result.subjects if subject.stages is not None]
    for name, view in views:
        yield Figure(name, charts.draw_stages(view), "Bars are medians, whiskers reach to p99.")
    mains = {
        name: stage for name, view in views if (stage := view.find_stage("compute") or view.find_stage("end_to_end"))
    }
    if mains:
        drawing = charts.draw_histogram({name: stage.series.values_ms for name, stage in mains.items()})
        title = f"Latencies of {name_stage(next(iter(mains.values())).name)}"
        yield Figure(title, drawing, "All samples; none is dropped as an outlier.", charts.make_legend(list(mains)))
    for name, view in views:
        series, whole = view.stages[-1].series, name_stage(view.stages[-1].name)
        traces = _list_traces(result.canary, result.machine_trace, min(series.at_s) - 1, max(series.at_s) + 1)
        drawing = charts.draw_time_series(series.at_s, series.values_ms, list(traces), name=whole)
        yield Figure(f"{whole.capitalize()} of {name} over time", drawing, "Below, the machine at the same time.")


def _list_traces(canary: Series | None, trace: MachineTrace, first: float, last: float) -> Iterator[Trace]:
    """The canary and the machine between two moments, where this machine reports them."""
    both = zip(trace.cpu_busy, trace.own_busy, strict=True)
    others = [None if busy is None or own is None else max(busy - own, 0.0) for busy, own in both]
    columns: list[tuple[str, str, Sequence[float], Sequence[float | None]]] = []
    if canary is not None:
        columns.append(("canary (fixed arithmetic)", "ms", canary.at_s, canary.values_ms))
    columns.append(("CPU clock", "MHz", trace.at_s, trace.cpu_mhz))
    for gpu in trace.gpus:
        columns.append((f"{gpu.name} clock", "MHz", trace.at_s, gpu.sm_mhz))
        columns.append((f"{gpu.name} power", "W", trace.at_s, gpu.power_w))
        columns.append((f"{gpu.name} temperature", "°C", trace.at_s, gpu.temperature_c))
    columns.append(("cores busy with other programs", "of 1", trace.at_s, others))
    columns.append(("time given to other virtual machines", "of 1", trace.at_s, trace.steal))
    columns.append(("CPU temperature", "°C", trace.at_s, trace.temperature_c))
    for name, unit, times, values in columns:
        kept = [(t, v) for t, v in zip(times, values, strict=True) if v is not None and first <= t <= last]
        if len(kept) >= 2:
            yield Trace(name, unit, [t for t, _ in kept], [v for _, v in kept])


def _draw_pipelines(result: BenchResult) -> Iterator[Figure]:
    for subject in result.subjects:
        view = subject.pipeline
        if view is None:
            continue
        failed = "; ".join(check.text for check in view.noise.failed)
        verdict = f"Too noisy to conclude: {failed}." if failed else "The machine was quiet enough to conclude."
        interval = "with its 95 % interval" if view.low_per_s else "too few rounds for an interval"
        rounds = f"{len(view.time_per_image.values_ms)} rounds of {view.images_per_round} images"
        caption = (
            f"{rounds}; the median round, {interval}. Hollow bars: upper bounds by the measured call times. {verdict}"
        )
        yield Figure(f"Throughput of {subject.name}", charts.draw_rates(view), caption)


def _draw_load(result: BenchResult) -> Iterator[Figure]:
    q = 0.99 if all(_read(p.quantiles, 0.99) for s in result.subjects for p in s.curve) else 0.9
    series = {
        subject.name: [
            Mark("" if point.kept_up else "does not keep up", point.completed_per_s, value)
            for point in subject.curve
            if (value := _read(point.quantiles, q)) is not None
        ]
        for subject in result.subjects
        if subject.curve
    }
    runs = [run for subject in result.subjects for run in subject.load]
    bounds = [run.settings.get("latency_bound_ms") for run in runs if run.mode == "find-peak"]  # asked for
    bound = next((value for value in bounds if isinstance(value, float)), None)
    if any(series.values()):
        drawing = charts.draw_curves(series, f"latency p{q * 100:g}", bound_ms=bound)
        caption = "Poisson arrivals; each dot is a run at one rate."
        yield Figure("Throughput against latency", drawing, caption, charts.make_legend(list(series)))
    for subject in result.subjects:
        for run in subject.load:
            if run.scenario == "Server" and run.latency is not None:
                values = {"from the scheduled moment": run.latency.values_ms}
                if run.service_ms:
                    values["service time only"] = run.service_ms
                caption = f"{run.queries} queries; all are counted."
                legend = charts.make_legend(list(values))
                yield Figure(f"Server scenario of {subject.name}", charts.draw_histogram(values), caption, legend)


def _read(quantiles: Sequence[Any], q: float) -> float | None:
    return next((quantile.value_ms for quantile in quantiles if quantile.q == q), None)


def _draw_accuracy(result: BenchResult) -> Iterator[Figure]:
    rows = [(subject.name, row) for subject in result.subjects for row in subject.accuracy]
    has_labels = any(row.miou is not None for _, row in rows)
    marks = [
        Mark(f"{name}, {row.crf}" if len(result.subjects) > 1 else f"CRF {row.crf}", row.images_per_s, 100 * value)
        for name, row in rows
        if (value := row.miou if has_labels else row.label_agreement) is not None
    ]
    if marks:
        drawing = charts.draw_accuracy_speed(marks, "mean IoU" if has_labels else "label agreement")
        yield Figure(
            "", drawing, "Up and right is better; the dashed line joins the settings that no other beats in both."
        )


def _draw_roofline(result: BenchResult) -> Iterator[Figure]:
    lines = [(subject.name, subject.roofline) for subject in result.subjects if subject.roofline is not None]
    marks = [
        Mark(name, line.model.intensity, line.achieved_gflops)
        for name, line in lines
        if line.model is not None and line.achieved_gflops is not None and line.share is not None
    ]
    if lines:
        yield Figure("", charts.draw_roofline(lines[0][1], marks), "Withheld shares are not drawn.")


_FIGURES: dict[str, Callable[[BenchResult], Iterator[Figure]]] = {
    "Stages": _draw_stages,
    "Many images side by side": _draw_pipelines,
    "Under load": _draw_load,
    "Accuracy and speed": _draw_accuracy,
    "Roofline": _draw_roofline,
}
