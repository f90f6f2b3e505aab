"""Small numeric checks with answers known by hand: does this installation compute right?

Each raises SelfCheckError with the numbers where it does not, and imports only what it checks.
"""

from __future__ import annotations

import math
import struct

import numpy as np

from ..dependencies import import_crf
from ..errors import BackendError
from .onnx_writing import write_float_value, write_integer, write_integers, write_message, write_model, write_text

_TOLERANCE = 1e-5


class SelfCheckError(BackendError):
    """A library is installed but computes something else than it must."""


def check_crf() -> str:
    """Run the dense CRF where its answer has a closed form.

    Two flat halves, black and white, further apart in colour than the kernel reaches. A normalised filter leaves a
    constant as it is, so one step in a half where label 0 has probability p gives p e^(w p) / (p e^(w p) + q e^(w q)),
    q = 1 - p, w the term's weight.

    Returns:
        What was checked, in a few words.

    Raises:
        MissingDependencyError: if the extension is not compiled.
        SelfCheckError: if the marginals differ.
    """
    crf = import_crf()
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, 3:] = 255
    weight, chances = 3.0, (0.8, 0.4)  # of label 0 in the left and the right half
    first = np.repeat(np.array(chances, np.float32), 3)[None].repeat(4, axis=0)  # (H, W)
    term = crf.BilateralTerm(sxy=50.0, srgb=5.0, weight=weight)
    parameters = crf.CrfParameters(mode="deeplab", iterations=1, gaussian=(), bilateral=(term,))
    found = crf.dense_crf(image, np.stack([first, 1 - first]), parameters=parameters)[0]  # (H, W)
    for half, chance in zip((found[:, :3], found[:, 3:]), chances, strict=True):
        grown = chance * math.exp(weight * chance)
        expected = grown / (grown + (1 - chance) * math.exp(weight * (1 - chance)))
        if not np.allclose(half, expected, rtol=0, atol=_TOLERANCE):
            raise SelfCheckError(f"the dense CRF gives {half.ravel()[0]:.6f} where {expected:.6f} is right")
    return f"one mean-field step equals its closed form; has kernels for {', '.join(crf.kernel_names())}"


def check_onnxruntime() -> str:
    """Run a dilated convolution of 5 x 5 by 3 x 3 whose one output is a sum done by hand.

    Returns:
        What was checked, in a few words.

    Raises:
        MissingDependencyError: if ONNX Runtime is not installed.
        BackendError: if it does not load the model.
        SelfCheckError: if the output differs.
    """
    from .backends.onnxruntime import OnnxRuntimeBackend

    backend = OnnxRuntimeBackend(encode_dilated_convolution(), threads=1)
    found = backend.run({"x": np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)})["y"]
    # 1*0 + 2*2 + 3*4 + 4*10 + 5*12 + 6*14 + 7*20 + 8*22 + 9*24
    expected = 732.0
    if found.shape != (1, 1, 1, 1) or not np.allclose(found, expected, rtol=_TOLERANCE, atol=0):
        raise SelfCheckError(f"a dilated convolution gives {found.ravel()[:4].tolist()} where {expected} is right")
    return "a dilated convolution equals the sum done by hand"


def encode_dilated_convolution() -> bytes:
    """An ONNX model of y = Conv(x), weights 1 to 9, dilations 2."""
    weights = write_integers(1, (1, 1, 3, 3)) + write_integer(2, 1) + write_text(8, "w")
    weights += write_message(9, struct.pack("<9f", *range(1, 10)))
    dilations = write_text(1, "dilations") + write_integers(8, (2, 2)) + write_integer(20, 7)  # type 7: INTS
    node = (
        write_text(1, "x")
        + write_text(1, "w")
        + write_text(2, "y")
        + write_text(4, "Conv")
        + write_message(5, dilations)
    )
    graph = write_message(1, node) + write_text(2, "selfcheck") + write_message(5, weights)
    graph += write_message(11, write_float_value("x", (1, 1, 5, 5))) + write_message(
        12, write_float_value("y", (1, 1, 1, 1))
    )
    return write_model(graph)
