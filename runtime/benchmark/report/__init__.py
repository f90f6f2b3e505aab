"""The report of a result: one HTML file with its charts inside, which loads nothing and runs nothing.

Readable on a phone, on paper, in light and in dark. The page's Content-Security-Policy forbids all requests and
scripts; the template escapes all text, and the charts escape theirs.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ....bundle.files import write_file
from ....dependencies import import_optional
from ..plan import name_stage
from ..results import BenchResult, Subject
from ..tables import format_interval, format_number, make_sections
from . import charts

__all__ = ["check_report_libraries", "render_report", "write_report"]

_FOLDER = Path(__file__).parent


class Figure(NamedTuple):
    """A chart with its legend, both markup."""

    title: str
    drawing: str
    caption: str
    legend: str = ""


def check_report_libraries() -> None:
    """Raise MissingDependencyError if a library of the report is not installed."""
    for name in ("jinja2", "matplotlib"):
        import_optional(name)


def render_report(result: BenchResult) -> str:
    """The report of a result as HTML.

    Raises:
        MissingDependencyError: if Jinja or matplotlib is not installed.
    """
    jinja: Any = import_optional("jinja2")
    environment = jinja.Environment(autoescape=True, undefined=jinja.StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string((_FOLDER / "page.html.j2").read_text(encoding="utf-8"))
    html: str = template.render(
        result=result,
        first=result.subjects[0],
        duration=format_number(result.duration_s),
        verdicts=list(_list_verdicts(result)),
        cards=list(_list_cards(result.subjects[0])),
        sections=make_sections(result),
        figures={title: list(draw(result)) for title, draw in _FIGURES.items()},
        command=shlex.join(result.command),
        css=(_FOLDER / "page.css").read_text(encoding="utf-8"),
    )
    return html


def write_report(result: BenchResult, path: str | Path) -> None:
    """Write the report of a result; raises as `render_report`, or OutputError if the file cannot be written."""
    write_file(path, render_report(result).encode())


def _list_verdicts(result: BenchResult) -> Iterator[tuple[str, str]]:
    """(tone, sentence) on each subject's noise and on each comparison."""
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


def _list_cards(subject: Subject) -> Iterator[tuple[str, str, str]]:
    """(name, value, note) of the figures at the top of the page."""
    for name, label in (("compute", "network, p50"), ("crf", "CRF, p50"), ("end_to_end", "end to end, p50")):
        stage = subject.stages.find_stage(name) if subject.stages is not None else None
        if stage is not None:
            interval = format_interval(stage.series.quantiles[0])
            yield label, f"{format_number(stage.series.typical_ms)} ms", f"{interval or 'no interval'} ms"
    if subject.pipeline is not None:
        limit = "all cores" if subject.pipeline.limit == "cores" else subject.pipeline.limit
        yield "side by side", f"{format_number(subject.pipeline.throughput_per_s)}/s", f"bound by {limit}"
    for run in subject.load:
        if run.scenario in ("Server", "Offline") and run.throughput_per_s is not None:
            yield run.scenario, f"{format_number(run.throughput_per_s)}/s", "valid" if run.valid else "not valid"
    for row in subject.accuracy:
        crf = {"off": "without CRF", "bundle": "with CRF"}.get(row.crf)
        if crf is not None and row.miou is not None:
            yield f"mean IoU {crf}", f"{row.miou:.2%}", f"{row.images} images"
        elif crf is not None and subject.precision != "fp32":
            yield "labels as float32", f"{row.label_agreement:.2%}", crf


def _draw_stages(result: BenchResult) -> Iterator[Figure]:
    views = {subject.name: subject.stages for subject in result.subjects if subject.stages is not None}
    for name, view in views.items():
        yield Figure(name, charts.draw_stages(view), "Bars are medians, whiskers reach to p99.")
    computed = {name: stage.series for name, view in views.items() if (stage := view.find_stage("compute")) is not None}
    if computed:
        drawing = charts.draw_histogram({name: series.values_ms for name, series in computed.items()})
        caption = "All samples; none is dropped as an outlier."
        yield Figure("Latencies of the network", drawing, caption, charts.make_legend(list(computed)))
    for name, view in views.items():
        series, whole = view.stages[-1].series, name_stage(view.stages[-1].name)
        drawing = charts.draw_time_series(series.at_s, series.values_ms, name=whole)
        yield Figure(f"{whole.capitalize()} of {name} over time", drawing, "All samples in the order they were taken.")


def _draw_load(result: BenchResult) -> Iterator[Figure]:
    for subject in result.subjects:
        for run in subject.load:
            if run.scenario == "Server" and run.latency is not None:
                values = {"from the scheduled moment": run.latency.values_ms, "service time only": run.service_ms}
                known = {name: times for name, times in values.items() if times}
                drawing, legend = charts.draw_histogram(known), charts.make_legend(list(known))
                yield Figure(
                    f"Server scenario of {subject.name}",
                    drawing,
                    "All queries are counted.",
                    legend,
                )


_FIGURES: dict[str, Callable[[BenchResult], Iterator[Figure]]] = {
    "Stages": _draw_stages,
    "Under load": _draw_load,
}
