"""A whole run: open the subjects, measure all views, judge the noise, assemble the result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from typing import Any

from ...bundle.manifest import MANIFEST_NAME
from ...dependencies import import_optional, read_version
from ...errors import InputError, MissingDependencyError
from .accuracy import BUNDLE, FAST_CRF, OFF, CrfSetting, label_references, list_crf_settings, measure_accuracy
from .compare import compare_within
from .load_view import LoadContext, measure_load
from .machine import MachineWatch, describe_environment
from .model_cost import count_model_cost
from .noise import collect_warnings, judge_noise
from .plan import REFERENCE, BenchPlan, ComparedName, Sample, parse_subject
from .results import BenchResult, MachineTrace, Series, StageView, Subject
from .roofline import measure_cpu_rooflines
from .rounds import PipelineRounds, describe_pipeline, measure_pipelines, measure_stages
from .system import System
from .timing import Canary, Clock

OnStep = Callable[[str], None]


def run_bench(plan: BenchPlan, *, on_step: OnStep = lambda step: None) -> BenchResult:
    """Measure all planned views of all subjects; `on_step` is called with the name of each step as it begins.

    Raises:
        InputError: if there are no images, or they differ in size.
        MissingDependencyError: if a library that a view needs is not installed; before anything is measured.
        BackendError: if a backend fails.
    """
    clock = Clock()
    created = datetime.now(timezone.utc)
    _require_one_size(plan.samples)
    for library in ("psutil", *(("mlperf_loadgen",) if plan.scenarios else ())):
        import_optional(library)
    on_step("describing the machine")
    environment = describe_environment()
    warnings: list[str] = []
    canary = Canary(clock)
    with ExitStack() as stack:
        systems = []
        for spec in plan.specs:
            on_step(f"loading {spec.name}")
            systems.append(stack.enter_context(System(plan, spec, clock)))
        watch = stack.enter_context(MachineWatch(clock))
        on_step("warming up, then timing the stages in turns")
        for system, view in zip(systems, measure_stages(plan, systems, clock=clock, canary=canary), strict=True):
            system.views["stages"] = view
        _measure_accuracies(plan, systems, clock, on_step)
        rounds = []
        if plan.pipeline_rounds:
            on_step("running the pipelines in turns")
            rounds = measure_pipelines(plan, systems, clock=clock, canary=canary)
        for index, system in enumerate(systems if plan.scenarios else ()):
            context = _make_context(system, clock, rounds[index] if rounds else None)
            system.views["load"], system.views["curve"] = measure_load(plan, context, on_step)
        if plan.roofline:
            on_step("measuring the roofline")
            warnings += _measure_rooflines(plan, systems, clock, environment.cpu.usable_cores)
    trace = watch.trace()
    series = canary.samples.describe() if canary.samples.at_s else None
    for system, one in zip(systems, rounds, strict=False):
        system.views["pipeline"] = describe_pipeline(one, system, system.views["stages"], series, trace)
    subjects = [_describe(plan, system, series, trace) for system in systems]
    compared: tuple[ComparedName, ...] = ("compute", "end_to_end", "pipeline") if rounds else ("compute", "end_to_end")
    return BenchResult(
        atrous_version=read_version("atrous") or "source tree",
        created=created,
        duration_s=clock.now_s(),
        command=tuple(plan.command),
        dataset=plan.dataset,
        images=tuple(sample.name for sample in plan.samples),
        environment=environment,
        subjects=tuple(subjects),
        comparisons=tuple(compare_within(subjects, compared, bound=plan.bound)),
        canary=series,
        machine_trace=trace,
        warnings=(*warnings, *_find_far_size(plan, systems[0]), *collect_warnings(subjects, plan.samples)),
    )


def _find_far_size(plan: BenchPlan, system: System) -> list[str]:
    """A warning if the images have a size far from the one that the net was made for."""
    height, width = plan.samples[0].image.shape[:2]
    warning = system.segmenter.sizing.find_warning(height, width)
    return [] if warning is None else [warning]


def _require_one_size(samples: Sequence[Sample]) -> None:
    sizes = sorted({sample.image.shape[:2] for sample in samples})
    if not sizes:
        raise InputError("there are no images to measure with")
    if len(sizes) > 1:
        found = ", ".join(f"{height}x{width}" for height, width in sizes[:4])
        raise InputError(f"the images differ in size ({found}): give images of one size, or --size")


def _measure_accuracies(plan: BenchPlan, systems: Sequence[System], clock: Clock, on_step: OnStep) -> None:
    """Measure the subjects' accuracy, and set their expected labels."""
    spec = parse_subject(REFERENCE)
    references: Mapping[str, Any] | None = None
    if systems[0].spec != spec:
        on_step(f"labels of the reference, {REFERENCE}")
        with plan.open(spec, plan.threads, fast_crf=False) as segmenter:
            references = label_references(segmenter, plan.samples)
    for system in systems:
        on_step(f"accuracy of {system.spec.name}")
        crf, shortcuts = system.segmenter.crf, system.segmenter.crf_shortcuts
        settings = list_crf_settings(crf, sweep=plan.crf_sweep)
        own = OFF if crf is None else BUNDLE
        if crf is not None and shortcuts:
            own = FAST_CRF
            settings[own] = CrfSetting(crf, shortcuts)
        system.views["accuracy"], labels = measure_accuracy(
            plan, system.segmenter, references, reference_name=REFERENCE, settings=settings, clock=clock
        )
        references = references or labels
        system.expected = labels[own]


def _make_context(system: System, clock: Clock, rounds: PipelineRounds | None) -> LoadContext:
    inner = [stage for stage in system.views["stages"].stages if stage.name not in ("decode", "encode", "end_to_end")]
    closed_loop_ms = max(sum(stage.series.mean_ms for stage in inner), 1e-3)
    # sets LoadGen's number of images; 10 % above the measured rate, which includes files
    offline_per_s = 1.1 * 1000 / rounds.samples.describe().typical_ms if rounds is not None else None
    return LoadContext(system, clock, tuple(stage.name for stage in inner), closed_loop_ms, offline_per_s)


def _measure_rooflines(plan: BenchPlan, systems: Sequence[System], clock: Clock, cores: int) -> list[str]:
    """Measure the rooflines of the subjects on the CPU, which share its limits; returns warnings."""
    on_cpu = [system for system in systems if system.segmenter.backend.device == "cpu"]
    if not on_cpu:
        return ["the roofline is measured on a CPU only"]
    cost, warnings = None, []
    try:
        height, width = plan.samples[0].image.shape[:2]
        cost = count_model_cost(plan.bundle, *on_cpu[0].segmenter.sizing.find_size(height, width))
    except MissingDependencyError as error:
        warnings.append(f"the roofline has limits but no network: {error}")
    stages = [system.views["stages"].find_stage("compute") for system in on_cpu]
    times_ms = [stage.series.typical_ms if stage is not None else None for stage in stages]
    rooflines = measure_cpu_rooflines(clock, threads=plan.threads or cores, model=cost, compute_ms=times_ms)
    for system, roofline in zip(on_cpu, rooflines, strict=True):
        system.views["roofline"] = roofline
    return warnings


def _describe(plan: BenchPlan, system: System, canary: Series | None, trace: MachineTrace) -> Subject:
    view: StageView = system.views["stages"]
    whole = view.find_stage("end_to_end")
    assert whole is not None
    segmenter, manifest = system.segmenter, plan.bundle.manifest
    height, width = plan.samples[0].image.shape[:2]
    return Subject(
        name=system.spec.name,
        backend=system.spec.backend,
        device=segmenter.backend.device,
        precision=system.spec.precision,
        threads=plan.threads,
        bundle=manifest.name,
        bundle_sha256=hashlib.sha256((plan.bundle.path / MANIFEST_NAME).read_bytes()).hexdigest(),
        head=segmenter.head,
        classes=len(manifest.classes),
        image_height=height,
        image_width=width,
        network_size=segmenter.sizing.find_size(height, width),
        crf=segmenter.crf.to_dict() if segmenter.crf is not None else None,
        crf_shortcuts=segmenter.crf_shortcuts,
        noise=judge_noise(whole.series, view.warmup, canary, trace),
        **system.views,
    )
