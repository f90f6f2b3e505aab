"""The noise of rebuilding: a builder times kernels and takes the fastest, so two builds of one graph differ in bits.

What differs is measured where it counts, in labels: the share of pixels that two builds of the same graph label
differently, over all pairs of N builds. No accuracy figure of an engine means anything below that floor.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ....errors import InputError
from ..protocol import Array

#: feeds -> outputs, of one built engine
Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


@dataclass(frozen=True)
class RebuildNoise:
    """How far builds of one graph disagree.

    Attributes:
        builds: how many were compared.
        images: on how many inputs.
        pixels: labels compared in each pair of builds.
        mean_disagreement: share of labels that differ, mean over all pairs.
        worst_disagreement: the same of the worst pair.
        worst_image: the same of the worst pair on its worst image.
        identical_pairs: pairs of builds whose outputs are equal to the last bit.
        largest_difference: of any two scores, absolute; 0 for outputs that are labels.
    """

    builds: int
    images: int
    pixels: int
    mean_disagreement: float
    worst_disagreement: float
    worst_image: float
    identical_pairs: int
    largest_difference: float


def measure_rebuild_noise(runs: Sequence[Run], feeds: Sequence[Mapping[str, Array]], output: str) -> RebuildNoise:
    """Run every build on every input and compare the labels, pair by pair.

    Args:
        runs: the builds.
        feeds: the inputs.
        output: the output to compare: labels (N x H x W integers) or scores (N x L x H x W), of which the argmax.

    Raises:
        InputError: if there are fewer than two builds or no input.
    """
    if len(runs) < 2 or not feeds:
        raise InputError(
            f"{len(runs)} builds on {len(feeds)} inputs leave nothing to compare: give --repeats 2 or more"
        )
    answers = [[np.asarray(run(feed)[output]) for feed in feeds] for run in runs]
    labels = [[to_labels(answer) for answer in per_build] for per_build in answers]
    pairs = list(itertools.combinations(range(len(runs)), 2))
    wrong = [[int(np.count_nonzero(a != b)) for a, b in zip(labels[i], labels[j], strict=True)] for i, j in pairs]
    sizes = [image.size for image in labels[0]]
    shares = [sum(counts) / sum(sizes) for counts in wrong]
    differences = [
        float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
        for i, j in pairs
        for a, b in zip(answers[i], answers[j], strict=True)
        if a.ndim == 4
    ]
    return RebuildNoise(
        builds=len(runs),
        images=len(feeds),
        pixels=sum(sizes),
        mean_disagreement=sum(shares) / len(shares),
        worst_disagreement=max(shares),
        worst_image=max(count / size for counts in wrong for count, size in zip(counts, sizes, strict=True)),
        identical_pairs=sum(
            all(np.array_equal(a, b) for a, b in zip(answers[i], answers[j], strict=True)) for i, j in pairs
        ),
        largest_difference=max(differences, default=0.0),
    )


def to_labels(answer: Array) -> Array:
    """The labels of an output: itself if it holds labels, else the argmax over axis 1."""
    return np.asarray(answer.argmax(axis=1)) if answer.ndim == 4 else answer
