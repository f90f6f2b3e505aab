"""Comparisons: a ratio of medians with its interval, and a verdict that can fail a build.

| verdict        | condition                                                                       |
|----------------|---------------------------------------------------------------------------------|
| `regression`   | the whole interval lies above 1 + bound                                         |
| `improvement`  | the whole interval lies below 1 / (1 + bound)                                   |
| `same`         | the whole interval lies between the two                                         |
| `inconclusive` | it contains one of them, or the machines differ in noise, processor or speed    |

Compared is the time of a stage, of the whole path ("end_to_end"), or per image of the pipeline ("pipeline", the
reciprocal of its throughput); above 1 is slower in all of them. Samples of one run were taken in turns and are compared
in pairs, so that slowdowns of a whole round cancel. Samples of two runs are not paired: a verdict then needs both
machines to have been quiet, and the canary's medians to agree within the bound; otherwise machines are compared, not
programs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import InputError
from .plan import REGRESSION_BOUND, ComparedName
from .results import BenchResult, Comparison, Subject, Verdict
from .statistics import FloatArray, Ratio, estimate_ratio

Pair = tuple[Subject, Subject]


def compare_within(
    subjects: Sequence[Subject], stages: Sequence[ComparedName] = (), *, bound: float = REGRESSION_BOUND
) -> list[Comparison]:
    """Compare all other subjects of one run with its first, in pairs; by default end_to_end and pipeline.

    Raises:
        InputError: if a subject lacks a stage, or the subjects were not measured in turns.
    """
    return _compare([(subjects[0], other) for other in subjects[1:]], stages, bound, paired=True)


def compare_between(
    baseline: BenchResult,
    candidate: BenchResult,
    stages: Sequence[ComparedName] = (),
    *,
    bound: float = REGRESSION_BOUND,
) -> list[Comparison]:
    """Compare the subjects of two runs that have the same names, or the only ones; by default end_to_end and pipeline.

    Raises:
        InputError: if no subject is common, or the runs did different work (image size, CRF, stage).
    """
    pairs = _pair_subjects(baseline, candidate)
    return _compare(pairs, stages, bound, paired=False, doubts=_compare_machines(baseline, candidate, bound))


def judge_ratio(ratio: Ratio, bound: float) -> Verdict:
    """The verdict on a ratio alone, by the table above."""
    if ratio.low > 1 + bound:
        return "regression"
    if ratio.high < 1 / (1 + bound):
        return "improvement"
    is_same = ratio.low >= 1 / (1 + bound) and ratio.high <= 1 + bound
    return "same" if is_same else "inconclusive"


def _compare(
    pairs: Sequence[Pair], stages: Sequence[ComparedName], bound: float, *, paired: bool, doubts: Sequence[str] = ()
) -> list[Comparison]:
    found = []
    has_pipelines = all(subject.pipeline is not None for pair in pairs for subject in pair)
    for stage in stages or (("end_to_end", "pipeline") if has_pipelines else ("end_to_end",)):
        for pair in pairs:
            first, second = (_read_values(subject, stage) for subject in pair)
            if not paired:
                _require_same_work(*pair)
            elif first.size != second.size:
                names = " and ".join(subject.name for subject in pair)
                raise InputError(f"{names} were not measured in turns: measure them with --vs")
            ratio = estimate_ratio(first, second, paired=paired)
            noise = [] if paired else _find_noise(pair, stage)
            found.append(_conclude(pair, stage, ratio, bound, paired=paired, doubts=[*doubts, *noise]))
    return found


def _conclude(
    pair: Pair, stage: ComparedName, ratio: Ratio, bound: float, *, paired: bool, doubts: Sequence[str]
) -> Comparison:
    baseline, candidate = (subject.name for subject in pair)
    value, low, high = ratio.value, ratio.low, ratio.high
    change = f"{candidate} takes {value:.3f} x the time of {baseline} ({low:.3f} to {high:.3f})"
    if stage == "pipeline":
        change = f"{candidate} has {1 / value:.3f} x the throughput of {baseline} ({1 / high:.3f} to {1 / low:.3f})"
    verdict: Verdict = "inconclusive" if doubts else judge_ratio(ratio, bound)
    reasons = {
        "regression": f"slower by more than the bound of {bound:.0%}",
        "improvement": f"faster by more than the bound of {bound:.0%}",
        "same": f"equal within the bound of {bound:.0%}",
        "inconclusive": "; ".join(doubts) or f"the interval contains the bound of {bound:.0%}: take more samples",
    }
    return Comparison(
        baseline=baseline,
        candidate=candidate,
        stage=stage,
        ratio=value,
        low=low,
        high=high,
        paired=paired,
        bound=bound,
        verdict=verdict,
        reason=f"{change}: {reasons[verdict]}",
    )


def _pair_subjects(baseline: BenchResult, candidate: BenchResult) -> list[Pair]:
    if len(baseline.subjects) == len(candidate.subjects) == 1:
        return [(baseline.subjects[0], candidate.subjects[0])]
    theirs = {subject.name: subject for subject in candidate.subjects}
    pairs = [(subject, theirs[subject.name]) for subject in baseline.subjects if subject.name in theirs]
    if not pairs:
        names = [", ".join(subject.name for subject in result.subjects) for result in (baseline, candidate)]
        raise InputError(f"the runs share no subject: one has {names[0]}, the other {names[1]}")
    return pairs


def _require_same_work(ours: Subject, theirs: Subject) -> None:
    for name in ("image_height", "image_width", "classes", "head", "crf", "crf_shortcuts"):
        one, other = getattr(ours, name), getattr(theirs, name)
        if one != other:
            raise InputError(f"{ours.name}: the two runs did different work: {name} is {one} and {other}")


def _compare_machines(baseline: BenchResult, candidate: BenchResult, bound: float) -> list[str]:
    """Reasons why the two machines cannot be compared."""
    doubts = []
    cpus = [result.environment.cpu.name for result in (baseline, candidate)]
    if cpus[0] != cpus[1]:
        doubts.append(f"the processors differ ({cpus[0]}, {cpus[1]})")
    gpus = [", ".join(gpu.name for gpu in result.environment.gpus) or "none" for result in (baseline, candidate)]
    if gpus[0] != gpus[1]:
        doubts.append(f"the GPUs differ ({gpus[0]}; {gpus[1]})")
    if baseline.canary is not None and candidate.canary is not None:
        change = float(np.median(candidate.canary.values_ms) / np.median(baseline.canary.values_ms))
        if not 1 / (1 + bound) <= change <= 1 + bound:
            doubts.append(f"the machine took {change:.2f} x the time for the canary's arithmetic")
    return doubts


def _find_noise(pair: Pair, stage: ComparedName) -> list[str]:
    found = []
    for name, subject in zip(("baseline", "candidate"), pair, strict=True):
        noise = subject.pipeline.noise if stage == "pipeline" and subject.pipeline is not None else subject.noise
        if not noise.conclusive:
            found.append(f"the {name} was too noisy ({', '.join(check.name for check in noise.failed)})")
    return found


def _read_values(subject: Subject, stage: ComparedName) -> FloatArray:
    if stage == "pipeline":
        if subject.pipeline is None:
            raise InputError(f"{subject.name} has no pipeline view: measure it again")
        return np.asarray(subject.pipeline.time_per_image.values_ms, np.float64)
    found = subject.stages.find_stage(stage) if subject.stages is not None else None
    if found is None:
        raise InputError(f'{subject.name} has no stage "{stage}": choose one that both have')
    return np.asarray(found.series.values_ms, np.float64)
