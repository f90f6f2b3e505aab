"""The original pydensecrf as a backend, if installed: one thread, no shortcuts, its own rounding."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from ...bundle.crf_parameters import CrfParameters
from ...errors import CrfInputError, MissingDependencyError
from .checks import FloatArray
from .terms import NORMALIZATION_CODES


def run_pydensecrf(image: npt.NDArray[Any], energies: FloatArray, parameters: CrfParameters) -> FloatArray:
    """Run `parameters` through the installed pydensecrf.

    Args:
        image: H x W x 3 uint8.
        energies: (L, H, W) float32.
        parameters: terms and iterations.

    Returns:
        Marginals (L, H, W) float32.

    Raises:
        MissingDependencyError: pydensecrf is not installed.
        CrfInputError: an image of another type or number of channels.
    """
    try:
        original = importlib.import_module("pydensecrf.densecrf")
    except ImportError:
        raise MissingDependencyError(
            "the pydensecrf backend needs pydensecrf: pip install git+https://github.com/lucasb-eyer/pydensecrf.git, "
            'or leave backend="atrous"'
        ) from None
    if image.dtype != np.uint8 or image.shape[-1] != 3:
        raise CrfInputError('pydensecrf accepts H x W x 3 uint8 images only: leave backend="atrous"')
    labels, height, width = energies.shape
    crf = original.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(np.ascontiguousarray(energies.reshape(labels, -1)))
    # Builds by newer Cython lack the module's constants; the enumeration accepts the same numbers.
    kinds = getattr(original, "NormalizationType", int)
    normalization = kinds(NORMALIZATION_CODES[parameters.normalization])
    for position in parameters.gaussian:
        crf.addPairwiseGaussian(sxy=position.sxy, compat=position.weight, normalization=normalization)
    for color in parameters.bilateral:
        crf.addPairwiseBilateral(
            sxy=color.sxy, srgb=color.srgb, rgbim=image, compat=color.weight, normalization=normalization
        )
    return np.array(crf.inference(parameters.iterations), np.float32).reshape(energies.shape)
