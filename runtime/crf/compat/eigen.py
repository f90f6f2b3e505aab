"""pydensecrf.eigen: float32 vectors and matrices, here NumPy arrays, so that nothing is converted."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....errors import CrfInputError
from ..checks import FloatArray, check_float32
from .inputs import as_buffer, as_matrix

__all__ = ["MatrixXf", "VectorXf", "matrixXf", "vectorXf"]


class VectorXf(np.ndarray[Any, np.dtype[np.float32]]):
    """An empty vector; `vectorXf` makes others."""

    def __new__(cls) -> VectorXf:
        """Make an array of shape (0,)."""
        return np.zeros(0, np.float32).view(cls)


class MatrixXf(np.ndarray[Any, np.dtype[np.float32]]):
    """An empty matrix, such as the two that `stepInference` ignores; `matrixXf` makes others."""

    def __new__(cls) -> MatrixXf:
        """Make an array of shape (0, 0)."""
        return np.zeros((0, 0), np.float32).view(cls)


def vectorXf(arr: Any) -> FloatArray:  # noqa: N802
    """Copy a float32 vector."""
    if arr is None:
        raise TypeError("arr must not be None")
    array = as_buffer(arr, "arr")
    check_float32(array, "arr")
    if array.ndim != 1:
        raise CrfInputError(f"arr must have one axis, got shape {array.shape}")
    return np.array(array).view(VectorXf)


def matrixXf(arr: Any) -> FloatArray:  # noqa: N802
    """Copy a float32 matrix."""
    if arr is None:
        raise TypeError("arr must not be None")
    return np.array(as_matrix(arr, "arr")).view(MatrixXf)
