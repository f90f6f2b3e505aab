"""The narrow floating-point types of a variant: their limits, how numbers round to them, what weights lose in them.

| type | bits: sign, exponent, fraction | largest | smallest normal | smallest of all |
|---|---|---|---|---|
| float16 | 1, 5, 10 | 65 504 | 6.1e-5 | 6.0e-8 |
| bfloat16 | 1, 8, 7 | 3.4e38 | 1.2e-38 | 9.2e-41 |
| float8 e4m3fn | 1, 4, 3 | 448 | 1.6e-2 | 2.0e-3 |

Rounding is to nearest, ties to even, in all of them, as ONNX's Cast and the GPUs do it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class FloatType:
    """A floating-point type narrower than float32.

    Attributes:
        name: as ONNX spells it in lower case.
        dtype: its numpy dtype (from ml_dtypes where numpy has none).
        onnx_type: its number in ONNX's TensorProto.DataType.
        largest: its largest finite value.
        smallest_normal: below it, digits are lost one by one.
        opset: the first opset in which Conv and the layers around it take it.
    """

    name: str
    dtype: np.dtype[Any]
    onnx_type: int
    largest: float
    smallest_normal: float
    opset: int

    def round(self, array: Array) -> NDArray[np.float32]:
        """The values as this type stores them, in float32 again; beyond its largest value they become infinite."""
        with np.errstate(over="ignore"):
            return np.asarray(array, np.float32).astype(self.dtype).astype(np.float32)


def _describe(name: str, dtype: Any, onnx_type: int, opset: int) -> FloatType:
    limits = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    return FloatType(
        name, np.dtype(dtype), onnx_type, float(limits.max), float(limits.smallest_normal), opset
    )  # fmt: skip


FLOAT16 = _describe("float16", np.float16, 10, 17)
BFLOAT16 = _describe("bfloat16", ml_dtypes.bfloat16, 16, 22)
FLOAT8 = _describe("float8e4m3fn", ml_dtypes.float8_e4m3fn, 17, 19)


@dataclass(frozen=True)
class WeightLoss:
    """What a set of weights loses in a narrower type; shares are of the weights that are not 0.

    Attributes:
        count: how many weights are not 0.
        largest: the largest magnitude.
        overflowing: how many are beyond the type's largest value.
        flushed: how many become 0.
        subnormal: how many fall below the smallest normal value and keep fewer digits, the flushed ones not counted.
    """

    count: int
    largest: float
    overflowing: int
    flushed: int
    subnormal: int

    def __add__(self, other: WeightLoss) -> WeightLoss:
        """Both sets together."""
        return WeightLoss(
            self.count + other.count,
            max(self.largest, other.largest),
            self.overflowing + other.overflowing,
            self.flushed + other.flushed,
            self.subnormal + other.subnormal,
        )

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        count = max(self.count, 1)
        return {
            "nonzero_weights": self.count,
            "largest": self.largest,
            "overflowing": self.overflowing,
            "flushed_share": self.flushed / count,
            "subnormal_share": self.subnormal / count,
        }


NO_LOSS = WeightLoss(0, 0.0, 0, 0, 0)


def measure_loss(weights: Array, kind: FloatType) -> WeightLoss:
    """What these float32 weights, of any shape, lose in a type."""
    magnitude = np.abs(np.asarray(weights, np.float32).ravel())
    magnitude = magnitude[magnitude > 0]
    if not magnitude.size:
        return NO_LOSS
    flushed = int(np.count_nonzero(kind.round(magnitude) == 0))
    small = int(np.count_nonzero(magnitude < kind.smallest_normal))
    return WeightLoss(
        int(magnitude.size),
        float(magnitude.max()),
        int(np.count_nonzero(magnitude > kind.largest)),
        flushed,
        small - flushed,
    )
