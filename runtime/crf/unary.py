"""Checks a unary and passes it to the core: turned into energies, in parallel, without a full copy.

The energy of a probability is NumPy's own float32 -log(clip(p)), the array that the reference was given: after ten
iterations its last bit matters at an undecided pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...errors import CrfInputError
from . import _lattice
from .checks import (
    as_array,
    check_coarse_scores,
    check_energy_range,
    check_probability_range,
    check_probability_sums,
    check_values,
    find_coarse_grid,
    warn_of_probabilities,
)
from .terms import Grid

if TYPE_CHECKING:
    from .gpu.engine import DeviceEngine, Kind

#: (L,): the smallest distance of each label's energy above a pixel's best, over all pixels.
Gaps = npt.NDArray[np.float32]

# UnaryKind in kernels.h
_ENERGIES, _SCORES, _LOGARITHMS = 0, 1, 2

_BAND_VALUES = 1 << 18  # floats per band: fits a second-level cache


class Unary:
    """The unary of one model."""

    def __init__(
        self, field: Any, engine: DeviceEngine | None, labels: int, shape: tuple[int, ...], grid: Grid
    ) -> None:
        """Make it without values; `field` is a `MeanField`, or a `DeviceMeanField` with its engine."""
        self._field, self._engine, self._labels, self._shape, self._grid = field, engine, labels, shape, grid
        self._gaps: Gaps | None = None

    def prepare(self, what: Kind, value: Any, clip: float, padded: Any = None) -> Callable[[], None]:
        """Check an array, drop the unary before it, and return the function that sets it for a core with all labels.

        Args:
            what: the kind of the values.
            value: (L, *shape) float32, any strides, on a GPU also in its memory; or scores (L, h, w) of a coarser grid.
            clip: lowest probability.
            padded: the (height, width) that scores of a coarser grid cover; None for the image's.
        """
        feed = self._prepare(what, value, clip, padded)
        self._gaps = None

        def set_values() -> None:
            self._gaps = feed()

        return set_values

    def require(self, call: str) -> Gaps:
        """The gaps; raises CrfInputError without a unary, which `call` needs."""
        if self._gaps is None:
            raise CrfInputError(f"{call} needs a unary: call set_probabilities, set_scores or set_unary first")
        return self._gaps

    def _prepare(self, what: Kind, value: Any, clip: float, padded: Any) -> Callable[[], Gaps]:
        field, engine, shape = self._field, self._engine, self._shape
        if engine is not None:
            on_device = engine.read(value, what)
            engine.returns_device_arrays = on_device is not None  # results go where the unary was
            if on_device is not None:
                covered = find_coarse_grid(on_device, shape, padded) if what == "scores" else None
                return lambda: engine.feed(on_device, what, shape, covered, clip)
        array = as_array(value, what)
        grid = find_coarse_grid(array, shape, padded) if what == "scores" else None
        if grid is not None:
            check_coarse_scores(array, self._labels, grid)
            return lambda: feed_coarse_scores(field, array, shape[1], grid, clip)
        flat = check_values(array, what, self._labels, shape).reshape(self._labels, -1)  # (L, N)
        if what == "energies":
            return lambda: feed_energies(field, flat)
        if what == "scores":
            return lambda: feed_scores(field, flat, clip)
        return lambda: feed_probabilities(field, flat, self._grid.order.band, clip, self._grid.threads)


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
    return _check_scores(field.set_unary(scores, 0, _SCORES, -math.log(clip)))


def feed_coarse_scores(
    field: _lattice.MeanField, scores: npt.NDArray[Any], width: int, padded: tuple[int, int], clip: float
) -> Gaps:
    """Set scores (L, h, w) float16 or float32 of a coarser grid, upsampled with aligned corners to `padded`.

    The image, of this width, is the upper left part of that.
    """
    rows = np.ascontiguousarray(scores.transpose(1, 2, 0), dtype=np.float32)  # (h, w, L)
    return _check_scores(field.set_coarse_scores(rows, width, *padded, -math.log(clip)))


def _check_scores(result: tuple[int, float, float, list[float]]) -> Gaps:
    unusable, _, _, gaps = result
    if unusable:
        raise CrfInputError("scores hold NaN or infinite values: look for an overflow in the network")
    return np.array(gaps, np.float32)


def feed_probabilities(
    field: _lattice.MeanField, probabilities: npt.NDArray[Any], band: int, clip: float, threads: int
) -> Gaps:
    """Set probabilities.

    Args:
        field: the core.
        probabilities: (L, N) float32, any strides.
        band: the core reads points in multiples of this.
        clip: lowest probability.
        threads: number of bands at a time.
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
    check_probability_sums(probabilities)
    return np.asarray(np.min(np.array(gaps, np.float32), axis=0))
