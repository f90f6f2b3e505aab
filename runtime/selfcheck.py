"""Small numeric checks of this installation, with answers known in closed form; used by `atrous doctor`.

Each imports only what it checks, and raises SelfCheckError with the numbers if they differ.
"""

from __future__ import annotations

import base64
import math

import numpy as np

from ..dependencies import import_crf
from ..errors import BackendError

_TOLERANCE = 1e-5
#: ONNX model of y = Conv(x), weights 1 to 9 (3 x 3), dilations 2; x float32 1 x 1 x 5 x 5
DILATED_CONVOLUTION = base64.b64decode(
    "CAg6lwEKIwoBeAoBdxIBeSIEQ29udioSCglkaWxhdGlvbnNAAkACoAEHEgFnKjMIAQgBCAMIAxABQgF3SiQAAIA/AAAAQAAAQEAAAIBAAACgQAAA"
    "wEAAAOBAAAAAQQAAEEFaGwoBeBIWChQIARIQCgIIAQoCCAEKAggFCgIIBWIbCgF5EhYKFAgBEhAKAggBCgIIAQoCCAEKAggBQgQKABAR"
)


class SelfCheckError(BackendError):
    """A library is installed but computes wrong results."""


def check_crf() -> str:
    """Run the dense CRF where its result has a closed form.

    The image is half black, half white, and the colors are further apart than the kernel reaches. A normalized filter
    preserves constants, so one step in a half where label 0 has probability p gives p e^(w p) / (p e^(w p) + q e^(w q))
    with q = 1 - p and the term's weight w.
    """
    crf = import_crf()
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, 3:] = 255
    weight, chances = 3.0, (0.8, 0.4)  # of label 0 in the left and in the right half
    first = np.repeat(np.array(chances, np.float32), 3)[None].repeat(4, axis=0)  # (H, W)
    term = crf.BilateralTerm(sxy=50.0, srgb=5.0, weight=weight)
    parameters = crf.CrfParameters(mode="deeplab", iterations=1, gaussian=(), bilateral=(term,))
    found = crf.dense_crf(image, np.stack([first, 1 - first]), parameters=parameters)[0]  # (H, W)
    for half, chance in zip((found[:, :3], found[:, 3:]), chances, strict=True):
        grown = chance * math.exp(weight * chance)
        expected = grown / (grown + (1 - chance) * math.exp(weight * (1 - chance)))
        if not np.allclose(half, expected, rtol=0, atol=_TOLERANCE):
            raise SelfCheckError(f"the dense CRF gives {half.ravel()[0]:.6f} where {expected:.6f} is correct")
    return f"one mean-field step equals its closed form; kernels for {', '.join(crf.kernel_names())}"


def check_rtx() -> str:
    """Build an engine of the dilated convolution in a child process; report what running it here would take."""
    from .backends.onnxruntime_rtx import find_obstacles
    from .backends.tensorrt.capabilities import find_rtx_capabilities
    from .backends.tensorrt.options import BuildOptions
    from .backends.tensorrt.plan import BuildPlan
    from .backends.tensorrt.rtx import builder
    from .backends.tensorrt.rtx.library import find_library

    library = find_library()
    capabilities = find_rtx_capabilities(library.version)
    plan = BuildPlan(BuildOptions(targets=("sm86",)), capabilities, (), (), (), "fp32", ())
    built = builder.build_engine(library, plan, DILATED_CONVOLUTION)
    obstacles = find_obstacles()
    to_run = f"; to run engines here, it needs {'; '.join(obstacles)}" if obstacles else ""
    return f"{capabilities.product} builds a convolution of {len(built.plan)} bytes for sm86{to_run}"


def check_onnxruntime() -> str:
    """Run a dilated 3 x 3 convolution of a 5 x 5 image; its single output is a sum computed by hand."""
    from .backends.onnxruntime import OnnxRuntimeBackend

    backend = OnnxRuntimeBackend(DILATED_CONVOLUTION, threads=1)
    found = backend.run({"x": np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)})["y"]
    # 1*0 + 2*2 + 3*4 + 4*10 + 5*12 + 6*14 + 7*20 + 8*22 + 9*24
    expected = 732.0
    if found.shape != (1, 1, 1, 1) or not np.allclose(found, expected, rtol=_TOLERANCE, atol=0):
        raise SelfCheckError(f"a dilated convolution gives {found.ravel()[:4].tolist()} where {expected} is correct")
    return "a dilated convolution equals the sum done by hand"
