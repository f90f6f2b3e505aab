"""The original pydensecrf as a backend, if installed: one thread, no shortcuts, its own rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...bundle.crf_parameters import CrfParameters
from ...dependencies import import_optional
from ...errors import CrfInputError
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
        BackendError: it is installed but cannot be loaded.
        CrfInputError: an image of another type or number of channels; the name belongs to the drop-in.
    """
    original = import_optional("pydensecrf.densecrf")
    if original.__name__ != "pydensecrf.densecrf":
        raise CrfInputError(
            "pydensecrf is the drop-in of atrous.runtime.crf.compat.install() in this process: leave "
            'backend="atrous", or compare with the original in a process without install()'
        )
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
