"""What the report of a result says, in the order a reader asks: can I trust it, how fast, why, on what, again how?"""

from __future__ import annotations

import shlex
from collections.abc import Callable

from ..results import BenchResult
from ..view_sections import Subject
from .latency_sections import make_latency_section, make_stage_section
from .page import Card, Page, Section, Table, Verdict
from .pipeline_section import make_pipeline_section
from .scale import format_number
from .setting_sections import (
    make_accuracy_section,
    make_comparison_section,
    make_load_section,
    make_published_section,
    make_roofline_section,
)
from .words import MISSING, find_quantile, write_interval, write_ms, write_rate, write_share

_SECTIONS: tuple[Callable[[BenchResult], Section | None], ...] = (
    make_published_section,
    make_comparison_section,
    make_latency_section,
    make_stage_section,
    make_pipeline_section,
    make_load_section,
    make_accuracy_section,
    make_roofline_section,
)


def compose_page(result: BenchResult) -> Page:
    """The page of a result."""
    first = result.subjects[0]
    sections = [section for make in _SECTIONS if (section := make(result)) is not None]
    if result.warnings:
        sections.append(Section("Warnings", result.warnings))
    sections += [_describe_subjects(result), _describe_machine(result), _tell_command(result)]
    subtitle = (
        f"{result.environment.cpu.name}{''.join(', ' + gpu.name for gpu in result.environment.gpus)} · "
        f"{result.created:%Y-%m-%d %H:%M} UTC · {format_number(result.duration_s)} s of measuring · "
        f"atrous {result.atrous_version}"
    )
    title = f"{first.bundle}: {first.image_height}x{first.image_width}, " + ", ".join(s.name for s in result.subjects)
    return Page(title, subtitle, _judge(result), _pick_cards(first), sections)


def _judge(result: BenchResult) -> list[Verdict]:
    verdicts = []
    for subject in result.subjects:
        failed = "; ".join(check.text.rstrip(".") for check in subject.noise.failed)
        if subject.noise.conclusive:
            verdicts.append(Verdict(f"{subject.name}: the machine was quiet enough to conclude from.", "good"))
        else:
            verdicts.append(Verdict(f"{subject.name}: too noisy to conclude: {failed}.", "bad"))
    verdicts += [
        Verdict(c.reason, {"regression": "bad", "inconclusive": "warn"}.get(c.verdict, "good"))  # type: ignore[arg-type]
        for c in result.comparisons
    ]
    if result.warnings:
        count = f"{len(result.warnings)} warnings" if len(result.warnings) > 1 else "One warning"
        verdicts.append(Verdict(f"{count}, listed below: read before a figure is quoted.", "warn"))
    return verdicts


def _pick_cards(subject: Subject) -> list[Card]:
    cards = []
    if subject.stages is not None:
        for name, label in (("compute", "network, p50"), ("crf", "CRF, p50"), ("end_to_end", "end to end, p50")):
            stage = subject.stages.find_stage(name)  # type: ignore[arg-type]
            quantile = find_quantile(stage.series, 0.5) if stage else None
            if quantile is not None:
                cards.append(Card(label, write_ms(quantile.value_ms), write_interval(quantile)))
    if subject.pipeline is not None:
        view = subject.pipeline
        held_up = "all cores" if view.limit == "cores" else view.limit
        cards.append(Card("side by side", write_rate(view.throughput_per_s), f"bounded by {held_up}"))
    for run in subject.load:
        if run.mode == "performance" and run.scenario in ("Server", "Offline"):
            cards.append(Card(run.scenario, write_rate(run.throughput_per_s), "valid" if run.valid else "not valid"))
    for accuracy in subject.accuracy:
        if accuracy.crf not in ("off", "bundle"):
            continue
        if accuracy.miou is not None:
            cards.append(Card(f"mean IoU, CRF {accuracy.crf}", write_share(accuracy.miou), f"{accuracy.images} images"))
        elif subject.precision != "fp32":
            cards.append(Card("labels as float32", write_share(accuracy.label_agreement), f"CRF {accuracy.crf}"))
    return cards


def _describe_subjects(result: BenchResult) -> Section:
    rows = [
        (
            s.name,
            f"{s.device}, {s.threads or 'all'} threads" if s.device == "cpu" else s.device,
            s.precision,
            f"{s.image_height}x{s.image_width}, {s.classes} classes, batch {s.batch}",
            s.head,
            s.weights,
            s.bundle_sha256[:12],
        )
        for s in result.subjects
    ]
    columns = ("subject", "on", "precision", "image", "head", "weights", "bundle's sha256")
    checks = [
        (
            s.name,
            c.name,
            MISSING if c.value is None else f"{c.value:.3g}",
            f"{c.bound:.3g}",
            "yes" if c.passed else "NO",
            c.text,
        )
        for s in result.subjects
        for c in s.noise.checks
    ]
    tables = [Table(columns, rows), Table(("subject", "rule", "found", "bound", "holds", ""), checks, "Noise rules")]
    return Section("What was measured", [f"Images: {len(result.images)} of {result.dataset}."], [], tables)


def _describe_machine(result: BenchResult) -> Section:
    environment = result.environment
    cpu = environment.cpu
    rows = [
        ("processor", f"{cpu.name}, {cpu.usable_cores} of {cpu.cores} cores usable"),
        ("vector extensions", ", ".join(cpu.features) or MISSING),
        ("governor, limit", f"{cpu.governor or 'not told'}, {f'{cpu.max_mhz:.0f} MHz' if cpu.max_mhz else 'not told'}"),
        ("virtualization", cpu.virtualization or "none seen"),
        ("memory", f"{environment.memory_mb / 1024:.1f} GiB" if environment.memory_mb else MISSING),
        *(("GPU", f"{g.name}, {g.capability}, driver {g.driver or 'not told'}") for g in environment.gpus),
        ("system", environment.system),
        ("Python", environment.python),
        ("load before", MISSING if environment.load_1min_before is None else f"{environment.load_1min_before:.2f}"),
        ("commit", environment.git or MISSING),
        *(("variable", f"{name}={value}") for name, value in environment.variables.items()),
    ]
    libraries = Table(("library", "version"), list(environment.libraries.items()), "Libraries")
    untold = [f"Not told by this machine: {name} ({why})." for name, why in result.machine_trace.unavailable.items()]
    return Section("Environment", untold, [], [Table(("", ""), rows), libraries])


def _tell_command(result: BenchResult) -> Section:
    return Section("To reproduce", [], [], [], [shlex.join(result.command)])


def _digits(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3g}"
