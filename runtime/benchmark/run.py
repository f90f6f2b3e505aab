"""A whole run: open the subjects, measure every view, judge the noise, put the result together."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Literal

import numpy as np

from ...bundle.folder import Bundle
from ...dependencies import import_crf, read_version
from ...errors import InputError, MissingDependencyError
from ..pipeline.engine import count_cores
from ..segmenter import Labels, Segmenter
from .accuracy import (
    BUNDLE,
    FAST_CRF,
    OFF,
    CrfSetting,
    References,
    label_references,
    list_crf_settings,
    measure_accuracy,
    measure_agreement,
    score_labels,
)
from .canary import Canary
from .clocks import Clock, MonotonicClock
from .compare import BOUND, compare_subjects
from .environment import describe_environment
from .load_view import LoadContext, LoadPlan, measure_load
from .machine_sections import MachineTrace
from .machine_trace import MachineWatch
from .model_cost import count_model_cost
from .noise import judge_noise
from .pipeline_view import (
    PipelinePlan,
    PipelineRunner,
    Rounds,
    describe_pipeline,
    measure_pipelines,
    serve_through_pipeline,
)
from .presets import Preset, compare_published
from .results import (
    Accuracy,
    BenchResult,
    ComparedName,
    Comparison,
    CurvePoint,
    LoadRun,
    ModelCost,
    Roofline,
    StageView,
    Subject,
)
from .roofline import measure_cpu_roofline
from .runners import Sample, SegmenterRunner
from .sections import Series
from .stages import Amount, measure_stages
from .statistics import describe_series
from .subjects import REFERENCE, SubjectSpec, hash_manifest, open_subject, parse_subject
from .warning_rules import collect_warnings


@dataclass(frozen=True)
class BenchPlan:
    """What to measure, and how much of it.

    Attributes:
        bundle: whose network.
        specs: the subjects, the baseline first.
        samples: the images, all of one size.
        dataset: where they come from.
        command: the words to reproduce the run.
        threads: of network and CRF; None for as many as there are cores.
        crf: "auto" (as the bundle), True or False.
        is_crf_fast: whether the CRF takes its shortcuts in all views.
        amount: of the stage view.
        pipeline: the pipeline view, or None: then LoadGen's Offline is calls, too.
        load: the load view, or None.
        repeats: of every image in the accuracy view.
        sweeps_crf: whether to try the bundle's CRF with fewer iterations and with its shortcuts too.
        has_roofline: whether to measure the roofline (on a CPU).
        bound: of the comparisons.
        preset: whose published figures to quote, or None.
        weights: "given", or "seeded".
    """

    bundle: Bundle
    specs: Sequence[SubjectSpec]
    samples: Sequence[Sample]
    dataset: str
    command: Sequence[str]
    threads: int | None = None
    crf: Literal["auto"] | bool = "auto"
    is_crf_fast: bool = False
    amount: Amount = field(default_factory=Amount)
    pipeline: PipelinePlan | None = None
    load: LoadPlan | None = None
    repeats: int = 3
    sweeps_crf: bool = True
    has_roofline: bool = True
    bound: float = BOUND
    preset: Preset | None = None
    weights: Literal["given", "seeded"] = "given"


@dataclass
class _Measured:
    """What was measured of one subject; `many` is it loaded for many images side by side."""

    spec: SubjectSpec
    segmenter: Segmenter
    view: StageView | None = None
    labels: Sequence[Labels] = ()
    many: Segmenter | None = None
    cores: int | None = None
    runner: PipelineRunner | None = None
    rounds: Rounds | None = None
    accuracy: tuple[Accuracy, ...] = ()
    load: tuple[LoadRun, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    roofline: Roofline | None = None


def run_bench(
    plan: BenchPlan, *, clock: Clock | None = None, on_step: Callable[[str], None] = lambda step: None
) -> BenchResult:
    """Measure.

    Args:
        plan: what.
        clock: what times it.
        on_step: is called with the name of each step as it begins.

    Raises:
        InputError: if there are no images, or they differ in size.
        MissingDependencyError: if a library that a view needs is not installed; before anything is measured.
        BackendError: if a backend fails.
    """
    clock = clock or MonotonicClock()
    begin_ns = clock.now_ns()
    created = datetime.now(timezone.utc)
    height, width = _require_one_size(plan.samples)
    on_step("looking at the machine")
    environment = describe_environment()
    warnings: list[str] = []
    canary = Canary(clock)
    with ExitStack() as stack:
        measured = []
        for spec in plan.specs:
            on_step(f"loading {spec.name}")
            segmenter = _open(plan, spec, plan.threads)
            measured.append(_Measured(spec, stack.enter_context(segmenter)))
        watch = stack.enter_context(MachineWatch(clock, begin_ns))
        on_step("warming up, then timing the stages in turns")
        runners = [SegmenterRunner(one.segmenter, plan.samples, clock) for one in measured]
        views = measure_stages(
            runners, len(plan.samples), clock=clock, begin_ns=begin_ns, canary=canary, amount=plan.amount
        )
        for one, view in zip(measured, views, strict=True):
            one.view = view
        labels = _measure_accuracies(plan, measured, clock, on_step)
        if plan.pipeline is not None:
            on_step("the pipeline, in turns")
            for one in measured:
                _prepare_pipeline(plan, one, clock)
            runners_of_many = [one.runner for one in measured if one.runner is not None]
            found = measure_pipelines(runners_of_many, plan.pipeline, clock=clock, begin_ns=begin_ns, canary=canary)
            for one, rounds in zip(measured, found, strict=True):
                one.rounds = rounds
        if plan.load is not None:
            for one in measured:
                context = _make_context(plan, one, labels, clock, begin_ns)
                one.load, one.curve = measure_load(plan.load, context, on_step)
        if plan.has_roofline:
            _measure_rooflines(plan, measured, clock, on_step, warnings, environment.cpu.usable_cores)
    trace = watch.trace()
    sung = describe_series([(at - begin_ns) / 1e9 for at in canary.at_ns], canary.values_ms) if canary.at_ns else None
    subjects = [_describe_subject(plan, one, (height, width), sung, trace) for one in measured]
    first = subjects[0]
    published = (
        (
            compare_published(
                plan.preset, first.stages, first.device, environment.cpu.name, seeded=plan.weights == "seeded"
            ),
        )
        if plan.preset is not None
        else ()
    )
    return BenchResult(
        atrous_version=read_version("atrous") or "source tree",
        created=created,
        duration_s=round((clock.now_ns() - begin_ns) / 1e9, 3),
        command=tuple(plan.command),
        dataset=plan.dataset,
        images=tuple(sample.name for sample in plan.samples),
        environment=environment,
        subjects=tuple(subjects),
        comparisons=_compare(subjects, plan.bound),
        published=published,
        canary=sung,
        machine_trace=trace,
        warnings=(*warnings, *collect_warnings(subjects, plan.samples)),
    )


def _open(plan: BenchPlan, spec: SubjectSpec, threads: int | None) -> Segmenter:
    shortcuts = import_crf().FAST if plan.is_crf_fast else None
    return open_subject(spec, plan.bundle, threads=threads, crf=plan.crf, crf_shortcuts=shortcuts)


def _prepare_pipeline(plan: BenchPlan, one: _Measured, clock: Clock) -> None:
    """Make the pipeline runner of a subject; the network has the same threads as in the stage view."""
    one.cores = plan.threads or count_cores()
    one.many = one.segmenter
    one.runner = PipelineRunner(one.many, plan.samples, one.labels, cores=one.cores, clock=clock)


def _require_one_size(samples: Sequence[Sample]) -> tuple[int, int]:
    sizes = {sample.image.shape[:2] for sample in samples}
    if not sizes:
        raise InputError("there are no images to measure with")
    if len(sizes) > 1:
        found = ", ".join(f"{height}x{width}" for height, width in sorted(sizes)[:4])
        raise InputError(
            f"the images differ in size ({found}): latencies of one size can be compared; give one, or --size"
        )
    height, width = sizes.pop()
    return height, width


def _measure_accuracies(
    plan: BenchPlan, measured: Sequence[_Measured], clock: Clock, on_step: Callable[[str], None]
) -> References:
    """Fill in every subject's accuracy; returns the reference's labels."""
    reference_spec = parse_subject(REFERENCE)
    references: References | None = None
    if measured[0].spec != reference_spec:
        on_step(f"labels of the reference, {REFERENCE}")
        with open_subject(reference_spec, plan.bundle, threads=plan.threads, crf=plan.crf) as segmenter:
            references = label_references(segmenter, plan.samples)
    for one in measured:
        on_step(f"accuracy of {one.spec.name}")
        one.accuracy, labels = measure_accuracy(
            one.segmenter,
            plan.samples,
            references,
            reference_name=REFERENCE,
            clock=clock,
            settings=_list_settings(plan, one.segmenter),
            threads=plan.threads,
            repeats=plan.repeats,
        )
        references = references or labels
        one.labels = labels[_name_own_setting(one.segmenter)]
    assert references is not None
    return references


def _list_settings(plan: BenchPlan, segmenter: Segmenter) -> dict[str, CrfSetting]:
    """The sweep's, or those without which the subject's own labels would have no row."""
    settings = list_crf_settings(segmenter.crf, short=plan.sweeps_crf)
    if segmenter.crf is not None and segmenter.crf_shortcuts:
        settings[FAST_CRF] = CrfSetting(segmenter.crf, segmenter.crf_shortcuts)
    return settings


def _name_own_setting(segmenter: Segmenter) -> str:
    if segmenter.crf is None:
        return OFF
    return FAST_CRF if segmenter.crf_shortcuts else BUNDLE


def _make_context(plan: BenchPlan, one: _Measured, labels: References, clock: Clock, begin_ns: int) -> LoadContext:
    segmenter, samples = one.segmenter, plan.samples
    classes = len(plan.bundle.manifest.classes)
    references = labels[OFF if one.segmenter.crf is None else BUNDLE]

    def judge(found: Mapping[int, Labels]) -> tuple[float | None, float | None]:
        ordered = [found[index] for index in range(len(samples))]
        return measure_agreement(ordered, references), score_labels(ordered, samples, classes)[0]

    assert one.view is not None
    inner = [stage for stage in one.view.stages if stage.name not in ("decode", "encode", "end_to_end")]
    return LoadContext(
        label=lambda index: segmenter(samples[index].image),
        images=len(samples),
        includes=tuple(stage.name for stage in inner),
        closed_loop_ms=max(sum(stage.series.mean_ms for stage in inner), 1e-3),
        judge=judge,
        clock=clock,
        begin_ns=begin_ns,
        serve_offline=serve_through_pipeline(one.many, samples, one.cores) if one.many and one.cores else None,
        # LoadGen decides by it how many images there are; a tenth more than the files took, which it does not read
        offline_per_s=1.1 * 1000 / float(np.median(one.rounds.times_ms)) if one.rounds else None,
    )


def _measure_rooflines(
    plan: BenchPlan,
    measured: Sequence[_Measured],
    clock: Clock,
    on_step: Callable[[str], None],
    warnings: list[str],
    cores: int,
) -> None:
    """One measurement of the CPU's limits serves all subjects on the CPU."""
    on_step("roofline")
    on_cpu = [one for one in measured if one.segmenter.backend.device == "cpu"]
    if not on_cpu:
        warnings.append("the roofline is measured on a CPU only")
        return
    cost: ModelCost | None = None
    try:
        cost = count_model_cost(plan.bundle, *plan.samples[0].image.shape[:2])
    except MissingDependencyError as error:
        warnings.append(f"the roofline lacks the network's own point: {error}")
    threads = plan.threads or cores
    limits = measure_cpu_roofline(clock, threads=threads, model=cost, compute_ms=None)
    for one in on_cpu:
        stage = one.view.find_stage("compute") if one.view is not None else None
        achieved = cost.flops / (statistics.median(stage.series.values_ms) * 1e6) if cost and stage else None
        share = achieved / limits.attainable_gflops if achieved and limits.attainable_gflops else None
        one.roofline = limits.model_copy(
            update={
                "achieved_gflops": round(achieved, 3) if achieved is not None else None,
                "share": round(share, 4) if share is not None else None,
            }
        )


def _describe_subject(
    plan: BenchPlan, one: _Measured, size: tuple[int, int], canary: Series | None, trace: MachineTrace
) -> Subject:
    assert one.view is not None
    whole = one.view.find_stage("end_to_end")
    assert whole is not None
    crf = one.segmenter.crf
    pipeline = describe_pipeline(one.rounds, one.runner, one.view, canary, trace) if one.rounds and one.runner else None
    return Subject(
        name=one.spec.name,
        backend=one.spec.backend,
        device=one.segmenter.backend.device,
        precision=one.spec.precision,
        threads=plan.threads,
        bundle=plan.bundle.manifest.name,
        bundle_sha256=hash_manifest(plan.bundle),
        weights=plan.weights,
        head=one.segmenter.head,
        classes=len(plan.bundle.manifest.classes),
        image_height=size[0],
        image_width=size[1],
        crf=crf.to_dict() if crf is not None else None,
        crf_shortcuts=one.segmenter.crf_shortcuts,
        stages=one.view,
        pipeline=pipeline,
        load=one.load,
        curve=one.curve,
        accuracy=one.accuracy,
        roofline=one.roofline,
        noise=judge_noise(whole.series, one.view.warmup, canary, trace),
    )


def _compare(subjects: Sequence[Subject], bound: float) -> tuple[Comparison, ...]:
    first, *others = subjects
    stages: list[ComparedName] = ["compute", "end_to_end"]
    if all(subject.pipeline is not None for subject in subjects):
        stages.append("pipeline")
    return tuple(compare_subjects(first, other, stage=stage, bound=bound) for other in others for stage in stages)
