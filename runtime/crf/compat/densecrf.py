"""pydensecrf's classes, enumerations and constants over this core: the same names, argument orders and results.

Two differences: Q is a plain float32 array (L, N) instead of a buffer object, with all the operations of the buffer
(`stepInference` still changes it in place); and arguments on which pydensecrf crashes, reads beyond an array or returns
NaN raise `CrfInputError`, a ValueError. See docs/crf.md for what is accepted beyond the documented types.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import numpy as np

from ....bundle.crf_parameters import Normalization
from ....errors import CrfInputError
from ..checks import FloatArray, as_array, check_image
from ..model import DenseCRF as _Model
from . import eigen
from .inputs import (
    are_plain,
    as_buffer,
    as_matrix,
    bound_energies,
    check_compatibility,
    cut_off,
    divide_positions,
    pick_sigmas,
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
    "eigen",
]


class KernelType(IntEnum):
    """The kernel parameters that training could change; at inference all three give the same."""

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


class NormalizationType(IntEnum):
    """The normalization of a filter."""

    NO_NORMALIZATION = 0
    NORMALIZE_BEFORE = 1
    NORMALIZE_AFTER = 2
    NORMALIZE_SYMMETRIC = 3


CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL = KernelType
NO_NORMALIZATION, NORMALIZE_BEFORE, NORMALIZE_AFTER, NORMALIZE_SYMMETRIC = NormalizationType

_NAMES: tuple[Normalization, ...] = ("none", "before", "after", "symmetric")


class Unary:
    """An argument of `setUnary`."""

    def __init__(self, energies: FloatArray) -> None:
        self.energies = energies


class ConstUnary(Unary):
    """Unary energies (L, N) float32; a label may have an infinite one where another label's is finite."""

    def __init__(self, u: Any) -> None:
        super().__init__(as_matrix(u, "unary"))


class LogisticUnary(Unary):
    """Unary energies L @ f of logistic weights (L, F) and features (F, N), both float32."""

    def __init__(self, L: Any, f: Any) -> None:  # noqa: N803 (pydensecrf's name)
        weights, features = as_matrix(L, "L"), as_matrix(f, "f")
        if weights.shape[1] != features.shape[0]:
            raise CrfInputError(f"L is {weights.shape} and f {features.shape}: the columns of L must be the rows of f")
        super().__init__(weights @ features)


class DenseCRF:
    """A dense CRF over `nvar` points without a grid."""

    def __init__(self, nvar: Any, nlabels: Any, *_: Any, **__: Any) -> None:
        self._set_up(cut_off(nvar, "nvar"), cut_off(nlabels, "nlabels"))

    def _set_up(self, shape: int | tuple[int, int], labels: int) -> None:
        self._model = _Model(shape, labels)
        self._has_unary = False
        self._has_infinity = False

    # ---- energies ----------------------------------------------------------------------------------------------------

    def setUnaryEnergy(self, u: Any, f: Any = None) -> None:  # noqa: N802
        """Set the unary energies u (L, N) float32, or the logistic ones u @ f."""
        self.setUnary(ConstUnary(u) if f is None else LogisticUnary(u, f))

    def setUnary(self, u: Unary) -> None:  # noqa: N802
        """Set a `ConstUnary` or `LogisticUnary`."""
        if not isinstance(u, Unary):
            raise CrfInputError("setUnary needs ConstUnary(U) or LogisticUnary(L, f); for an array use setUnaryEnergy")
        expected = (self._model.labels, self._model.points)
        if u.energies.shape != expected:
            hint = ""
            if u.energies.shape == expected[::-1]:
                hint = ": it is points first; transpose it (U.T.copy()), do not reshape it"
            raise CrfInputError(f"unary energy must be (labels, points) = {expected}, got {u.energies.shape}{hint}")
        self._has_infinity = False
        try:
            self._model.set_unary(self._add_grid(u.energies))
        except CrfInputError:
            self._model.set_unary(self._add_grid(bound_energies(u.energies)))
            self._has_infinity = bool(np.isinf(u.energies).any())
        self._has_unary = True

    def addPairwiseEnergy(  # noqa: N802
        self, features: Any, compat: Any, kernel: Any = DIAG_KERNEL, normalization: Any = NORMALIZE_SYMMETRIC
    ) -> None:
        """Add a term over features (d, N) float32, already divided by their sigmas."""
        kind = _check_kinds(kernel, normalization)
        contiguous = np.ascontiguousarray(as_matrix(features, "features"))
        self._model.add_features(contiguous, check_compatibility(compat), normalization=kind)

    # ---- inference ---------------------------------------------------------------------------------------------------

    def inference(self, niter: Any) -> FloatArray:
        """Q (L, N) float32 after `niter` updates; none if it is negative."""
        self._ensure_unary()
        return self._drop_grid(self._model.inference(max(0, cut_off(niter, "niter"))))

    def startInference(self) -> tuple[FloatArray, FloatArray, FloatArray]:  # noqa: N802
        """(Q, tmp1, tmp2) for `stepInference`, which ignores the last two."""
        if self._has_unary:
            q = self._drop_grid(self._model.start())
        else:
            q = np.zeros((self._model.labels, self._model.points), np.float32)
        return q, eigen.MatrixXf(), eigen.MatrixXf()

    def stepInference(self, Q: FloatArray, tmp1: Any, tmp2: Any) -> None:  # noqa: N802, N803
        """One update of Q, in place."""
        self._load(Q)
        Q[...] = self._drop_grid(self._model.step())

    def klDivergence(self, Q: FloatArray) -> float:  # noqa: N802, N803
        """The relative divergence of Q, for watching convergence; NaN with infinite energies."""
        self._load(Q)
        return math.nan if self._has_infinity else self._model.kl_divergence()

    def _load(self, q: FloatArray) -> None:
        self._ensure_unary()
        array = as_array(q, "Q")
        if array.shape != (self._model.labels, self._model.points):
            raise CrfInputError(f"Q must be the array of startInference or inference, got shape {array.shape}")
        self._model.set_marginals(self._add_grid(array))

    def _ensure_unary(self) -> None:
        if not self._has_unary:
            self._model.set_unary(self._add_grid(np.zeros((self._model.labels, self._model.points), np.float32)))

    def _add_grid(self, array: Any) -> Any:
        return array.reshape(self._model.labels, *self._model.shape)

    def _drop_grid(self, array: FloatArray) -> FloatArray:
        return array.reshape(self._model.labels, -1)


class DenseCRF2D(DenseCRF):
    """A dense CRF over an image of `w` x `h` pixels: width first."""

    def __init__(self, w: Any, h: Any, nlabels: Any, *_: Any, **__: Any) -> None:
        self._set_up((cut_off(h, "h"), cut_off(w, "w")), cut_off(nlabels, "nlabels"))

    def addPairwiseGaussian(  # noqa: N802
        self, sxy: Any, compat: Any, kernel: Any = DIAG_KERNEL, normalization: Any = NORMALIZE_SYMMETRIC
    ) -> None:
        """Add a term of position; sxy in pixels, a number or (x, y)."""
        kind = _check_kinds(kernel, normalization)
        sigmas, compat = pick_sigmas(sxy, 2, "sxy"), check_compatibility(compat)
        if are_plain(sigmas):
            self._model.add_gaussian(sigmas, compat, normalization=kind)
        else:
            height, width = self._model.shape
            self._model.add_features(divide_positions((height, width), sigmas), compat, normalization=kind)

    def addPairwiseBilateral(  # noqa: N802
        self,
        sxy: Any,
        srgb: Any,
        rgbim: Any,
        compat: Any,
        kernel: Any = DIAG_KERNEL,
        normalization: Any = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a term of position and color; rgbim is h x w x 3 uint8 or bool, C-contiguous."""
        image = as_buffer(rgbim, "rgbim")
        image = image.view(np.uint8) if image.dtype == np.bool_ else image
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise CrfInputError(
                f"addPairwiseBilateral needs h x w x 3 uint8 images, got {image.shape} {image.dtype}: for others use "
                "utils.create_pairwise_bilateral and addPairwiseEnergy"
            )
        kind = _check_kinds(kernel, normalization)
        sigmas, colors = pick_sigmas(sxy, 2, "sxy"), pick_sigmas(srgb, 3, "srgb")
        compat = check_compatibility(compat)
        if are_plain([*sigmas, *colors]):
            self._model.add_bilateral(sigmas, colors, image, compat, normalization=kind)
        else:
            height, width = self._model.shape
            pixels = check_image(image, shape=self._model.shape)
            features = divide_positions((height, width), sigmas, pixels, colors)
            self._model.add_features(features, compat, normalization=kind)


def _check_kinds(kernel: Any, normalization: Any) -> Normalization:
    """Check both kinds, each a constant, an int or a name; return the normalization's name."""
    _check_kind(KernelType, kernel, "kernel")
    return _NAMES[_check_kind(NormalizationType, normalization, "normalization")]


def _check_kind(kind: type[IntEnum], value: Any, what: str) -> int:
    try:
        return kind[value] if isinstance(value, str) else kind(int(value))
    except (KeyError, TypeError, ValueError):
        raise CrfInputError(f"{what} must be one of {', '.join(kind.__members__)}, got {value!r}") from None
