"""pydensecrf's classes over this core: the same names, argument orders and results.

Two things differ. Q is a plain float32 array (L, N) instead of a buffer object: everything that worked on the buffer
works on it, and `stepInference` still changes it in place. And mistakes that crashed raise `CrfInputError`, which is
a ValueError.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import CrfInputError
from ..checks import FloatArray, as_array, check_float32
from ..model import DenseCRF as _Model
from .constants import (
    CONST_KERNEL,
    DIAG_KERNEL,
    FULL_KERNEL,
    NO_NORMALIZATION,
    NORMALIZE_AFTER,
    NORMALIZE_BEFORE,
    NORMALIZE_SYMMETRIC,
    KernelType,
    NormalizationType,
    check_kernel,
    normalization_name,
)

__all__ = [
    "CONST_KERNEL",
    "DIAG_KERNEL",
    "FULL_KERNEL",
    "NORMALIZE_AFTER",
    "NORMALIZE_BEFORE",
    "NORMALIZE_SYMMETRIC",
    "NO_NORMALIZATION",
    "ConstUnary",
    "DenseCRF",
    "DenseCRF2D",
    "KernelType",
    "LogisticUnary",
    "NormalizationType",
    "Unary",
]


class Unary:
    """What `setUnary` takes."""

    def __init__(self, energies: FloatArray) -> None:
        self.energies = energies


class ConstUnary(Unary):
    """Unary energies (L, N) float32, C-contiguous."""

    def __init__(self, u: Any) -> None:
        super().__init__(_matrix(u, "unary"))


class LogisticUnary(Unary):
    """Unary energies L @ f of logistic weights (L, F) and features (F, N), both float32."""

    def __init__(self, L: Any, f: Any) -> None:  # noqa: N803 (pydensecrf's name)
        weights, features = _matrix(L, "L"), _matrix(f, "f")
        if weights.shape[1] != features.shape[0]:
            raise CrfInputError(f"L is {weights.shape} and f {features.shape}: the columns of L must be the rows of f")
        super().__init__(weights @ features)


class DenseCRF:
    """A dense CRF over `nvar` points without a grid."""

    def __init__(self, nvar: int, nlabels: int) -> None:
        self._model = _Model(nvar, nlabels)
        self._has_unary = False

    # ---- energies ----------------------------------------------------------------------------------------------------

    def setUnaryEnergy(self, u: Any, f: Any = None) -> None:  # noqa: N802
        """Set the unary energies u (L, N) float32, or the logistic ones u @ f."""
        self.setUnary(ConstUnary(u) if f is None else LogisticUnary(u, f))

    def setUnary(self, u: Unary) -> None:  # noqa: N802
        """Set a `ConstUnary` or `LogisticUnary`."""
        if not isinstance(u, Unary):
            raise CrfInputError("setUnary takes ConstUnary(U) or LogisticUnary(L, f); for an array use setUnaryEnergy")
        expected = (self._model.labels, self._model.points)
        if u.energies.shape != expected:
            hint = ""
            if u.energies.shape == expected[::-1]:
                hint = ": it is points first; transpose it (U.T.copy()), do not reshape it"
            raise CrfInputError(f"unary energy must be (labels, points) = {expected}, got {u.energies.shape}{hint}")
        self._model.set_unary(u.energies.reshape(self._model.labels, *self._model.shape))
        self._has_unary = True

    def addPairwiseEnergy(  # noqa: N802
        self, features: Any, compat: Any, kernel: Any = DIAG_KERNEL, normalization: Any = NORMALIZE_SYMMETRIC
    ) -> None:
        """Add a term over features (d, N) float32, already divided by their sigmas."""
        check_kernel(kernel)
        self._model.add_features(features, compat, normalization=normalization_name(normalization))

    # ---- inference ---------------------------------------------------------------------------------------------------

    def inference(self, niter: int) -> FloatArray:
        """Q (L, N) float32 after `niter` updates."""
        self._ensure_unary()
        return self._model.inference(niter).reshape(self._model.labels, -1)

    def startInference(self) -> tuple[FloatArray, FloatArray, FloatArray]:  # noqa: N802
        """(Q, tmp1, tmp2) for `stepInference`; the last two are only handed back."""
        empty = np.empty((self._model.labels, 0), np.float32)
        if not self._has_unary:
            return np.zeros((self._model.labels, self._model.points), np.float32), empty, empty.copy()
        return self._model.start().reshape(self._model.labels, -1), empty, empty.copy()

    def stepInference(self, Q: FloatArray, tmp1: Any, tmp2: Any) -> None:  # noqa: N802, N803
        """One update of Q, in place."""
        self._load(Q)
        Q[...] = self._model.step().reshape(self._model.labels, -1)

    def klDivergence(self, Q: FloatArray) -> float:  # noqa: N802, N803
        """The relative divergence of Q, for watching convergence."""
        self._load(Q)
        return self._model.kl_divergence()

    def _load(self, q: FloatArray) -> None:
        self._ensure_unary()
        array = as_array(q, "Q")
        if array.shape != (self._model.labels, self._model.points):
            raise CrfInputError(f"Q must be the array of startInference or inference, got shape {array.shape}")
        self._model.set_marginals(array.reshape(self._model.labels, *self._model.shape))

    def _ensure_unary(self) -> None:
        if not self._has_unary:
            self._model.set_unary(np.zeros((self._model.labels, *self._model.shape), np.float32))
            self._has_unary = True


class DenseCRF2D(DenseCRF):
    """A dense CRF over an image of `w` x `h` pixels: width first."""

    def __init__(self, w: int, h: int, nlabels: int) -> None:
        self._model = _Model((h, w), nlabels)
        self._has_unary = False

    def addPairwiseGaussian(  # noqa: N802
        self, sxy: Any, compat: Any, kernel: Any = DIAG_KERNEL, normalization: Any = NORMALIZE_SYMMETRIC
    ) -> None:
        """Add a term of position; sxy in pixels, a number or (x, y)."""
        check_kernel(kernel)
        self._model.add_gaussian(sxy, compat, normalization=normalization_name(normalization))

    def addPairwiseBilateral(  # noqa: N802
        self,
        sxy: Any,
        srgb: Any,
        rgbim: Any,
        compat: Any,
        kernel: Any = DIAG_KERNEL,
        normalization: Any = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a term of position and colour; rgbim is h x w x 3 uint8, C-contiguous."""
        check_kernel(kernel)
        image = as_array(rgbim, "rgbim")
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise CrfInputError(
                f"addPairwiseBilateral takes h x w x 3 uint8 images, got {image.shape} {image.dtype}: for others use "
                "utils.create_pairwise_bilateral and addPairwiseEnergy"
            )
        self._model.add_bilateral(sxy, srgb, image, compat, normalization=normalization_name(normalization))


def _matrix(value: Any, what: str) -> FloatArray:
    array = as_array(value, what)
    check_float32(array, what)
    if array.ndim != 2:
        raise CrfInputError(f"{what} must have two axes, got shape {array.shape}: reshape it to (labels, -1)")
    if not array.flags.c_contiguous:
        raise CrfInputError(f"{what} is not C-contiguous: pass numpy.ascontiguousarray({what})")
    return array
