"""Arrays in device memory, exchanged with other libraries by DLPack."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ....errors import CrfInputError
from .. import _lattice
from .queue import Queue


class DeviceArray:
    """A C-contiguous array in device memory: `torch.from_dlpack(array)`, `cupy.from_dlpack(array)`.

    Attributes:
        address: of its first value.
        shape, dtype: as of a NumPy array.
    """

    def __init__(self, queue: Queue, address: int, shape: tuple[int, ...], dtype: npt.DTypeLike, owner: Any) -> None:
        self.address, self.shape, self.dtype = address, shape, np.dtype(dtype)
        self._queue, self._owner = queue, owner

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def __iter__(self) -> Iterator[DeviceArray]:
        """Yield the parts along the first axis, which keep the memory of the whole."""
        step = self.dtype.itemsize * math.prod(self.shape[1:])
        for index in range(self.shape[0]):
            yield DeviceArray(self._queue, self.address + index * step, self.shape[1:], self.dtype, self._owner)

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's device type and number."""
        return self._queue.driver.place

    def __dlpack__(self, **options: Any) -> Any:
        """A capsule for any consumer and stream: waits until the values are complete."""
        self._queue.driver.activate()  # for a thread that did not use the device before
        self._queue.synchronize()
        kind, bits = self.dtype.kind, 8 * self.dtype.itemsize
        # the exported array keeps this one, and with it the memory
        exported = _lattice.export_array(self.address, list(self.shape), kind, bits, *self._queue.driver.place, self)
        return exported.__dlpack__()

    def to_host(self) -> npt.NDArray[Any]:
        """A copy as a NumPy array."""
        host = np.empty(self.shape, self.dtype)
        self._queue.driver.activate()
        self._queue.driver.copy_to_host(host, self.address, self._queue.stream)
        self._queue.synchronize()
        return host


def is_on_device(value: Any, queue: Queue) -> bool:
    """Whether a value is an array in the memory of the queue's device."""
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack_device__"):
        return False
    kind, number = value.__dlpack_device__()
    return (int(kind), int(number)) == queue.driver.place


def import_array(value: Any, what: str, queue: Queue) -> DeviceArray:
    """View an array in device memory, when all work that writes it has been queued before the queue's own."""
    if isinstance(value, DeviceArray) and value._queue is queue:
        return value
    stream = {"stream": queue.stream} if queue.driver.place[0] != 1 else {}  # arrays on a CPU have no streams
    capsule = value.__dlpack__(**stream)
    address, shape, strides, kind, bits, _, _, owner = _lattice.import_array(capsule)
    expected = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    if any(extent > 1 and stride != dense for extent, stride, dense in zip(shape, strides, expected, strict=True)):
        raise CrfInputError(f"{what} on the device must be C-contiguous: pass {what}.contiguous()")
    if (kind, bits) not in {("f", 32), ("f", 16), ("u", 8)}:
        raise CrfInputError(f"{what} on the device must be float32, float16 or uint8: convert it there")
    return DeviceArray(queue, address, tuple(shape), f"{kind}{bits // 8}", owner)
