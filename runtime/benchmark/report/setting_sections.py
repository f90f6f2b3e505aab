"""The report's parts about whole settings: load, accuracy beside speed, roofline, comparisons, published figures."""

from __future__ import annotations

import math

from ..results import BenchResult
from ..view_sections import LoadRun, Subject
from .latency_charts import draw_histogram
from .overview_charts import Mark, draw_accuracy_speed, draw_roofline, draw_throughput_latency
from .page import Figure, Section, Table
from .scale import format_number
from .svg import legend
from .words import MISSING, read_ms, write_mapping, write_ms, write_rate, write_share


def make_load_section(result: BenchResult) -> Section | None:
    """LoadGen's scenarios and the throughput-latency curve; None where no load was put on."""
    loaded = [subject for subject in result.subjects if subject.load or subject.curve]
    if not loaded:
        return None
    figures = [figure for figure in (_draw_curves(result), *map(_draw_server, loaded)) if figure is not None]
    tables = [_tabulate_load(subject) for subject in loaded if subject.load]
    reasons = [
        (subject.name, f"{run.scenario}, {run.mode}", "; ".join(reason.rstrip(".; ") for reason in run.reasons) + ".")
        for subject in loaded
        for run in subject.load
        if not run.valid
    ]
    if reasons:
        tables.append(Table(("subject", "run", "why LoadGen holds it for invalid"), reasons, "Runs that are not valid"))
    notes = [
        "Load by MLPerf LoadGen. A latency counts from the moment a query was scheduled, so that a stall is told by "
        "all queries that had to wait for it; a closed-loop timer would show only the service time. Calls label one "
        "image at a time with all threads; the pipeline works on many side by side."
    ]
    return Section("Under load", notes, figures, tables)


def make_accuracy_section(result: BenchResult) -> Section | None:
    """What the labels are worth at each speed; None where nothing was compared."""
    rows, marks = [], []
    has_labels = any(a.miou is not None for s in result.subjects for a in s.accuracy)
    for subject in result.subjects:
        for accuracy in subject.accuracy:
            name = f"CRF {accuracy.crf}" if len(result.subjects) == 1 else f"{subject.name}, CRF {accuracy.crf}"
            value = accuracy.miou if has_labels else accuracy.label_agreement
            if value is not None:
                marks.append(Mark(name, accuracy.images_per_s, 100 * value))
            rows.append(
                (
                    subject.name,
                    accuracy.crf,
                    write_share(accuracy.label_agreement, 3),
                    write_share(accuracy.miou),
                    write_share(accuracy.pixel_accuracy),
                    write_ms(accuracy.latency_ms.value_ms),
                    write_rate(accuracy.images_per_s),
                    str(accuracy.images),
                )
            )
    if not rows:
        return None
    columns = ("subject", "CRF", "agreement", "mean IoU", "pixel accuracy", "p50, prepare to labels", "speed", "images")
    title = "mean IoU" if has_labels else "label agreement"
    reference = next(a.reference for s in result.subjects for a in s.accuracy).partition(",")[0]
    notes = [
        f"No speed without what its labels are worth. Agreement is with {reference}, its CRF off or, for all others, "
        "the bundle's."
    ]
    if any(subject.weights == "seeded" for subject in result.subjects):
        notes.append("The weights are seeded random numbers: the speed is real, the accuracy says nothing.")
    caption = "Up and to the right is better; the dashed line joins what nothing beats in both."
    return Section(
        "Accuracy beside speed", notes, [Figure(draw_accuracy_speed(marks, title), "", caption)], [Table(columns, rows)]
    )


def make_roofline_section(result: BenchResult) -> Section | None:
    """How near the network comes to what the machine can do; None where it was not measured."""
    lines = [(subject, subject.roofline) for subject in result.subjects if subject.roofline is not None]
    if not lines:
        return None
    base = lines[0][1]
    marks = [
        Mark(subject.name, line.model.intensity, line.achieved_gflops)
        for subject, line in lines
        if line.model is not None and line.achieved_gflops is not None
    ]
    rows = [
        (
            subject.name,
            MISSING if line.model is None else f"{format_number(line.model.flops / 1e9)} GFLOP",
            MISSING if line.achieved_gflops is None else f"{format_number(line.achieved_gflops)} GFLOP/s",
            MISSING if line.attainable_gflops is None else f"{format_number(line.attainable_gflops)} GFLOP/s",
            write_share(line.share, 0),
        )
        for subject, line in lines
    ]
    drawing = draw_roofline(base.peak_gflops, base.bandwidth_gb_s, marks)
    columns = ("subject", "an image costs", "achieved", "attainable", "share")
    caption = f"Peaks of {base.device}, {base.threads} threads: {base.method}"
    return Section("Roofline", [], [Figure(drawing, "", caption)], [Table(columns, rows)])


def make_comparison_section(result: BenchResult) -> Section | None:
    """Subjects against the first; None where there is but one."""
    if not result.comparisons:
        return None
    rows = [
        (
            f"{c.candidate} / {c.baseline}",
            "pipeline, an image" if c.stage == "pipeline" else c.stage.replace("_", " "),
            f"{c.ratio:.3f}",
            f"{c.low:.3f} to {c.high:.3f}",
            "yes" if c.paired else "no",
            c.verdict,
        )
        for c in result.comparisons
    ]
    columns = ("time of", "stage", "ratio of medians", "interval", "interleaved", "verdict")
    notes = ["Below 1 is faster than the baseline.", *(c.reason for c in result.comparisons)]
    return Section("Comparison", notes, [], [Table(columns, rows)])


def make_published_section(result: BenchResult) -> Section | None:
    """Published figures beside ours; None without a preset."""
    if not result.published:
        return None
    rows, notes = [], []
    for p in result.published:
        rows.append(
            (
                p.title,
                f"{p.image_height}x{p.image_width}, {p.classes} classes",
                write_ms(p.published_ms),
                write_rate(p.published_per_s),
                p.published_hardware,
                write_ms(p.ours_ms),
                write_rate(p.ours_per_s),
                write_ms(p.ours_with_crf_ms),
            )
        )
        notes.append(f"{p.title}: {p.published_note} ({p.source}). {p.note}")
    columns = ("preset", "image", "published", "", "on", "ours", "", "ours with CRF")
    return Section("Beside the published figures", notes, [], [Table(columns, rows)])


def _draw_curves(result: BenchResult) -> Figure | None:
    series: dict[str, list[Mark]] = {}
    for subject in result.subjects:
        for point in subject.curve:
            p99 = next((q.value_ms for q in point.quantiles if q.q == 0.99), None)
            p90 = next((q.value_ms for q in point.quantiles if q.q == 0.9), None)
            value, name = (p99, "p99") if p99 is not None else (p90, "p90")
            if value is not None:
                mark = Mark("" if point.kept_up else "does not keep up", point.completed_per_s, value)
                series.setdefault(f"{subject.name}, {name}", []).append(mark)
    if not series:
        return None
    bounds = [run.settings.get("latency_bound_ms") for subject in result.subjects for run in subject.load]
    bound = next((float(b) for b in bounds if isinstance(b, int | float) and not isinstance(b, bool)), None)
    caption = "Poisson arrivals; each dot is a run at one rate."
    drawing = draw_throughput_latency(series, bound_ms=bound)
    return Figure(drawing, "Throughput against latency", caption, legend(list(series)))


def _draw_server(subject: Subject) -> Figure | None:
    run = next((run for run in subject.load if run.scenario == "Server" and run.latency is not None), None)
    if run is None or run.latency is None:
        return None
    series = {"from the scheduled moment": run.latency.values_ms}
    if run.service_ms:
        series["service time only"] = run.service_ms
    caption = f"{run.queries} queries at {write_rate(run.throughput_per_s)}; every query is in it."
    return Figure(draw_histogram(series), f"Server scenario of {subject.name}", caption, legend(list(series)))


def _tabulate_load(subject: Subject) -> Table:
    columns = (
        "scenario",
        "path",
        "figure of merit",
        "p50",
        "p99",
        "worst",
        "throughput",
        "queries",
        "LoadGen says",
    )
    return Table(columns, [_load_row(run) for run in subject.load], subject.name)


def _load_row(run: LoadRun) -> tuple[str, ...]:
    merit = MISSING
    if run.metric_value is not None:
        name = {"latency_p90": "p90 ", "latency_p99": "p99 "}.get(run.metric, "")
        merit = f"{name}{format_number(run.metric_value)} {run.metric_unit}"
    verdict = "valid" if run.valid else "not valid"
    if run.mode == "accuracy":
        found = {"agreement": run.agreement, "mean IoU": run.miou}
        merit = write_mapping({name: write_share(value) for name, value in found.items() if value is not None})
    p50, p99 = (None, None) if run.latency is None else (read_ms(run.latency, 0.5), read_ms(run.latency, 0.99))
    worst = math.nan if run.latency is None else run.latency.max_ms
    return (
        run.scenario if run.mode == "performance" else f"{run.scenario}, {run.mode}",
        run.path,
        merit,
        write_ms(p50),
        write_ms(p99),
        write_ms(None if math.isnan(worst) else worst),
        write_rate(run.throughput_per_s),
        str(run.queries),
        verdict,
    )
