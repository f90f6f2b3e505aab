"""Memory of one tensor of one slot: a device block and a pinned host block, which grow and never shrink.

A block keeps its address until a larger image needs more, so a CUDA graph captured with the address stays valid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..protocol import Array
from .driver import CudaDriver


class TensorMemory:
    """Device and pinned memory of one tensor.

    Attributes:
        address: device address of the block; 0 before the first `fit`.
    """

    def __init__(self, driver: CudaDriver, dtype: str):
        """Reserve nothing yet; `dtype` is the tensor's NumPy type name."""
        self.address = 0
        self._driver = driver
        self._dtype = np.dtype(dtype)
        self._pinned: Array | None = None

    def fit(self, shape: Sequence[int]) -> Array:
        """Make both blocks large enough for a tensor; return the pinned one as an array of that shape and dtype.

        Raises:
            BackendError: if there is no memory left; both blocks are free then, and the next call tries again.
        """
        size_bytes = math.prod(shape) * self._dtype.itemsize
        if self._pinned is None or self._pinned.nbytes < size_bytes:
            self.free()
            pinned = self._driver.allocate_pinned(size_bytes)
            try:
                self.address = self._driver.allocate(size_bytes)
            except BaseException:
                self._driver.free_pinned(pinned)
                raise
            self._pinned = pinned
        return self._pinned[:size_bytes].view(self._dtype).reshape(tuple(shape))

    def free(self) -> None:
        """Free both blocks; nothing that is queued may use them."""
        address, pinned = self.address, self._pinned
        self.address, self._pinned = 0, None
        if address:
            self._driver.free(address)
        if pinned is not None:
            self._driver.free_pinned(pinned)
