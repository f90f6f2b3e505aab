"""A whole run: open the subjects, measure every view, judge the noise, put the result together."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Literal

from ..bundle import Bundle
from ..dependencies import read_version
from ..errors import InputError, MissingDependencyError
from ..segmenter import Labels, Segmenter
from .accuracy import (
    BUNDLE,
    OFF,
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
from .presets import Preset, compare_published
from .results import (
    Accuracy,
    BenchResult,
    Comparison,
    CurvePoint,
    LoadRun,
    ModelCost,
    Roofline,
    StageName,
    StageView,
    Subject,
)
from .roofline import measure_cpu_roofline
from .runners import Sample, SegmenterRunner
from .sections import Series
from .stages import Amount, measure_stages
from .statistics import describe_series
from .subjects import REFERENCE, SubjectSpec, hash_manifest, open_subject, parse_subject


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
        amount: of the stage view.
        load: the load view, or None.
        repeats: of every image in the accuracy view.
        sweeps_crf: whether to try the bundle's CRF with fewer iterations too.
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
    amount: Amount = field(default_factory=Amount)
    load: LoadPlan | None = None
    repeats: int = 3
    sweeps_crf: bool = True
    has_roofline: bool = True
    bound: float = BOUND
    preset: Preset | None = None
    weights: Literal["given", "seeded"] = "given"


@dataclass
class _Measured:
    """What was measured of one subject."""

    spec: SubjectSpec
    segmenter: Segmenter
    view: StageView | None = None
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
            segmenter = open_subject(spec, plan.bundle, threads=plan.threads, crf=plan.crf)
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
        warnings=tuple(_collect_warnings(plan, subjects, warnings)),
    )


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
            settings=list_crf_settings(one.segmenter.crf, short=plan.sweeps_crf),
            threads=plan.threads,
            repeats=plan.repeats,
        )
        references = references or labels
    assert references is not None
    return references


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
        stages=one.view,
        load=one.load,
        curve=one.curve,
        accuracy=one.accuracy,
        roofline=one.roofline,
        noise=judge_noise(whole.series, one.view.warmup, canary, trace),
    )


def _compare(subjects: Sequence[Subject], bound: float) -> tuple[Comparison, ...]:
    stages: tuple[StageName, ...] = ("compute", "end_to_end")
    first, *others = subjects
    return tuple(compare_subjects(first, other, stage=stage, bound=bound) for other in others for stage in stages)


def _collect_warnings(plan: BenchPlan, subjects: Sequence[Subject], warnings: Sequence[str]) -> list[str]:
    found = list(warnings)
    if plan.weights == "seeded":
        found.append(
            "the weights are seeded random numbers, not trained ones: the speed is real, the labels mean nothing"
        )
    elif any(sample.truth is None for sample in plan.samples):
        found.append("the images have no labels: accuracy is the agreement with float32 only")
    if any(subject.backend == "fake" for subject in subjects):
        found.append("the fake backend is a formula, not a network")
    for subject in subjects:
        failed = [check.text for check in subject.noise.checks if not check.passed]
        if failed:
            found.append(f"{subject.name}: too noisy to conclude from: {'; '.join(failed)}")
        for run in subject.load:
            if not run.valid:
                found.append(
                    f"{subject.name}: LoadGen holds its {run.scenario} run for INVALID: {'; '.join(run.reasons)}"
                )
        agreements = [row.label_agreement for row in subject.accuracy if row.crf in (OFF, BUNDLE)]
        if agreements and min(agreements) < 0.95 and subject.backend != "fake":
            found.append(f"{subject.name}: its labels agree with float32's on {min(agreements):.1%} of the pixels only")
    return found
