"""The functions around pydensecrf that most repositories copy: the same names, arguments and results, without it.

Each equals its original over pydensecrf in every label (docs/weak-supervision.md says whose it is). A second call for
the same image in the same thread keeps the lattices and saves about a fifth of its time; `release_memory()` frees them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ...bundle.crf_parameters import BilateralTerm, CrfParameters, GaussianTerm
from ...errors import CrfInputError
from .checks import FloatArray, as_array
from .compat.utils import unary_from_labels, unary_from_softmax
from .kept import find_own_crf


def _make(iterations: int, gaussian: tuple[Any, float], bilateral: tuple[Any, Any, float]) -> CrfParameters:
    return CrfParameters("pydensecrf", iterations, (GaussianTerm(*gaussian),), (BilateralTerm(*bilateral),))


#: The published settings by name: updates, (sxy, weight) and (sxy, srgb, weight).
RECIPES: Mapping[str, CrfParameters] = MappingProxyType(
    {
        "deeplab-pytorch": _make(10, (1.0, 3.0), (67.0, 3.0, 4.0)),
        "irn": _make(10, (3.0, 3.0), (50.0, 5.0, 10.0)),
        "psa": _make(10, (3.0, 3.0), (80.0, 13.0, 10.0)),
        "cutler": _make(10, (3.0, 7.0), (50.0, 5.0, 10.0)),
        "pydensecrf": _make(5, (3.0, 3.0), (80.0, 13.0, 10.0)),
        "saliency": _make(5, (3.0, 3.0), (20.0, 3.0, 10.0)),
    }
)


class DenseCRF:
    """A CRF with settings, called as `crf(image, probmap)`: kazuto1011/deeplab-pytorch and its many descendants."""

    def __init__(
        self, iter_max: int, pos_w: float, pos_xy_std: Any, bi_w: float, bi_xy_std: Any, bi_rgb_std: Any
    ) -> None:
        """Set up.

        Args:
            iter_max: number of updates.
            pos_w: weight of the position term.
            pos_xy_std: its standard deviation in pixels, one number or (x, y).
            bi_w: weight of the color term.
            bi_xy_std: its standard deviation in pixels, one number or (x, y).
            bi_rgb_std: its standard deviation in gray levels, one number or three.
        """
        self.parameters = _make(iter_max, (pos_xy_std, pos_w), (bi_xy_std, bi_rgb_std, bi_w))

    def __call__(self, image: Any, probmap: Any) -> FloatArray:
        """Refine probabilities.

        Args:
            image: H x W x 3 uint8, any strides.
            probmap: (L, H, W) probabilities, any float type; they need not sum to 1.

        Returns:
            Marginals (L, H, W) float32.

        Raises:
            CrfInputError: an input of another shape or type.
        """
        return _refine_probabilities(image, probmap, self.parameters)


def crf_inference_label(
    img: Any, labels: Any, t: int = 10, n_labels: int = 21, gt_prob: float = 0.7
) -> npt.NDArray[np.intp]:
    """Refine a label map, each label being right with `gt_prob`: jiwoon-ahn/irn.

    Args:
        img: H x W x 3 uint8, any strides.
        labels: H x W integers from 0 to n_labels - 1.
        t: number of updates.
        n_labels: number of labels.
        gt_prob: probability that a given label is right.

    Returns:
        H x W labels, int64.

    Raises:
        CrfInputError: an input of another shape or type, or a label out of range.
    """
    unary = unary_from_labels(labels, n_labels, gt_prob, zero_unsure=False)
    labeled: npt.NDArray[np.intp] = _refine(img, unary, replace(RECIPES["irn"], iterations=t)).argmax(axis=0)
    return labeled


def crf_inference(img: Any, probs: Any, t: int = 10, scale_factor: float = 1, labels: int = 21) -> FloatArray:
    """Refine probabilities: jiwoon-ahn/psa, SEAM and other methods on class activation maps.

    Args:
        img: H x W x 3 uint8, any strides.
        probs: (L, H, W) scores from 0 to 1, any float type; they need not sum to 1.
        t: number of updates.
        scale_factor: divides the standard deviations of position, for an image that was made smaller.
        labels: L.

    Returns:
        Marginals (L, H, W) float32.

    Raises:
        CrfInputError: an input of another shape or type.
    """
    if len(probs) != labels:
        raise CrfInputError(f"probs has {len(probs)} labels first, labels is {labels}: pass labels=len(probs)")
    return _refine_probabilities(img, probs, _make(t, (3 / scale_factor, 3.0), (80 / scale_factor, 13.0, 10.0)))


def densecrf(image: Any, mask: Any) -> FloatArray:
    """Refine a foreground mask: facebookresearch/CutLER (MaskCut), TokenCut and their descendants.

    Args:
        image: H x W x 3 uint8, any strides.
        mask: H x W, 1 in the foreground and 0 elsewhere, or values between. (The original enlarges smaller ones.)

    Returns:
        H x W float32, 0 and 1.

    Raises:
        CrfInputError: an input of another shape or type.
    """
    foreground = np.asarray(mask, np.float64)
    if foreground.shape != np.shape(image)[:2]:
        raise CrfInputError(f"mask is {foreground.shape}, the image {np.shape(image)[:2]}: enlarge the mask first")
    exponentials = np.exp(np.stack([1 - foreground, foreground]) - np.maximum(foreground, 1 - foreground))
    marginals = _refine_probabilities(image, exponentials / exponentials.sum(axis=0), RECIPES["cutler"])
    return np.asarray(marginals.argmax(axis=0), np.float32)


def _refine_probabilities(image: Any, probabilities: Any, parameters: CrfParameters) -> FloatArray:
    array = as_array(probabilities, "probabilities")
    if array.ndim != 3 or array.shape[1:] != np.shape(image)[:2]:
        raise CrfInputError(
            f"probabilities are {array.shape}, the image {np.shape(image)}: expected (labels, height, width) and "
            "(height, width, 3)"
        )
    return _refine(image, unary_from_softmax(array), parameters)


def _refine(image: Any, energies: FloatArray, parameters: CrfParameters) -> FloatArray:
    pixels = np.ascontiguousarray(image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise CrfInputError(f"image must be height x width x 3 uint8, got {pixels.shape} {pixels.dtype}")
    if energies.shape[1] != pixels.shape[0] * pixels.shape[1]:
        raise CrfInputError(f"the labels cover {energies.shape[1]} pixels, the image {pixels.shape[:2]}")
    crf = find_own_crf().prepare(pixels, len(energies), parameters)
    crf.set_unary(energies.reshape(-1, *pixels.shape[:2]))
    return crf.inference(parameters.iterations, keep=False)
