"""The sections of a result as data: notes and tables, printed at the terminal and rendered in the report.

Columns are written as "label=path:format; ...", the path within a row's record, the format a name of `_FORMATS` or a
format specification. `_quantiles` stands for the columns of a record's quantiles. None becomes an empty cell, and a
column without any cell is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .plan import name_stage
from .results import BenchResult, LoadRun, PipelineView, Quantile, Subject

_COMPARISONS = (
    "candidate=candidate; baseline=baseline; time of=stage:stage; ratio=ratio:.3f; low=low:.3f; high=high:.3f; "
    "verdict=verdict"
)
_STAGES = (
    "stage=name:stage; _quantiles=series.quantiles; max ms=series.max_ms:.2f; samples=series.values_ms:count; "
    "clock=clock"
)
_PIPELINE = (
    "stage=name:stage; ms=item_ms:.2f; p90 ms=p90_ms:.2f; alone ms=alone_ms:.2f; workers=workers:.1f; "
    "most=max_workers; busy=busy_share:.0%; no input=starved_share:.0%; no core=core_wait_share:.0%; "
    "blocked=blocked_share:.0%; queued=queue_mean_depth:.1f"
)
_LOAD = (
    "scenario=scenario; path=path; figure of merit=:metric; _quantiles=latency.quantiles; "
    "max ms=latency.max_ms:.2f; queries=queries; refused=refused; valid=valid:yes"
)
_CURVE = (
    "offered/s=offered_per_s:number; done/s=completed_per_s:number; keeps up=kept_up:yes; refused=refused; "
    "_quantiles=quantiles"
)
_ACCURACY = (
    "CRF=crf; labels as float32=label_agreement:.2%; mean IoU=miou:.1%; pixel accuracy=pixel_accuracy:.1%; "
    "p50 ms=latency_ms.value_ms:.2f; images/s=images_per_s:number; images=images"
)
_ROOFLINE = (
    "subject=name; achieved GFLOP/s=roofline.achieved_gflops:number; "
    "attainable GFLOP/s=roofline.attainable_gflops:number; share=roofline.share:.0%; withheld=roofline.reason"
)
_SUBJECTS = (
    "subject=name; device=device; threads=threads; precision=precision; height=image_height; width=image_width; "
    "network=network_size:size; classes=classes; head=head; sha256 of the bundle=bundle_sha256:.12s"
)
_NOISE = "rule=name; value=value:.3g; bound=bound:.3g; passed=passed:yes; =text"


@dataclass(frozen=True)
class Table:
    """Cells under column names."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    @property
    def numbers(self) -> frozenset[int]:
        """Indices of the columns of numbers, which are aligned to the right."""
        columns = enumerate(zip(*self.rows, strict=True))
        return frozenset(index for index, cells in columns if all(cell[:1].isdigit() for cell in cells if cell))


@dataclass(frozen=True)
class Section:
    """A part under a heading; `is_detail`: only of the report."""

    title: str
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    is_detail: bool = False


def make_sections(result: BenchResult) -> list[Section]:
    """All sections of a result that have something to show."""
    several = len(result.subjects) > 1

    def tabulate(columns: str, read: Callable[[Subject], Iterable[Any]], title: str = "") -> list[Table]:
        """One table per subject."""
        found = []
        for subject in result.subjects:
            names = [title, subject.name if several else ""]
            found.append(make_table(columns, read(subject), ", ".join(filter(None, names))))
        return [table for table in found if table.rows]

    pipelines = [(subject.name, subject.pipeline) for subject in result.subjects if subject.pipeline is not None]
    roofs = [subject for subject in result.subjects if subject.roofline is not None]
    sections = [
        Section(
            "Comparison",
            ["Ratios of medians; below 1 is faster than the baseline."],
            [make_table(_COMPARISONS, result.comparisons)],
        ),
        Section(
            "Stages",
            [note for subject in result.subjects for note in _describe_stages(subject)],
            tabulate(_STAGES, lambda subject: subject.stages.stages if subject.stages is not None else ()),
        ),
        Section(
            "Many images side by side",
            [f"{name}: {describe_pipeline(view)}" for name, view in pipelines],
            tabulate(_PIPELINE, lambda subject: subject.pipeline.stages if subject.pipeline is not None else ()),
        ),
        Section(
            "Under load",
            list(_describe_load(result.subjects)),
            tabulate(_LOAD, lambda subject: subject.load)
            + tabulate(_CURVE, lambda subject: subject.curve, "Poisson arrivals"),
        ),
        Section(
            "Accuracy and speed",
            ['Agreement is with float32 on ONNX Runtime, CRF off or, for all others, the bundle\'s ("bundle").'],
            tabulate(_ACCURACY, lambda subject: subject.accuracy),
        ),
        Section("Roofline", _describe_limits(roofs), [make_table(_ROOFLINE, roofs)]),
        Section(
            "Subjects",
            [f"{len(result.images)} images of {result.dataset}."],
            [
                make_table(_SUBJECTS, result.subjects),
                *tabulate(_NOISE, lambda subject: subject.noise.checks, "Noise rules"),
            ],
            is_detail=True,
        ),
        _describe_environment(result),
    ]
    return [section for section in sections if any(table.rows for table in section.tables)]


def make_table(columns: str, records: Iterable[Any], title: str = "") -> Table:
    """A table of records by the columns' text."""
    parsed = [_parse_column(column) for column in columns.split("; ")]
    flat = [column for group in parsed for column in group]
    rows = [[format_value(read(record), spec) for _, read, spec in flat] for record in records]
    kept = [index for index in range(len(flat)) if any(row[index] for row in rows)]
    return Table([flat[index][0] for index in kept], [[row[index] for index in kept] for row in rows], title)


def format_value(value: Any, spec: str = "") -> str:
    """A value as a cell."""
    if value is None:
        return ""
    return _FORMATS[spec](value) if spec in _FORMATS else format(value, spec)


def format_number(value: float) -> str:
    """Three significant digits, without an exponent from 0.001 up."""
    if value == 0 or not math.isfinite(value) or abs(value) < 1e-3:
        return f"{value:.3g}"
    text = f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_interval(quantile: Quantile) -> str:
    """The interval of a quantile in milliseconds; empty without one."""
    known = quantile.low_ms is not None and quantile.high_ms is not None
    return f"{quantile.low_ms:.2f} to {quantile.high_ms:.2f}" if known else ""


def describe_pipeline(view: PipelineView) -> str:
    """The pipeline's throughput, its limit and advice in sentences."""
    interval = f" [{view.low_per_s:.3g}, {view.high_per_s:.3g}]" if view.low_per_s and view.high_per_s else ""
    ratio = f", {view.throughput_per_s / view.one_by_one_per_s:.2f} x one by one" if view.one_by_one_per_s else ""
    cores = f"{'the core' if view.cores == 1 else f'{view.cores} cores'} at work {view.core_share:.0%} of the time"
    bounds = (f"{name_stage(name)} {format_number(rate)}/s" for name, rate in view.bounds_per_s.items())
    rounds = f"{len(view.time_per_image.values_ms)} rounds of {view.images_per_round} images"
    sentences = [
        f"{format_number(view.throughput_per_s)}{interval} images/s in the median of {rounds}{ratio}",
        f"bounds by the call times: {', '.join(bounds)}; reached are {view.efficiency:.0%}",
        f"{cores}, two or more stages at once {view.overlap:.0%}",
        *view.advice,
    ]
    if view.agreement < 1:
        sentences.append(f"{1 - view.agreement:.4%} of the pixels are labeled differently than one by one")
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in sentences)


def _parse_column(text: str) -> list[tuple[str, Callable[[Any], Any], str]]:
    label, _, rest = text.partition("=")
    path, _, spec = rest.partition(":")
    if label != "_quantiles":
        return [(label, lambda record: _read(record, path), spec)]

    def pick(q: float) -> Callable[[Any], Any]:
        return lambda record: next((one for one in _read(record, path) or () if one.q == q), None)

    shown = [(f"p{q * 100:g} ms", pick(q), "quantile") for q in (0.5, 0.9, 0.99, 0.999)]
    return [shown[0], ("95 % interval", pick(0.5), "interval"), *shown[1:]]


def _read(record: Any, path: str) -> Any:
    """The value at a dotted path; None where a part of it is None."""
    for name in filter(None, path.split(".")):
        record = getattr(record, name) if record is not None else None
    return record


def _describe_stages(subject: Subject) -> Iterable[str]:
    view = subject.stages
    if view is None:
        return
    fast = ", CRF with its shortcuts" if subject.crf_shortcuts else ""
    rate, size = format_number(view.throughput_per_s), f"{subject.image_height}x{subject.image_width}"
    yield f"{subject.name}: {rate} images/s of {size}, one image after the other{fast}."
    reasons: dict[str, list[str]] = {}
    for name, reason in view.absent.items():
        reasons.setdefault(reason, []).append(name_stage(name))
    for reason, names in reasons.items():
        yield f"No {', '.join(names)}: {reason}."


def _describe_load(subjects: Sequence[Subject]) -> Iterable[str]:
    yield (
        "MLPerf LoadGen. Latency counts from the moment a query was scheduled, so that a stall delays all queries "
        "scheduled meanwhile; a closed-loop timer would show the service time only. The figure of merit is the p90 of "
        "SingleStream, the p99 of MultiStream, and the rate of the others."
    )
    for subject in subjects:
        bounds = [run.settings.get("latency_bound_ms") for run in subject.load if run.scenario == "Server"]
        for bound_ms in (bound for bound in bounds if isinstance(bound, int | float)):
            yield (
                f"{subject.name}: a Server run is valid if 99 % of its queries end within {format_number(bound_ms)} ms "
                "(--latency-bound-ms; by default ten times the time of one image)."
            )


def _describe_limits(subjects: Sequence[Subject]) -> list[str]:
    limits = subjects[0].roofline if subjects else None
    if limits is None:
        return []
    peak, bandwidth = format_number(limits.peak_gflops), format_number(limits.bandwidth_gb_s)
    return [f"Limits with {limits.threads} threads: {peak} GFLOP/s, {bandwidth} GB/s ({limits.method})."]


def _describe_environment(result: BenchResult) -> Section:
    fields = result.environment.model_dump(exclude={"libraries"})
    fields |= {f"cpu {name}": value for name, value in fields.pop("cpu").items()}
    fields["gpus"] = [gpu.name for gpu in result.environment.gpus]
    known = [
        [name.replace("_", " "), _join(value)] for name, value in fields.items() if value not in (None, [], {}, ())
    ]
    libraries = Table(("library", "version"), [list(item) for item in result.environment.libraries.items()])
    notes = [f"No {name}: {reason}." for name, reason in result.machine_trace.unavailable.items()]
    return Section("Environment", notes, [Table(("", ""), known), libraries], is_detail=True)


def _join(value: Any) -> str:
    parts = [f"{name}={text}" for name, text in value.items()] if isinstance(value, dict) else value
    return ", ".join(parts) if isinstance(parts, list | tuple) else str(value)


def _describe_metric(run: LoadRun) -> str:
    if run.metric_value is None:
        return ""
    asked = run.settings.get("target_qps") if run.scenario == "Server" else None
    name = {"latency_p90": "p90 ", "latency_p99": "p99 "}.get(run.metric, "")
    target = f" of {format_number(asked)}" if isinstance(asked, float) else ""
    return f"{name}{format_number(run.metric_value)}{target} {run.metric_unit}"


_FORMATS: dict[str, Callable[[Any], str]] = {
    "count": lambda values: str(len(values)),
    "interval": format_interval,
    "metric": _describe_metric,
    "number": format_number,
    "size": lambda size: "x".join(map(str, size)),
    "quantile": lambda quantile: format_value(quantile.value_ms, ".2f"),
    "stage": name_stage,
    "yes": lambda value: "yes" if value else "no",
}
