"""pydensecrf's helpers: unaries from labels and probabilities, features of positions and colors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Number
from typing import Any

import numpy as np
import numpy.typing as npt

from ....errors import CrfInputError
from ..checks import MAX_LABELS, FloatArray, check_integer, warn


def unary_from_labels(labels: Any, n_labels: int, gt_prob: float, zero_unsure: bool = True) -> FloatArray:
    """Return the unary energies of a hand-made labeling.

    Args:
        labels: integers of any shape. With `zero_unsure`, 0 means unknown and 1 to n_labels are the labels; without,
            the labels are 0 to n_labels - 1. Negative ones count from the end, as NumPy's indices, and warn.
        n_labels: number of labels, without "unknown".
        gt_prob: probability that a given label is right, between 0 and 1.
        zero_unsure: whether 0 means unknown.

    Returns:
        (n_labels, N) float32: -log(gt_prob) for the given label, -log((1 - gt_prob) / (n_labels - 1)) for the others,
        -log(1 / n_labels) for all labels of an unknown pixel.

    Raises:
        CrfInputError: a label outside of the range, or a probability outside of (0, 1).
    """
    if not 0.0 < gt_prob < 1.0:
        raise CrfInputError(f"gt_prob must lie between 0 and 1, got {gt_prob}")
    n_labels = check_integer(n_labels, "n_labels", 1, MAX_LABELS)  # NumPy's small integers would wrap around
    given = np.asarray(labels)
    if given.dtype.kind not in "iub":
        raise CrfInputError(f"labels must be integers, got {given.dtype}")
    flat = given.reshape(-1).astype(np.int64)
    first = 1 if zero_unsure else 0
    lowest = int(flat.min(initial=0))
    if not (lowest >= first - n_labels and flat.max(initial=0) < n_labels + first):
        raise CrfInputError(
            f"labels lie in [{flat.min()}, {flat.max()}], expected [0, {n_labels + first - 1}] with zero_unsure="
            f"{zero_unsure}: is n_labels right, and does 0 mean unknown?"
        )
    if lowest < 0:
        warn(f"label {lowest} is taken as label {lowest + n_labels}: labels to ignore need zero_unsure=True and 0")
    if zero_unsure and flat.size and lowest == 0 == flat.min() and flat.max() < n_labels:
        warn(
            f"label 0 is taken as unknown and label {n_labels} does not occur: if the labels are 0 to {n_labels - 1}, "
            "pass zero_unsure=False"
        )
    others = (1.0 - gt_prob) / (n_labels - 1) if n_labels > 1 else 1.0
    energies = np.full((n_labels, flat.size), -np.log(others), np.float32)
    energies[flat - first, np.arange(flat.size)] = -np.log(gt_prob)
    if zero_unsure:
        energies[:, flat == 0] = -np.log(1.0 / n_labels)
    return energies


def unary_from_softmax(sm: Any, scale: float | None = None, clip: float | None = 1e-5) -> FloatArray:
    """Return the unary energies -log(p) of probabilities.

    Args:
        sm: (L, ...) probabilities, labels first.
        scale: confidence in them: mixes with the uniform distribution, scale p + (1 - scale) / L.
        clip: lowest probability, against infinite energies; None does not clip.

    Returns:
        (L, N) float32, C-contiguous.

    Raises:
        CrfInputError: no axis of labels, or a scale outside of (0, 1].
    """
    probabilities = np.asarray(sm)
    if probabilities.ndim == 0:
        raise CrfInputError("probabilities must be (labels, ...), got a single number")
    count = probabilities.shape[0]
    if scale is not None:
        if not 0.0 < scale <= 1.0:
            raise CrfInputError(f"scale must lie in (0, 1], got {scale}")
        probabilities = scale * probabilities + (1.0 - scale) * np.full(1, 1.0 / count)  # the sum is float64
    if clip is not None:
        probabilities = np.clip(probabilities, clip, 1.0)
    return np.ascontiguousarray(-np.log(probabilities).reshape(count, -1).astype(np.float32))


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> FloatArray:
    """Return the features of a position term: (len(shape), N) float32, the slowest axis first (y before x)."""
    positions = np.indices(tuple(shape), dtype=np.float32)
    if len(sdims) != len(positions):
        raise CrfInputError(f"sdims has {len(sdims)} values for {len(positions)} axes")
    _divide(positions, sdims, "sdims")
    return positions.reshape(len(positions), -1)


def create_pairwise_bilateral(
    sdims: Sequence[float], schan: float | Sequence[float], img: npt.NDArray[Any], chdim: int = -1
) -> FloatArray:
    """Return the features of a position and color term: (axes + channels, N) float32.

    Args:
        sdims: a sigma for each spatial axis of `img`, in the order of its axes (y before x).
        schan: a sigma for each channel, or one for all.
        img: the data, of any type and any number of spatial axes.
        chdim: the axis of the channels; -1 if there is none and every value is one channel.

    Axes and channels without a sigma are left as they are, and warn.
    """
    image = np.asarray(img)
    channels = (image[None] if chdim == -1 else np.moveaxis(image, chdim, 0)).astype(np.float32)
    positions = np.indices(channels.shape[1:], dtype=np.float32)
    _divide(channels, [schan] * len(channels) if isinstance(schan, Number) else schan, "schan")
    _divide(positions, sdims, "sdims")
    features = np.concatenate([positions, channels])
    return np.ascontiguousarray(features.reshape(len(features), -1))


def _divide(features: FloatArray, sigmas: Any, name: str) -> None:
    """Divide each row by its sigma, in the type that NumPy chooses for the two."""
    if len(sigmas) > len(features):
        raise CrfInputError(f"{name} has {len(sigmas)} values for {len(features)} axes")
    if len(sigmas) < len(features):
        warn(f"{name} has {len(sigmas)} values for {len(features)} axes: the last ones are not divided")
    for row, sigma in zip(features, sigmas, strict=False):
        if not abs(sigma) > 0.0:  # also where it is NaN
            raise CrfInputError(f"{name} must not be 0 or NaN, got {sigma}")
        np.divide(row, sigma, out=row, casting="same_kind")


def compute_unary(labels: Any, M: int, GT_PROB: float = 0.5) -> FloatArray:  # noqa: N803
    """Old name of `unary_from_labels` with 0 as unknown."""
    warnings.warn("compute_unary is an old name: use unary_from_labels", DeprecationWarning, stacklevel=2)
    return unary_from_labels(labels, M, GT_PROB)


def softmax_to_unary(sm: Any, GT_PROB: float = 1.0) -> FloatArray:  # noqa: N803
    """Old name of `unary_from_softmax`."""
    warnings.warn("softmax_to_unary is an old name: use unary_from_softmax", DeprecationWarning, stacklevel=2)
    return unary_from_softmax(sm, None if GT_PROB == 1.0 else GT_PROB, clip=None)
