"""Measures how far rebuilds of one graph differ: a builder picks kernels by timing them, so builds differ in bits.

The measure is the share of pixels that two builds label differently, over all pairs of N builds. An accuracy difference
below it has no meaning.
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
    """Differences between builds of one graph.

    Attributes:
        builds, images, pixels: number of builds, of inputs, and of labels compared in each pair of builds.
        mean_disagreement, worst_disagreement: share of labels that differ, mean over all pairs and of the worst pair.
        identical_pairs: number of pairs of builds with bit-equal outputs.
    """

    builds: int
    images: int
    pixels: int
    mean_disagreement: float
    worst_disagreement: float
    identical_pairs: int


def measure_rebuild_noise(runs: Sequence[Run], feeds: Sequence[Mapping[str, Array]], output: str) -> RebuildNoise:
    """Run every build on every input and compare the labels of each pair of builds.

    The output holds labels (N x H x W integers), or scores (N x L x H x W), whose argmax is compared. InputError is
    raised for fewer than two builds or no input.
    """
    if len(runs) < 2 or not feeds:
        raise InputError(f"{len(runs)} builds on {len(feeds)} inputs cannot be compared: give --repeats 2 or more")
    answers = [[np.asarray(run(feed)[output]) for feed in feeds] for run in runs]
    labels = [[answer.argmax(axis=1) if answer.ndim == 4 else answer for answer in build] for build in answers]
    pixels = sum(image.size for image in labels[0])
    pairs = list(itertools.combinations(range(len(runs)), 2))
    shares = [
        sum(int(np.count_nonzero(a != b)) for a, b in zip(labels[i], labels[j], strict=True)) / pixels for i, j in pairs
    ]
    return RebuildNoise(
        builds=len(runs),
        images=len(feeds),
        pixels=pixels,
        mean_disagreement=sum(shares) / len(shares),
        worst_disagreement=max(shares),
        identical_pairs=sum(all(map(np.array_equal, answers[i], answers[j])) for i, j in pairs),
    )
