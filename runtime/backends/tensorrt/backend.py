"""The TensorRT backend: an engine of the bundle's store, run without torch.

`run` takes a lane of the runner for one image. `open_stream` keeps a lane for many, with copies beside kernels.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ....errors import BackendError, InputError
from ..protocol import Array, check_feeds
from . import compat
from .driver import CudaDriver, Driver
from .keys import fields_here, read_machine
from .runner import ExecutionLane, Runner, Ticket
from .store import EngineStore, find_store

if TYPE_CHECKING:
    from ....bundle.folder import Bundle


@dataclass(frozen=True)
class TensorRtOptions:
    """How TensorRT runs an engine.

    Attributes:
        slots: images in flight at once in a stream, 1 to 8.
        contexts: threads that run at once, 1 to 16; further ones wait.
        cuda_graphs: whether a shape that comes back is captured as a CUDA graph and replayed.
        shape: which engine, where the store has several: a shape of the input that it must take, as "8x513x513x3".
        tf32: whether a float32 engine may have been built with TF32.
        trust: whether to run an engine that this installation did not sign. A plan is code.
    """

    slots: int = 2
    contexts: int = 2
    cuda_graphs: bool = False
    shape: str | None = None
    tf32: bool = False
    trust: bool = False

    def __post_init__(self) -> None:
        if not (1 <= self.slots <= 8 and 1 <= self.contexts <= 16):
            raise InputError(f"slots must be 1 to 8 and contexts 1 to 16, got {self.slots} and {self.contexts}")


class TensorRtBackend:
    """An engine on a CUDA device."""

    name = "tensorrt"
    device = "cuda"

    def __init__(
        self,
        engine: Any,
        driver: Driver,
        options: TensorRtOptions | None = None,
        *,
        on_close: Callable[[], None] = lambda: None,
    ):
        """Take an engine that is loaded already; `open_tensorrt` finds a bundle's.

        Args:
            engine: a TensorRT ICudaEngine.
            driver: where it runs.
            options: how.
            on_close: called once contexts and engine are released here, to release what the engine needs.
        """
        options = options or TensorRtOptions()
        self._runner: Runner | None = Runner(engine, driver, slots=options.slots, cuda_graphs=options.cuda_graphs)
        self._on_close = on_close
        self.inputs = self._runner.tensors.inputs
        self.outputs = self._runner.tensors.outputs
        self._most = options.contexts
        self._idle: list[ExecutionLane] = []
        self._opened = 0
        self._changed = threading.Condition()
        self._last = threading.local()

    @property
    def last_timings_ms(self) -> Mapping[str, float]:
        """The times of this thread's last `run`; see `Ticket.result`."""
        return dict(getattr(self._last, "timings_ms", {}))

    @property
    def captures(self) -> int:
        """How many CUDA graphs were captured by lanes that are idle now."""
        with self._changed:
            return sum(lane.captures for lane in self._idle)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; see `Backend.run`."""
        self._require_open()
        check_feeds(self.inputs, feeds)
        with self.open_stream() as stream:
            ticket = stream.submit(feeds)
            outputs = ticket.result()
        self._last.timings_ms = ticket.timings_ms
        return outputs

    def run_many(self, many: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """Compute the outputs of many feeds, in order, with as many in flight as there are slots; raises as `run`."""
        with self.open_stream() as stream:
            waiting: deque[Ticket] = deque()
            for feeds in many:
                if len(waiting) == stream.slots:
                    yield waiting.popleft().result()
                waiting.append(stream.submit(feeds))
            while waiting:
                yield waiting.popleft().result()

    @contextmanager
    def open_stream(self) -> Iterator[Stream]:
        """Keep a lane for the block: `submit` up to `slots` feeds, then take results in order.

        Raises:
            BackendError: if the backend was closed, or CUDA refuses.
        """
        lane = self._take_lane()
        stream = Stream(lane, self._require_open().slots)
        try:
            yield stream
        except BaseException:
            with suppress(BackendError):  # the first error is the one to tell
                stream.drain()
            raise
        else:
            stream.drain()
        finally:
            self._give_lane(lane)

    def close(self) -> None:
        """Wait for the runs in progress, then free lanes, contexts and the engine; closing twice is allowed."""
        with self._changed:
            runner, self._runner = self._runner, None
            if runner is None:
                return
            while len(self._idle) < self._opened:
                self._changed.wait()
            while self._idle:
                self._idle.pop().close()
            self._opened = 0
            runner.engine = None  # tickets still lead to the runner
        self._on_close()

    def _require_open(self) -> Runner:
        if self._runner is None:
            raise BackendError("this backend was closed")
        return self._runner

    def _take_lane(self) -> ExecutionLane:
        with self._changed:
            while True:
                runner = self._require_open()
                if self._idle:
                    return self._idle.pop()
                if self._opened < self._most:
                    self._opened += 1
                    break
                self._changed.wait()
        try:
            return runner.open_lane()
        except BaseException:
            with self._changed:
                self._opened -= 1
                self._changed.notify_all()
            raise

    def _give_lane(self, lane: ExecutionLane) -> None:
        with self._changed:
            self._idle.append(lane)
            self._changed.notify_all()


class Stream:
    """A lane while someone keeps it."""

    def __init__(self, lane: ExecutionLane, slots: int):
        """Stand for a lane of so many slots."""
        self._lane = lane
        self._open: deque[Ticket] = deque(maxlen=slots)  # a slot's last ticket pushes out the one before it
        self.slots = slots

    def submit(self, feeds: Mapping[str, Array]) -> Ticket:
        """Queue one run; see `ExecutionLane.submit`."""
        ticket = self._lane.submit(feeds, time.perf_counter)
        self._open.append(ticket)
        return ticket

    def drain(self) -> None:
        """Take what nobody took."""
        while self._lane.in_flight and self._open:
            self._open.popleft().result()


def open_tensorrt(bundle: Bundle, *, device: str | None, precision: str, options: TensorRtOptions) -> TensorRtBackend:
    """Load the engine that was built for a bundle's network on this machine.

    Args:
        bundle: an opened bundle.
        device: "cuda" or None.
        precision: "fp32", or one of the bundle's variants.
        options: how to run it, and which engine.

    Raises:
        BackendError: if the device is another, or TensorRT or CUDA cannot start.
        MissingDependencyError: if TensorRT or cuda-bindings is not installed.
        BundleError: if the bundle has no such variant.
        EngineError: if no engine was built for it here, or the one there must not run; names the field.
        InputError: if `options.shape` is no shape.
    """
    if device not in (None, "cuda"):
        raise BackendError(f'the tensorrt backend knows the device cuda, not "{device}"')
    file = bundle.deploy_file(precision)
    shapes = {bundle.deploy.input: _parse_shape(options.shape)} if options.shape is not None else None
    trt, capabilities = compat.load_tensorrt()
    driver = CudaDriver()
    wanted: dict[str, object] = {
        "onnx.sha256": bundle.manifest.files[file].sha256,
        "precision.name": precision,
        "settings.tf32": options.tf32,
    }
    here = partial(fields_here, machine=read_machine(), capabilities=capabilities)
    store = EngineStore(find_store(bundle.path))
    plan = store.read_plan(store.choose(wanted, shapes, here=here), trust=options.trust)
    loaded = compat.LoadedEngine(trt, plan)
    if capabilities.version.startswith("8.5."):
        options = replace(options, contexts=1)  # a dynamic profile serves one context there; further threads wait
    return TensorRtBackend(loaded.engine, driver, options, on_close=loaded.close)


def _parse_shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split("x"))
    except ValueError as error:
        raise InputError(f'"{text}" is no shape; write it as 8x513x513x3') from error
