"""The CRF at a fraction of the resolution: a shortcut that changes labels at thin borders (see docs/crf.md).

Image and probabilities are averaged over blocks, and the sigmas of position divided by the block's side. The CRF's
change to each label's logarithm is interpolated between block centers and added to the full-size unary, so fine detail
of the network survives where the CRF changes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...bundle.crf_parameters import CrfParameters
from .checks import FloatArray

_FLOOR = 1e-10  # lowest marginal before a logarithm


def average_blocks(values: npt.NDArray[Any], factor: int) -> FloatArray:
    """(..., H, W) -> (..., ceil(H / factor), ceil(W / factor)), border blocks padded by repetition."""
    height, width = values.shape[-2:]
    pad = [(0, 0)] * (values.ndim - 2) + [(0, -height % factor), (0, -width % factor)]
    whole = np.pad(values, pad, mode="edge").astype(np.float32)
    blocks = whole.reshape(*values.shape[:-2], whole.shape[-2] // factor, factor, whole.shape[-1] // factor, factor)
    return np.asarray(blocks.mean(axis=(-3, -1)), np.float32)


def average_pixels(image: npt.NDArray[Any], factor: int) -> FloatArray:
    """As `average_blocks`, of an image (H, W, C); C-contiguous."""
    return np.ascontiguousarray(np.moveaxis(average_blocks(np.moveaxis(image, -1, 0), factor), 0, -1))


def shrink_parameters(parameters: CrfParameters, factor: int) -> CrfParameters:
    """Return the same kernels in units of blocks."""

    def shrink(sigma: Any) -> Any:
        return sigma / factor if np.ndim(sigma) == 0 else tuple(s / factor for s in sigma)

    return replace(
        parameters,
        gaussian=tuple(replace(term, sxy=shrink(term.sxy)) for term in parameters.gaussian),
        bilateral=tuple(replace(term, sxy=shrink(term.sxy)) for term in parameters.bilateral),
    )


def apply_change(before: FloatArray, small_before: FloatArray, small_after: FloatArray, factor: int) -> FloatArray:
    """Apply the change from small_before to small_after (L, h, w) to `before` (L, H, W): marginals (L, H, W)."""
    change = np.log(np.maximum(small_after, _FLOOR)) - np.log(np.maximum(small_before, _FLOOR))
    height, width = before.shape[1:]
    scores = np.log(np.maximum(before, _FLOOR)) + _interpolate(change, height, width, factor)
    scores -= scores.max(axis=0)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=0)
    return np.asarray(scores, np.float32)


def _interpolate(values: FloatArray, height: int, width: int, factor: int) -> FloatArray:
    for axis, extent in ((1, height), (2, width)):
        last = values.shape[axis] - 1
        places = np.clip((np.arange(extent, dtype=np.float32) + 0.5) / factor - 0.5, 0, last)
        low = places.astype(np.intp)
        high = np.minimum(low + 1, last)
        share = (places - low).reshape([-1 if a == axis else 1 for a in range(3)])
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    return values
