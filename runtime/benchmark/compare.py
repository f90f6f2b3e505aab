"""Is B slower than A? A ratio of medians with its interval, and a verdict that a build may fail on.

| verdict        | when                                                                                          |
|----------------|-----------------------------------------------------------------------------------------------|
| `regression`   | the whole interval lies above 1 + bound                                                       |
| `improvement`  | the whole interval lies below 1 / (1 + bound)                                                 |
| `same`         | the whole interval lies between the two                                                       |
| `inconclusive` | it straddles one of them, or the machine was not the same: too noisy, or of another speed     |

What is compared is a stage's time, the whole way's ("end_to_end"), or the pipeline's time an image ("pipeline"): the
reciprocal of its throughput, so that above 1 is worse in all of them.

Samples of one run were taken in turns: they are compared in pairs, and what the machine did in a round cancels.
Two runs are not paired: then a verdict needs both machines to have been quiet, and the canary's medians (the same
arithmetic in both runs) to agree within the bound, or what is compared is two machines and not two programs.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ...errors import InputError
from .results import BenchResult, ComparedName, Comparison, Noise, Subject, Verdict
from .statistics import Ratio, estimate_ratio

BOUND = 0.05
PIPELINE: Final = "pipeline"


def compare_subjects(
    baseline: Subject, candidate: Subject, *, stage: ComparedName = "end_to_end", bound: float = BOUND
) -> Comparison:
    """Compare two subjects of one run, in pairs.

    Raises:
        InputError: if one has no such stage, or they were not measured in turns.
    """
    series = [_find_values(subject, stage, subject.name) for subject in (baseline, candidate)]
    if series[0].size != series[1].size:
        raise InputError(f"{baseline.name} and {candidate.name} were not measured in turns: measure them with --vs")
    ratio = estimate_ratio(series[0], series[1], paired=True)
    return _conclude(baseline.name, candidate.name, stage, ratio, bound, paired=True, doubts=[])


def compare_run(
    result: BenchResult, *, stage: ComparedName = "end_to_end", bound: float = BOUND
) -> tuple[Comparison, ...]:
    """Compare every other subject of a run with its first."""
    first, *others = result.subjects
    return tuple(compare_subjects(first, other, stage=stage, bound=bound) for other in others)


def compare_results(
    baseline: BenchResult, candidate: BenchResult, *, stage: ComparedName = "end_to_end", bound: float = BOUND
) -> tuple[Comparison, ...]:
    """Compare the subjects of two runs that have the same names; the first ones where each run has one.

    Raises:
        InputError: if no subject is common, or what was measured differs (image sizes, CRF, stage).
    """
    pairs = _pair_subjects(baseline, candidate)
    doubts = _doubt_machines(baseline, candidate, bound)
    found = []
    for ours, theirs in pairs:
        _require_same_work(ours, theirs)
        own_doubts = [
            f"{name} was too noisy ({', '.join(check.name for check in noise.failed)})"
            for name, noise in (
                ("the baseline", _find_noise(ours, stage)),
                ("the candidate", _find_noise(theirs, stage)),
            )
            if noise is not None and not noise.conclusive
        ]
        values = [_find_values(subject, stage, subject.name) for subject in (ours, theirs)]
        ratio = estimate_ratio(values[0], values[1], paired=False)
        found.append(_conclude(ours.name, theirs.name, stage, ratio, bound, paired=False, doubts=doubts + own_doubts))
    return tuple(found)


def judge_ratio(ratio: Ratio, bound: float) -> Verdict:
    """The verdict on a ratio alone, by the table above."""
    if ratio.low > 1 + bound:
        return "regression"
    if ratio.high < 1 / (1 + bound):
        return "improvement"
    if ratio.low >= 1 / (1 + bound) and ratio.high <= 1 + bound:
        return "same"
    return "inconclusive"


def _conclude(
    baseline: str, candidate: str, stage: ComparedName, ratio: Ratio, bound: float, *, paired: bool, doubts: list[str]
) -> Comparison:
    verdict: Verdict = "inconclusive" if doubts else judge_ratio(ratio, bound)
    change = f"{candidate} takes {ratio.value:.3f} x the time of {baseline} ({ratio.low:.3f} to {ratio.high:.3f})"
    if stage == PIPELINE:
        low, high = 1 / ratio.high, 1 / ratio.low
        change = f"{candidate} has {1 / ratio.value:.3f} x the throughput of {baseline} ({low:.3f} to {high:.3f})"
    reasons = {
        "regression": f"slower by more than the bound of {bound:.0%}",
        "improvement": f"faster by more than the bound of {bound:.0%}",
        "same": f"equal within the bound of {bound:.0%}",
        "inconclusive": "; ".join(doubts) or f"the interval straddles the bound of {bound:.0%}: take more samples",
    }
    return Comparison(
        baseline=baseline,
        candidate=candidate,
        stage=stage,
        ratio=round(ratio.value, 6),
        low=round(ratio.low, 6),
        high=round(ratio.high, 6),
        paired=paired,
        bound=bound,
        verdict=verdict,
        reason=f"{change}: {reasons[verdict]}",
    )


def _pair_subjects(baseline: BenchResult, candidate: BenchResult) -> list[tuple[Subject, Subject]]:
    if len(baseline.subjects) == len(candidate.subjects) == 1:
        return [(baseline.subjects[0], candidate.subjects[0])]
    theirs = {subject.name: subject for subject in candidate.subjects}
    pairs = [(subject, theirs[subject.name]) for subject in baseline.subjects if subject.name in theirs]
    if not pairs:
        names = [", ".join(subject.name for subject in result.subjects) for result in (baseline, candidate)]
        raise InputError(f"the runs share no subject (one has {names[0]}, the other {names[1]})")
    return pairs


def _require_same_work(ours: Subject, theirs: Subject) -> None:
    for what, one, other in (
        ("image height", ours.image_height, theirs.image_height),
        ("image width", ours.image_width, theirs.image_width),
        ("classes", ours.classes, theirs.classes),
        ("head", ours.head, theirs.head),
        ("CRF", ours.crf, theirs.crf),
        ("the CRF's shortcuts", ours.crf_shortcuts, theirs.crf_shortcuts),
    ):
        if one != other:
            raise InputError(f"{ours.name}: the two runs did different work: {what} {one} and {other}")


def _doubt_machines(baseline: BenchResult, candidate: BenchResult, bound: float) -> list[str]:
    doubts = []
    names = [result.environment.cpu.name for result in (baseline, candidate)]
    if names[0] != names[1]:
        doubts.append(f"the processors differ ({names[0]}, {names[1]})")
    gpus = [[gpu.name for gpu in result.environment.gpus] for result in (baseline, candidate)]
    if gpus[0] != gpus[1]:
        doubts.append(f"the GPUs differ ({gpus[0] or 'none'}, {gpus[1] or 'none'})")
    if baseline.canary is not None and candidate.canary is not None:
        speeds = [float(np.median(result.canary.values_ms)) for result in (baseline, candidate) if result.canary]
        change = speeds[1] / speeds[0]
        if not 1 / (1 + bound) <= change <= 1 + bound:
            doubts.append(f"the machine itself took {change:.2f} x the time for the canary's arithmetic")
    return doubts


def list_compared(baseline: BenchResult, candidate: BenchResult) -> tuple[ComparedName, ...]:
    """What is worth comparing of two runs: the whole way of an image, and the pipeline where both measured it."""
    has_pipelines = all(s.pipeline is not None for pair in _pair_subjects(baseline, candidate) for s in pair)
    return ("end_to_end", PIPELINE) if has_pipelines else ("end_to_end",)


def _find_noise(subject: Subject, stage: ComparedName) -> Noise | None:
    if stage != PIPELINE:
        return subject.noise
    return subject.pipeline.noise if subject.pipeline is not None else None


def _find_values(subject: Subject, stage: ComparedName, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if stage == PIPELINE:
        series = subject.pipeline.time_per_image if subject.pipeline is not None else None
    else:
        found = subject.stages.find_stage(stage) if subject.stages is not None else None
        series = found.series if found is not None else None
    if series is None:
        what = f'stage "{stage}": choose one that both have' if stage != PIPELINE else "pipeline view: measure it again"
        raise InputError(f"{name} has no {what}")
    return np.asarray(series.values_ms, np.float64)
