"""The tables that `atrous bench` prints: what a person reads first.

Figures stand under each other to the right; a column that no row fills is left out. The result file and the report have
all that is left out here.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from ..runtime.benchmark.results import name_stage
from . import console

if TYPE_CHECKING:
    from ..runtime.benchmark.results import BenchResult, Comparison, LoadRun, Quantile, Series, StageView, Subject

_LEFT = frozenset({"stage", "scenario", "CRF", "path", "LoadGen says"})  # columns of words
_METRICS = {"latency_p90": "p90", "latency_p99": "p99", "samples_per_second": "", "completed_qps": ""}


def print_result(result: BenchResult) -> None:
    """Print what was measured, then what it is worth, then how to do it again."""
    for subject in result.subjects:
        size = f"{subject.image_height}x{subject.image_width}"
        fast = ", CRF with its shortcuts" if subject.crf_shortcuts else ""
        click.secho(f"\n{subject.name} on {subject.device}: {subject.bundle}, {size}{fast}", bold=True)
        if subject.stages is not None:
            _print_stages(subject.stages)
        _print_pipeline(subject)
        _print_load(subject.load)
        _print_curve(subject)
        _print_accuracy(subject)
        _print_roofline(subject)
    if result.comparisons:
        _print_heading("Compared with the first")
        print_comparisons(result.comparisons)
    for figure in result.published:
        theirs = f"{figure.published_per_s:g} images/s" if figure.published_per_s else "no speed"
        ours = f"{figure.ours_per_s:.2f} images/s" if figure.ours_per_s else "nothing"
        _print_heading(figure.title)
        click.echo(f"published {theirs}, here {ours} for the network ({figure.note})")
        click.echo(f"source: {figure.source}")
    click.echo()
    for warning in result.warnings:
        console.print_warning(f"warning: {warning}")
    click.echo(f"again: {shlex.join(result.command)}")


def print_comparisons(comparisons: Sequence[Comparison]) -> None:
    """Print a line a comparison; what is worse in red."""
    for comparison in comparisons:
        colour = {"regression": "red", "improvement": "green"}.get(comparison.verdict)
        click.secho(f"{comparison.stage}: {comparison.verdict}: {comparison.reason}", fg=colour)


def _print_stages(view: StageView) -> None:
    _print_heading(f"One image after the other: {view.throughput_per_s:.3g} images/s")
    whole_ms = next(stage.series.mean_ms for stage in view.stages if stage.name == "end_to_end")
    rows = [
        (
            name_stage(stage.name),
            *_name_quantiles(stage.series),
            f"{stage.series.max_ms:.2f}",
            f"{stage.series.mean_ms / whole_ms:.0%}" if whole_ms else "",
            str(len(stage.series.values_ms)),
        )
        for stage in view.stages
    ]
    _print_table(
        ("stage", "p50 ms", "95 % interval", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "share", "samples"), rows
    )
    reasons: dict[str, list[str]] = {}
    for name, reason in view.absent.items():
        reasons.setdefault(reason, []).append(name_stage(name))
    for reason, names in reasons.items():
        click.secho(f"no {', '.join(names)}: {reason}", dim=True)


def _print_pipeline(subject: Subject) -> None:
    view = subject.pipeline
    if view is None:
        return
    interval = f" [{view.low_per_s:.3g}, {view.high_per_s:.3g}]" if view.low_per_s and view.high_per_s else ""
    times = f", {view.throughput_per_s / view.one_by_one_per_s:.2f} x as many" if view.one_by_one_per_s else ""
    _print_heading(f"Many images side by side: {view.throughput_per_s:.3g}{interval} images/s{times}")
    rows = [
        (
            name_stage(stage.name),
            f"{stage.item_ms:.2f}",
            f"{stage.alone_ms:.2f}" if stage.alone_ms is not None else "",
            f"{stage.workers:.1f}",
            f"{stage.busy_share:.0%}",
            f"{stage.starved_share:.0%}",
            f"{stage.core_wait_share:.0%}",
            f"{stage.blocked_share:.0%}",
            f"{stage.queue_mean_depth:.1f} of {stage.queue_capacity}",
        )
        for stage in view.stages
    ]
    _print_table(("stage", "ms", "alone ms", "workers", "busy", "no input", "no core", "blocked", "queue"), rows)
    cores = f"{view.cores} cores" if view.cores > 1 else "the core"
    alone = view.alone_bound_per_s
    bound = f", {view.throughput_per_s / alone:.0%} of what the stages allow alone" if alone else ""
    click.echo(
        f"{cores} at work {view.core_share:.0%} of the time, two or more stages at once {view.overlap:.0%} of it; "
        f"{view.efficiency:.0%} of what these call times allow{bound}"
    )
    for line in view.advice:
        click.echo(line)


def _print_load(load: Sequence[LoadRun]) -> None:
    if not load:
        return
    _print_heading("Under load (MLPerf LoadGen)")
    rows = []
    for found in load:
        name = found.scenario if found.mode == "performance" else f"{found.scenario}, {found.mode}"
        quantiles = _name_quantiles(found.latency) if found.latency is not None else [""] * 5
        verdict = "VALID" if found.valid else "INVALID"
        rows.append((name, found.path, _name_metric(found), *quantiles[:4], str(found.queries), verdict))
    columns = ("scenario", "path", "figure", "p50 ms", "95 % interval", "p90 ms", "p99 ms", "queries", "LoadGen says")
    _print_table(columns, rows)


def _name_metric(run: LoadRun) -> str:
    if run.mode == "accuracy":
        return f"{run.agreement:.2%} agree" if run.agreement is not None else ""
    if run.metric_value is None:
        return ""
    asked = run.settings.get("target_qps") if run.scenario == "Server" and run.mode == "performance" else None
    of = f" of {asked:.3g}" if isinstance(asked, float) else ""
    return f"{_METRICS.get(run.metric, run.metric)} {run.metric_value:.4g}{of} {run.metric_unit}".strip()


def _print_curve(subject: Subject) -> None:
    if not subject.curve:
        return
    _print_heading("Poisson arrivals")
    rows = [
        (
            f"{point.offered_per_s:.2f}",
            f"{point.completed_per_s:.2f}",
            "yes" if point.kept_up else "no",
            *_name_list(point.quantiles),
        )
        for point in subject.curve
    ]
    columns = ("offered/s", "done/s", "keeps up", "p50 ms", "95 % interval", "p90 ms", "p99 ms", "p99.9 ms")
    _print_table(columns, rows)


def _print_accuracy(subject: Subject) -> None:
    if not subject.accuracy:
        return
    _print_heading("What the labels are worth")
    rows = [
        (
            row.crf,
            f"{row.label_agreement:.2%}",
            "" if row.miou is None else f"{row.miou:.1%}",
            f"{row.latency_ms.value_ms:.1f}" if row.latency_ms.value_ms is not None else "",
            f"{row.images_per_s:.2f}",
        )
        for row in subject.accuracy
    ]
    _print_table(("CRF", "labels as float32", "mIoU", "p50 ms", "images/s"), rows)


def _print_roofline(subject: Subject) -> None:
    roof = subject.roofline
    if roof is None:
        return
    _print_heading("Roofline")
    reaches = f"; the network reaches {roof.achieved_gflops:.0f} GFLOP/s" if roof.achieved_gflops else ""
    share = f", {roof.share:.0%} of what they allow" if roof.share else ""
    threads = f"{roof.threads} threads" if roof.threads > 1 else "one thread"
    click.echo(f"{roof.peak_gflops:.0f} GFLOP/s and {roof.bandwidth_gb_s:.1f} GB/s with {threads}{reaches}{share}")


def _name_quantiles(series: Series) -> list[str]:
    return _name_list(series.quantiles)


def _name_list(quantiles: Sequence[Quantile]) -> list[str]:
    """The median, its interval, and the further quantiles."""
    cells = []
    for quantile in quantiles:
        cells.append(f"{quantile.value_ms:.2f}" if quantile.value_ms is not None else "")
        if quantile.q == 0.5:
            known = quantile.low_ms is not None and quantile.high_ms is not None
            cells.append(f"{quantile.low_ms:.2f} to {quantile.high_ms:.2f}" if known else "")
    return cells


def _print_heading(text: str) -> None:
    click.secho(f"\n{text}", fg="cyan")


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print what a column says where it says something; figures to the right."""
    cells = [[*row] for row in rows]
    kept = [index for index in range(len(columns)) if any(row[index] for row in cells)]
    widths = {index: max(len(columns[index]), *(len(row[index]) for row in cells)) for index in kept}

    def place(row: Sequence[str]) -> list[str]:
        return [row[index] if columns[index] in _LEFT else (row[index] or "-").rjust(widths[index]) for index in kept]

    console.print_table(place(columns), [place(row) for row in cells])
