"""What a reader must know before quoting a figure of a run."""

from __future__ import annotations

from collections.abc import Sequence

from .accuracy import BUNDLE, OFF
from .results import Noise, Subject
from .runners import Sample


def collect_warnings(subjects: Sequence[Subject], samples: Sequence[Sample]) -> list[str]:
    """One sentence a warning; `samples` are the images that were measured."""
    found = []
    if any(subject.weights == "seeded" for subject in subjects):
        found.append(
            "the weights are seeded random numbers, not trained ones: the speed is real, the labels mean nothing"
        )
    elif any(sample.truth is None for sample in samples):
        found.append("the images have no labels: accuracy is the agreement with float32 only")
    if any(subject.backend == "fake" for subject in subjects):
        found.append("the fake backend is a formula, not a network")
    for subject in subjects:
        found += _warn_of_noise(subject.name, subject.noise)
        found += _warn_of_pipeline(subject)
        for run in subject.load:
            if not run.valid:
                found.append(
                    f"{subject.name}: LoadGen holds its {run.scenario} run for INVALID: {'; '.join(run.reasons)}"
                )
        agreements = [row.label_agreement for row in subject.accuracy if row.crf in (OFF, BUNDLE)]
        if agreements and min(agreements) < 0.95 and subject.backend != "fake":
            found.append(f"{subject.name}: its labels agree with float32's on {min(agreements):.1%} of the pixels only")
    return found


def _warn_of_noise(what: str, noise: Noise) -> list[str]:
    if not noise.failed:
        return []
    return [f"{what}: too noisy to conclude from: {'; '.join(check.text for check in noise.failed)}"]


def _warn_of_pipeline(subject: Subject) -> list[str]:
    view = subject.pipeline
    if view is None:
        return []
    found = _warn_of_noise(f"{subject.name}, pipeline", view.noise)
    if view.agreement < 1:
        found.append(
            f"{subject.name}: in the pipeline {1 - view.agreement:.4%} of the pixels are labelled otherwise than one "
            "image after the other"
        )
    return found
