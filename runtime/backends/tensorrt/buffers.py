"""Memory of one slot: a device block and a pinned block for every tensor, which grow and never shrink.

A block keeps its address until a larger image needs more, so that what was captured with the address stays valid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..protocol import Array
from .driver import Driver


class TensorMemory:
    """Device and pinned memory of one tensor."""

    def __init__(self, driver: Driver, dtype: str):
        """Reserve nothing yet; `dtype` is NumPy's name of the tensor's type."""
        self._driver = driver
        self._dtype = np.dtype(dtype)
        self._address = 0
        self._pinned: Array | None = None

    @property
    def address(self) -> int:
        """Where the device block begins; 0 before the first `fit`."""
        return self._address

    def fit(self, shape: Sequence[int]) -> Array:
        """Make both blocks hold a tensor.

        Args:
            shape: the tensor's sizes.

        Returns:
            The pinned block as an array of that shape and the tensor's dtype.

        Raises:
            BackendError: if there is no memory left.
        """
        size_bytes = math.prod(shape) * self._dtype.itemsize
        if self._pinned is None or self._pinned.nbytes < size_bytes:
            self.free()
            self._pinned = self._driver.allocate_pinned(size_bytes)
            self._address = self._driver.allocate(size_bytes)
        return self._pinned[:size_bytes].view(self._dtype).reshape(tuple(shape))

    def free(self) -> None:
        """Give both blocks back; nothing queued may use them any more."""
        if self._address:
            self._driver.free(self._address)
        if self._pinned is not None:
            self._driver.free_pinned(self._pinned)
        self._address, self._pinned = 0, None
