"""The dense CRF on an NVIDIA GPU, with the CPU's bits: `DenseCRF(..., device="cuda")`.

The kernels are CUDA C++ (`*.cu`), compiled at run time for the GPU (`compiler.py`). All other modules here do the same
work on any `Driver`: CUDA's, or the tests' emulation, which runs the same kernels on the CPU.
"""

from __future__ import annotations

from functools import lru_cache

from .driver import Driver, KernelDriver

__all__ = ["Driver", "open_driver"]


@lru_cache(maxsize=1)
def open_driver() -> Driver:
    """The driver of this process; the first call compiles the kernels or reads them from the user's cache.

    Raises:
        MissingDependencyError: cuda-bindings or NVRTC is not installed.
        BackendError: there is no GPU, or its driver is too old.
    """
    return KernelDriver()
