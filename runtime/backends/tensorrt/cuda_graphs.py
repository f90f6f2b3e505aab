"""CUDA graphs of one execution context: captured when a shape repeats, verified once, then replayed.

A wrong capture fails silently: launches succeed, but the output never changes, or follows memory that is no longer the
input. So every graph is verified before its first use:

1. an enqueue on the real input gives the expected outputs (TensorRT also requires one before a capture);
2. the output memory is overwritten, the graph launched, and the outputs compared: it computes, in the right place;
3. the input memory is changed, the graph launched, and the outputs compared with an enqueue: it reads the input anew.

A graph is valid as long as the context's shapes and addresses stay the same. TensorRT leaves undefined what a graph
does after its context has changed, so a context has at most one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from ....errors import BackendError
from ..protocol import Array
from .driver import CudaDriver

Key = tuple[object, ...]  # profile, shapes and addresses
_POISON = 0x5A
_RELATIVE_TOLERANCE = 1e-3  # same kernels on the same input; only atomic additions may change the last digits
_ADVICE = "open the backend with cuda_graphs off"


@dataclass(frozen=True)
class Binding:
    """A tensor of a run: its pinned memory in its own shape and dtype, and its device address."""

    host: Array
    address: int


Bindings = Mapping[str, Binding]


class ReplayedContext:
    """Queues the runs of one context by `enqueue`, or by a graph from the second run with the same key on."""

    def __init__(self, driver: CudaDriver, enqueue: Callable[[], None], stream: int):
        self._driver = driver
        self._enqueue = enqueue
        self._stream = stream
        self._last_key: Key | None = None
        self._executable = 0

    def should_capture(self, key: Key) -> bool:
        """Whether to call `capture` before the next `queue` with this key."""
        return key == self._last_key and not self._executable

    def queue(self, key: Key) -> None:
        """Queue the network by the key's graph if there is one, else by an enqueue."""
        if key != self._last_key:
            self.discard()
            self._last_key = key
        if self._executable:
            self._launch()
        else:
            self._enqueue()

    def capture(self, inputs: Bindings, outputs: Bindings) -> None:
        """Capture the context as it is now, and verify the graph, in the memory of the run that follows."""
        given = {name: binding.host.copy() for name, binding in inputs.items()}
        expected = self._compute(self._enqueue, inputs, outputs)
        self._executable = self._record()
        try:
            self._verify(given, expected, inputs, outputs)
        except BaseException:
            with suppress(BackendError):  # report the first error
                self.discard()
            raise
        for name, binding in inputs.items():
            binding.host[...] = given[name]

    def discard(self) -> None:
        """Destroy the graph, if any."""
        executable, self._executable, self._last_key = self._executable, 0, None
        if executable:
            self._driver.destroy_executable(executable)

    def _record(self) -> int:
        """Capture one enqueue; return the executable graph."""
        driver = self._driver
        driver.begin_capture(self._stream)
        try:
            self._enqueue()
        except BaseException:
            with suppress(BackendError):  # report the first error; CUDA returns no graph of an invalid capture
                driver.destroy_graph(driver.end_capture(self._stream))
            raise
        graph = driver.end_capture(self._stream)
        try:
            if driver.count_nodes(graph) == 0:
                raise BackendError(f"the CUDA graph is empty: TensorRT queued its work on another stream; {_ADVICE}")
            return driver.instantiate(graph)
        finally:
            with suppress(BackendError):
                driver.destroy_graph(graph)

    def _verify(
        self, given: Mapping[str, Array], expected: Sequence[Array], inputs: Bindings, outputs: Bindings
    ) -> None:
        if not _agree(expected, self._compute(self._launch, inputs, outputs)):
            raise BackendError(f"the CUDA graph does not compute what the engine computes; {_ADVICE}")
        for name, binding in inputs.items():
            binding.host[...] = _change(given[name])
        expected = self._compute(self._enqueue, inputs, outputs)
        if not _agree(expected, self._compute(self._launch, inputs, outputs)):
            raise BackendError(f"the CUDA graph does not follow a changed input; {_ADVICE}")

    def _launch(self) -> None:
        self._driver.launch(self._executable, self._stream)

    def _compute(self, run: Callable[[], None], inputs: Bindings, outputs: Bindings) -> list[Array]:
        """Run once, all on one stream, on what the inputs' pinned memory holds; return the outputs."""
        driver, stream = self._driver, self._stream
        for binding in outputs.values():
            binding.host.reshape(-1).view(np.uint8).fill(_POISON)
        for binding in (*inputs.values(), *outputs.values()):
            driver.copy_to_device(binding.address, binding.host, stream)
        run()
        for binding in outputs.values():
            driver.copy_to_host(binding.host, binding.address, stream)
        driver.synchronize(stream)
        return [binding.host.copy() for binding in outputs.values()]


def _change(array: Array) -> Array:
    """Other values of the same range: inverted bits for integers, the opposite sign for floats."""
    return np.invert(array) if array.dtype.kind in "bui" else -array


def _agree(expected: Sequence[Array], found: Sequence[Array]) -> bool:
    """Compare outputs: integers exactly, floats within a tolerance relative to their largest magnitude."""
    for one, other in zip(expected, found, strict=True):
        scale = float(np.abs(one.astype(np.float32)).max(initial=0.0)) if one.dtype.kind == "f" else 0.0
        if not np.allclose(one, other, rtol=0.0, atol=_RELATIVE_TOLERANCE * scale, equal_nan=True):
            return False
    return True
