"""A stream with its memory: everything queued on it runs in order, so freed memory may be reused at once."""

from __future__ import annotations

import ctypes
import math
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from .driver import Driver
from .source import read_signatures

THREADS = 256  # of a block
_MOST_BLOCKS = 2**31 - 1


class Block:
    """Device memory; freed when nothing refers to it."""

    def __init__(self, queue: Queue, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._queue = queue
        self.address = queue.driver.allocate_queued(size_bytes, queue.stream)

    def __del__(self) -> None:
        """Free it, after the work queued so far."""
        if hasattr(self, "address"):
            with suppress(Exception):  # the interpreter may be ending
                self._queue.driver.free_queued(self.address, self._queue.stream)


class Queue:
    """Queues kernels and copies on a stream of its own.

    Streams are never destroyed but serve later queues: memory may be freed on one after its queue is gone.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        driver.activate()
        try:
            self.stream = driver.idle_streams.pop()
        except IndexError:
            self.stream = driver.create_stream()

    def __del__(self) -> None:
        """Leave the stream to later queues."""
        if hasattr(self, "stream"):
            self.driver.idle_streams.append(self.stream)

    def allocate(self, count: int, dtype: npt.DTypeLike) -> Block:
        """Allocate an array without setting it; an empty one has room for one item."""
        return Block(self, max(count, 1) * np.dtype(dtype).itemsize)

    def upload(self, array: npt.NDArray[Any]) -> Block:
        """Copy a host array of any strides to the device."""
        contiguous = np.ascontiguousarray(array)
        block = Block(self, max(contiguous.nbytes, 1))
        if contiguous.nbytes:
            self.driver.copy_to_device(block.address, contiguous, self.stream)
        return block

    def download(self, block: Block, count: int, dtype: npt.DTypeLike, offset_bytes: int = 0) -> npt.NDArray[Any]:
        """Wait for all work, and return an array on the device as a host array."""
        array = np.empty(count, dtype)
        self.driver.copy_to_host(array, block.address + offset_bytes, self.stream)
        self.synchronize()
        return array

    def launch(self, kernel: str, items: int, *arguments: Any, share: int = THREADS, threads: int = THREADS) -> None:
        """Queue a kernel over `items`, `share` of them in each block.

        Arguments are blocks, numbers, structures and None for a null pointer, in the order of the kernel's parameters.
        """
        types = read_signatures()[kernel]
        packed = [_pack(kind, value) for kind, value in zip(types, arguments, strict=True)]
        blocks = min(max(1, math.ceil(items / share)), _MOST_BLOCKS)
        self.driver.launch_kernel(kernel, blocks, threads, packed, self.stream)

    def synchronize(self) -> None:
        """Wait for all work."""
        self.driver.synchronize(self.stream)


def _pack(kind: Any, value: Any) -> Any:
    if issubclass(kind, ctypes.Structure):
        return value
    if isinstance(value, Block):
        return kind(value.address)
    return kind(value)
