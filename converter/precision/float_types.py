"""Narrow floating-point types: limits, rounding, and what weights lose in them.

| type | bits: sign, exponent, fraction | largest | smallest normal | smallest subnormal |
|---|---|---|---|---|
| float16 | 1, 5, 10 | 65 504 | 6.1e-5 | 6.0e-8 |
| bfloat16 | 1, 8, 7 | 3.4e38 | 1.2e-38 | 9.2e-41 |
| float8 e4m3fn | 1, 4, 3 | 448 | 1.6e-2 | 2.0e-3 |

Rounding is to nearest, ties to even, as in ONNX's Cast and on GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from .images import Array


@dataclass(frozen=True)
class FloatType:
    """A floating-point type narrower than float32."""

    name: str  # ONNX's name in lower case
    dtype: np.dtype[Any]  # NumPy dtype (from ml_dtypes if NumPy has none)
    opset: int  # first opset in which Conv and the layers around it accept the type
    largest: float  # largest finite value
    smallest_normal: float  # smallest value with all fraction bits

    def round(self, array: Array) -> NDArray[np.float32]:
        """Round to the type and return float32; values beyond the largest become infinite."""
        with np.errstate(over="ignore"):
            return np.asarray(array, np.float32).astype(self.dtype).astype(np.float32)


def _describe(name: str, dtype: Any, opset: int) -> FloatType:
    limits = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    return FloatType(name, np.dtype(dtype), opset, float(limits.max), float(limits.smallest_normal))


FLOAT16 = _describe("float16", np.float16, 17)
BFLOAT16 = _describe("bfloat16", ml_dtypes.bfloat16, 22)
FLOAT8 = _describe("float8e4m3fn", ml_dtypes.float8_e4m3fn, 19)


@dataclass(frozen=True)
class WeightLoss:
    """Losses of weights in a narrow type, as the manifest records them; shares are of the weights other than 0."""

    nonzero_weights: int  # number of weights other than 0
    largest: float  # largest magnitude
    overflowing: int  # number of weights beyond the type's largest value
    flushed_share: float  # share of the weights that become 0
    subnormal_share: float  # share of other weights below the smallest normal value, which lose fraction bits


def measure_loss(weights: Iterable[Array], kind: FloatType) -> WeightLoss:
    """Measure the losses of float32 weights of any shapes in a type."""
    count = overflowing = flushed = subnormal = 0
    largest = 0.0
    for array in weights:
        magnitude = np.abs(np.asarray(array, np.float32).ravel())
        magnitude = magnitude[magnitude > 0]
        count += magnitude.size
        largest = max(largest, float(magnitude.max(initial=0)))
        overflowing += int(np.count_nonzero(magnitude > kind.largest))
        zeros = int(np.count_nonzero(kind.round(magnitude) == 0))
        flushed += zeros
        subnormal += int(np.count_nonzero(magnitude < kind.smallest_normal)) - zeros
    return WeightLoss(count, largest, overflowing, flushed / max(count, 1), subnormal / max(count, 1))
