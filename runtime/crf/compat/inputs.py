"""Arguments as pydensecrf takes them: cut off numbers, buffers, infinite energies, mirrored axes.

Arguments on which pydensecrf crashes, reads beyond an array or returns NaN raise `CrfInputError` instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Number
from typing import Any

import numpy as np
import numpy.typing as npt

from ....errors import CrfInputError
from ..checks import FloatArray, as_array, check_float32

#: Energies above a pixel's smallest one, beyond which a label's marginal is 0 whatever the terms add (below the energy
#: of the core's padding).
_CERTAIN = np.float32(1e28)


def cut_off(value: Any, name: str) -> int:
    """Return a number as pydensecrf's C integers take it: without its fraction."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return int(value)
    except (OverflowError, TypeError, ValueError):
        raise CrfInputError(f"{name} must be a number, got {value!r}") from None


def as_buffer(value: Any, what: str) -> npt.NDArray[Any]:
    """Return a view of an array, or of any other object with a buffer, such as a memoryview."""
    if value is None or isinstance(value, np.ndarray) or hasattr(value, "__dlpack__"):
        return as_array(value, what)
    try:
        return np.asarray(memoryview(value))
    except TypeError:
        return as_array(value, what)


def as_matrix(value: Any, what: str) -> FloatArray:
    """Return a view (rows, columns) of float32, any strides."""
    array = as_buffer(value, what)
    check_float32(array, what)
    if array.ndim != 2:
        raise CrfInputError(f"{what} must have two axes, got shape {array.shape}: reshape it to (labels, -1)")
    return array


def bound_energies(energies: FloatArray) -> FloatArray:
    """Replace energies (L, N) too large for the core by ones with the same marginals, and divergence if one is small.

    Raises:
        CrfInputError: NaN, or a point without a finite smallest energy: pydensecrf then returns NaN for all points.
    """
    lowest = energies.min(axis=0)
    if not np.isfinite(lowest).all():
        place = int(np.flatnonzero(~np.isfinite(lowest))[0])
        raise CrfInputError(
            f"energies of point {place} are {energies[:, place].tolist()[:8]}: each point needs a finite smallest "
            "energy, and NaN has no meaning; clip the probabilities before the logarithm"
        )
    large = np.flatnonzero((np.abs(energies) > _CERTAIN).any(axis=0))
    bounded, offset = np.array(energies), np.where(np.abs(lowest) > _CERTAIN, lowest, 0)[large]
    with np.errstate(over="ignore"):
        bounded[:, large] = np.minimum(energies[:, large] - offset, _CERTAIN)
    return bounded


def check_compatibility(value: Any) -> Any:
    """Return a compatibility as the model takes it: a float, or a float32 vector or matrix."""
    if isinstance(value, Number):
        try:
            return float(value)  # type: ignore[arg-type]
        except (OverflowError, TypeError):
            raise CrfInputError(f"compat must be a finite real number, got {value!r}") from None
    array = as_buffer(value, "compat")
    check_float32(array, "compat")
    if array.ndim not in (1, 2):
        raise CrfInputError(f"compat must be a number, (labels,) or (labels, labels), got shape {array.shape}")
    return array


def pick_sigmas(value: Any, count: int, name: str) -> list[float]:
    """Return the first `count` sigmas of a sequence, or one number for all; 0 and NaN are refused."""
    values: Any = [value] * count if isinstance(value, Number) else value
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        sigmas = [float(values[axis]) for axis in range(count)]
    except (IndexError, KeyError, OverflowError, TypeError, ValueError):
        raise CrfInputError(f"{name} must be a number or {count} numbers, got {value!r}") from None
    if any(math.isnan(sigma) or abs(sigma) < np.finfo(np.float32).smallest_subnormal for sigma in sigmas):
        raise CrfInputError(f"{name} must not be 0 or NaN, got {value!r}")
    return sigmas


def are_plain(sigmas: Sequence[float]) -> bool:
    """Whether the core takes these sigmas: positive and finite float32."""
    return all(0.0 < sigma <= np.finfo(np.float32).max for sigma in sigmas)


def divide_positions(shape: tuple[int, int], sxy: Sequence[float], image: Any = None, srgb: Any = ()) -> FloatArray:
    """Features (2 or 5, N) of a grid (H, W), for sigmas that mirror an axis (negative) or ignore it (infinite)."""
    with np.errstate(over="ignore"):
        sigmas = np.array([*sxy, *srgb], np.float32)
    rows, columns = np.indices(shape, np.float32)
    channels = [] if image is None else [image[..., channel].astype(np.float32) for channel in range(3)]
    features = np.stack([columns, rows, *channels]).reshape(len(sigmas), -1)
    return np.asarray(features / sigmas[:, None], np.float32)
