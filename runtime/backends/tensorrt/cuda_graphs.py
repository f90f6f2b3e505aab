"""CUDA graphs of one context: captured when a shape comes back, proved once, replayed from then on.

A capture that went wrong is silent: launches succeed and the output never changes, or follows memory that is no
longer the input. So every graph is proved before its first use, in these steps:

1. an enqueue on the real input gives the expected outputs (TensorRT also needs one before it may be captured);
2. the outputs' memory is overwritten, the graph launched, the outputs compared: it computes, and where it should;
3. the input's memory is changed, the graph launched, the outputs compared with those of an enqueue on the same:
   it reads the input anew.

A context's graph holds as long as its shapes and addresses stay; TensorRT leaves undefined what a graph does after
its context has changed, so there is never more than one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ....errors import BackendError
from ..protocol import Array
from .driver import Driver

Key = tuple[object, ...]  # profile, shapes and addresses
_RUBBISH = 0x5A
_RELATIVE_TOLERANCE = 1e-3  # the same kernels on the same input; sums by atomics may differ in the last digits


@dataclass(frozen=True)
class Binding:
    """A tensor of a run: its pinned memory in its own shape and dtype, and its device address."""

    host: Array
    address: int


class ReplayedContext:
    """Enqueues for one context, as a graph from the second run with the same key on."""

    def __init__(self, driver: Driver, enqueue: Callable[[], None], stream: int):
        """Queue by `enqueue`, which uses the shapes and addresses the context has at that moment."""
        self._driver = driver
        self._enqueue = enqueue
        self._stream = stream
        self._last_key: Key | None = None
        self._executable = 0
        self.captures = 0

    def is_due(self, key: Key) -> bool:
        """Whether `capture` should come before the next `queue` with this key."""
        return key == self._last_key and not self._executable

    def queue(self, key: Key) -> None:
        """Queue the network: by the graph where there is one for the key, else by an enqueue.

        Raises:
            BackendError: if TensorRT or CUDA refuses.
        """
        if key != self._last_key:
            self.forget()
            self._last_key = key
        if self._executable:
            self._driver.launch(self._executable, self._stream)
        else:
            self._enqueue()

    def capture(self, inputs: Mapping[str, Binding], outputs: Mapping[str, Binding]) -> None:
        """Capture the context as it is now, and prove the graph; inputs' and outputs' memory is the run's own.

        Raises:
            BackendError: if nothing is captured, or the graph does not compute what an enqueue does.
        """
        driver, stream = self._driver, self._stream
        given = {name: binding.host.copy() for name, binding in inputs.items()}
        expected = self._compute(self._enqueue, inputs, outputs)
        driver.begin_capture(stream)
        try:
            self._enqueue()
        finally:
            graph = driver.end_capture(stream)
        if driver.count_nodes(graph) == 0:
            raise BackendError(
                "the CUDA graph captured nothing: TensorRT queued its work elsewhere; open the backend with "
                "cuda_graphs off"
            )
        self._executable = driver.instantiate(graph)
        self.captures += 1
        try:
            self._prove(given, expected, inputs, outputs)
        except BaseException:
            self.forget()
            raise
        finally:
            for name, binding in inputs.items():
                binding.host[...] = given[name]
                driver.copy_to_device(binding.address, binding.host, stream)
            driver.synchronize(stream)

    def forget(self) -> None:
        """Free the graph."""
        if self._executable:
            self._driver.destroy_executable(self._executable)
        self._executable = 0
        self._last_key = None

    def _prove(
        self,
        given: Mapping[str, Array],
        expected: Sequence[Array],
        inputs: Mapping[str, Binding],
        outputs: Mapping[str, Binding],
    ) -> None:
        replayed = self._compute(self._launch, inputs, outputs)
        if not _agree(expected, replayed):
            raise BackendError(
                "the CUDA graph does not compute what the engine does; open the backend with cuda_graphs off"
            )
        for name, binding in inputs.items():
            binding.host[...] = _change(given[name])
        expected = self._compute(self._enqueue, inputs, outputs)
        if not _agree(expected, self._compute(self._launch, inputs, outputs)):
            raise BackendError("the CUDA graph does not follow a changed input; open the backend with cuda_graphs off")

    def _launch(self) -> None:
        self._driver.launch(self._executable, self._stream)

    def _compute(
        self, run: Callable[[], None], inputs: Mapping[str, Binding], outputs: Mapping[str, Binding]
    ) -> list[Array]:
        """The outputs of one run on what the inputs' pinned memory holds; everything on one stream."""
        driver, stream = self._driver, self._stream
        for binding in outputs.values():
            binding.host.reshape(-1).view(np.uint8).fill(_RUBBISH)
        for binding in (*inputs.values(), *outputs.values()):
            driver.copy_to_device(binding.address, binding.host, stream)
        run()
        for binding in outputs.values():
            driver.copy_to_host(binding.host, binding.address, stream)
        driver.synchronize(stream)
        return [binding.host.copy() for binding in outputs.values()]


def _change(array: Array) -> Array:
    """Other values of the same range: mirrored bytes, or the other sign."""
    return np.invert(array) if array.dtype.kind in "bui" else -array


def _agree(expected: Sequence[Array], found: Sequence[Array]) -> bool:
    for one, other in zip(expected, found, strict=True):
        if one.dtype.kind != "f":
            if not np.array_equal(one, other):
                return False
            continue
        scale = float(np.abs(one.astype(np.float32)).max(initial=0.0))
        if not np.allclose(one, other, rtol=0.0, atol=_RELATIVE_TOLERANCE * scale, equal_nan=True):
            return False
    return True
