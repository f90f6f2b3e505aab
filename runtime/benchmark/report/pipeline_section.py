"""The report's part about many images side by side: throughput, its bounds, and what holds it up."""

from __future__ import annotations

import math

from ..results import BenchResult, PipelineView, Subject, name_stage
from .page import Figure, Section, Table
from .pipeline_charts import STATES, Occupancy, Rate, draw_occupancy, draw_rates
from .scale import format_number
from .svg import legend
from .words import write_ms, write_rate, write_share


def make_pipeline_section(result: BenchResult) -> Section | None:
    """Occupancy, rates and a table of every subject's pipeline; None where none was measured."""
    measured = [(subject, subject.pipeline) for subject in result.subjects if subject.pipeline is not None]
    if not measured:
        return None
    notes = [
        "The images from a file's bytes in memory to a label file's bytes through the pipeline of atrous segment: all "
        "stages at work on different images. A round's filling and draining are part of its time. Hollow bars: rates "
        "above which a stage, or all cores together, cannot go with the times of their calls."
    ]
    figures, tables = [], []
    for subject, view in measured:
        notes.append(f"{subject.name}: {_sum_up(view)}")
        figures.append(Figure(draw_rates(_list_rates(view)), f"Throughput of {subject.name}", _tell_rounds(view)))
        occupied = [
            Occupancy(
                name_stage(stage.name),
                stage.workers,
                (stage.busy_share, stage.starved_share, stage.core_wait_share, stage.blocked_share),
            )
            for stage in view.stages
        ]
        caption = (
            "No input: waiting for the stage before; no core: for a core; blocked: for room in the next queue. Where a "
            "bar ends the round's images are through this stage."
        )
        title = f"What the workers' time went to, {subject.name}"
        figures.append(Figure(draw_occupancy(occupied), title, caption, legend(STATES)))
        tables.append(_tabulate(subject, view))
    return Section("Many images side by side", notes, figures, tables)


def _sum_up(view: PipelineView) -> str:
    sentences = [_sentence(line) for line in view.advice]
    times = (
        f"{view.throughput_per_s / view.one_by_one_per_s:.2f} times as many as one after the other, "
        if view.one_by_one_per_s
        else ""
    )
    cores = f"{view.cores} cores" if view.cores > 1 else "the core"
    sentences.insert(
        0,
        f"{write_rate(view.throughput_per_s)}, {times}{view.efficiency:.0%} of what these call times allow; "
        f"{cores} at work {view.core_share:.0%} of the time, two or more stages at once {view.overlap:.0%} of it.",
    )
    if view.agreement < 1:
        sentences.append(f"{1 - view.agreement:.4%} of the pixels are labelled otherwise than one after the other.")
    return " ".join(sentences)


def _list_rates(view: PipelineView) -> list[Rate]:
    rates = [
        Rate("pipeline", view.throughput_per_s, view.low_per_s or math.nan, view.high_per_s or math.nan),
    ]
    if view.one_by_one_per_s:
        rates.append(Rate("one after the other", view.one_by_one_per_s))
    if view.alone_bound_per_s:
        rates.append(Rate("stages alone", view.alone_bound_per_s, is_bound=True))
    slow = sorted(view.bounds_per_s.items(), key=lambda bound: bound[1])
    # what is far above, such as decoding, would only shrink the rest
    rates += [
        Rate(f"at most, {name_stage(name)}", bound, is_bound=True) for name, bound in slow if bound < 3 * slow[0][1]
    ]
    return rates


def _tell_rounds(view: PipelineView) -> str:
    failed = "; ".join(check.text for check in view.noise.failed)
    verdict = f"Too noisy to conclude: {failed}." if failed else "The machine was quiet enough to conclude from."
    interval = "with its 95 % interval" if view.low_per_s else "too few rounds for an interval"
    return (
        f"{len(view.time_per_image.values_ms)} rounds of {view.images_per_round} images; the median round, {interval}. "
        f"{verdict}"
    )


def _tabulate(subject: Subject, view: PipelineView) -> Table:
    rows = [
        (
            name_stage(stage.name),
            write_ms(stage.item_ms),
            write_ms(stage.p90_ms),
            write_ms(stage.alone_ms),
            f"{stage.workers:.1f} of {stage.max_workers}",
            *(
                write_share(share, 0)
                for share in (stage.busy_share, stage.starved_share, stage.core_wait_share, stage.blocked_share)
            ),
            f"{format_number(stage.queue_mean_depth)} of {stage.queue_capacity}",
        )
        for stage in view.stages
    ]
    columns = ("stage", "an image", "p90", "alone", "workers", *STATES, "queue before")
    return Table(columns, rows, f"Stages of the pipeline, {subject.name}")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
