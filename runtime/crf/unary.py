"""Feeds the unary to the core: checked, turned to energies, in parallel, without a full copy.

The energy of a probability is numpy's own float32 -log(clip(p)): the reference was given that array, and an undecided
pixel feels its last bit after ten iterations.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CrfInputError
from . import _lattice
from .checks import check_energy_range, check_probability_range, warn_of_probabilities

#: (L,) for each label, by how much its energy stays above the best of a pixel at least, over all pixels.
Gaps = npt.NDArray[np.float32]

# What the core reads: see UnaryKind in kernels.h.
_ENERGIES, _SCORES, _LOGARITHMS = 0, 1, 2

_BAND_VALUES = 1 << 18  # floats of one band: what stays in a second-level cache


def feed_energies(field: _lattice.MeanField, energies: npt.NDArray[Any]) -> Gaps:
    """Set energies (L, N) float32, any strides."""
    unusable, lowest, highest, gaps = field.set_unary(energies, 0, _ENERGIES, math.inf)
    if unusable:
        raise CrfInputError("energies hold NaN or infinite values: clip the probabilities before the logarithm")
    check_energy_range(lowest, highest)
    warn_of_probabilities(energies, lowest, highest)
    return np.array(gaps, np.float32)


def feed_scores(field: _lattice.MeanField, scores: npt.NDArray[Any], clip: float) -> Gaps:
    """Set scores (L, N) float32 before the softmax, any strides."""
    unusable, _, _, gaps = field.set_unary(scores, 0, _SCORES, -math.log(clip))
    _refuse_unusable(unusable)
    return np.array(gaps, np.float32)


def feed_coarse_scores(
    field: _lattice.MeanField, scores: npt.NDArray[Any], shape: tuple[int, int], clip: float
) -> Gaps:
    """Set scores (L, h, w) float16 or float32 of a coarser grid, upsampled with aligned corners to `shape`."""
    rows = np.ascontiguousarray(scores.transpose(1, 2, 0), dtype=np.float32)  # (h, w, L)
    unusable, _, _, gaps = field.set_coarse_scores(rows, shape[0], shape[1], -math.log(clip))
    _refuse_unusable(unusable)
    return np.array(gaps, np.float32)


def _refuse_unusable(count: int) -> None:
    if count:
        raise CrfInputError("scores hold NaN or infinite values: look for an overflow in the network")


def feed_probabilities(
    field: _lattice.MeanField, probabilities: npt.NDArray[Any], band: int, clip: float, threads: int
) -> Gaps:
    """Set probabilities.

    Args:
        field: the core.
        probabilities: (L, N) float32, any strides.
        band: the core takes points in multiples of this.
        clip: lowest probability.
        threads: how many bands at a time.
    """
    labels, points = probabilities.shape
    step = band * max(1, _BAND_VALUES // (labels * band))
    lowest = np.float32(clip)

    def feed(first: int) -> tuple[float, float, list[float]]:
        values = probabilities[:, first : first + step]
        logarithms = np.maximum(values, lowest)
        np.log(logarithms, out=logarithms)
        unusable, _, highest, gaps = field.set_unary(logarithms, first, _LOGARITHMS, math.inf)
        return float(values.min()), math.nan if unusable else math.exp(highest), gaps

    field.allocate_unary()
    firsts = range(0, points, step)
    workers = min(threads, len(firsts))
    if workers == 1:
        fed = [feed(first) for first in firsts]
    else:
        with ThreadPoolExecutor(workers) as pool:
            fed = list(pool.map(feed, firsts))
    lows, highs, gaps = zip(*fed, strict=True)
    check_probability_range(float(np.min(lows)), float(np.max(highs)))  # one NaN makes the extremes NaN
    return np.asarray(np.min(np.array(gaps, np.float32), axis=0))
