"""The TensorRT backend: runs an engine of the bundle's store, without torch.

`run` borrows an execution lane for one image; `open_stream` borrows one for many, whose copies overlap with kernels.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ....errors import BackendError, InputError
from ..protocol import Allocate, Array, DeviceArray
from . import compat
from .driver import CudaDriver
from .keys import fields_here, read_machine
from .options import read_shape
from .runner import ExecutionLane, Log, Ticket, describe_engine
from .store import EngineStore, find_store

if TYPE_CHECKING:
    from ....bundle.folder import Bundle


@dataclass(frozen=True)
class TensorRtOptions:
    """Options of the TensorRT backend.

    Attributes:
        slots: images in flight at once in a stream, 1 to 8.
        contexts: threads that run at once, 1 to 16; further ones wait.
        cuda_graphs: whether a repeated shape is captured as a CUDA graph and replayed.
        shape: if the store has several engines, an input shape that the engine must allow, such as "8x513x513x3".
        tf32: whether to run the engine that was built with TF32.
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
    """An engine on a CUDA device. `run` may be called by several threads at once."""

    name = "tensorrt"
    device = "cuda"

    def __init__(
        self,
        engine: Any,
        driver: CudaDriver,
        options: TensorRtOptions | None = None,
        *,
        on_close: Callable[[], None] = lambda: None,
        log: Log | None = None,
    ):
        """Run a loaded ICudaEngine.

        Args:
            engine: the engine.
            driver: of the device that it was loaded on.
            options: see there.
            on_close: called after the engine's release here, to release what it needs.
            log: where TensorRT's logger writes; errors report its lines.
        """
        self._engine, self._driver, self._on_close, self._log = engine, driver, on_close, log
        self._options = options or TensorRtOptions()
        self._tensors = describe_engine(engine)
        self.inputs, self.outputs = self._tensors.inputs, self._tensors.outputs
        self._is_closed = False
        self._idle: list[ExecutionLane] = []
        self._holders: list[int] = []  # the threads that have taken a lane, once for each
        self._changed = threading.Condition()
        self._last = threading.local()

    @property
    def last_timings_ms(self) -> Mapping[str, float]:
        """The times of this thread's last `run`; see `Ticket.result`."""
        return dict(getattr(self._last, "timings_ms", {}))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; see `Backend.run`."""
        return self._run(feeds)

    def run_on_device(self, feeds: Mapping[str, Array], allocate: Allocate) -> dict[str, DeviceArray]:
        """Compute all outputs and leave them on the device; see `DeviceBackend`."""
        return self._run(feeds, allocate)

    def _run(self, feeds: Mapping[str, Array], allocate: Allocate | None = None) -> dict[str, Any]:
        with self.open_stream() as lane:
            ticket = lane.submit(feeds, allocate)
            outputs = ticket.result()
        self._last.timings_ms = ticket.timings_ms
        return outputs

    def run_many(self, many: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """Compute the outputs of many feeds, in order, with one in flight for each slot; raises as `run`."""
        with self.open_stream() as lane:
            waiting: deque[Ticket] = deque()
            for feeds in many:
                if len(waiting) == self._options.slots:
                    yield waiting.popleft().result()
                waiting.append(lane.submit(feeds))
            while waiting:
                yield waiting.popleft().result()

    @contextmanager
    def open_stream(self) -> Iterator[ExecutionLane]:
        """Borrow a lane for the block: `submit` up to `slots` feeds, then take results in order."""
        holder = threading.get_ident()
        lane = self._take_lane(holder)
        try:
            yield lane
        except BaseException:
            with suppress(Exception):  # report the first error
                lane.drain()
            raise
        else:
            lane.drain()
        finally:
            self._return_lane(lane, holder)

    def close(self) -> None:
        """Wait for the runs in progress, then free lanes, contexts and the engine; closing twice is allowed.

        Raises:
            BackendError: if this thread has an open stream or an unfinished `run_many`, or CUDA fails.
        """
        with self._changed:
            if self._is_closed:
                return
            if threading.get_ident() in self._holders:
                raise BackendError("close() would wait for itself: end this thread's open_stream or run_many first")
            self._is_closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._holders)
        with ExitStack() as cleanup:  # in reverse, whatever fails
            cleanup.callback(self._on_close)
            cleanup.callback(setattr, self, "_engine", None)
            while self._idle:
                cleanup.callback(self._idle.pop().close)

    def _take_lane(self, holder: int) -> ExecutionLane:
        with self._changed:
            while not self._is_closed and not self._idle and len(self._holders) == self._options.contexts:
                self._changed.wait()
            if self._is_closed:
                raise BackendError("this backend was closed")
            self._holders.append(holder)
            if self._idle:
                return self._idle.pop()
        try:
            return ExecutionLane(
                self._engine,
                self._tensors,
                self._driver,
                slots=self._options.slots,
                cuda_graphs=self._options.cuda_graphs,
                log=self._log,
            )
        except BaseException:
            self._return_lane(None, holder)
            raise

    def _return_lane(self, lane: ExecutionLane | None, holder: int) -> None:
        """Put a lane back for the next caller, or close one that is in an unknown state."""
        is_sound = lane is not None and not lane.has_failed and not lane.in_flight
        if lane is not None and not is_sound:
            with suppress(BackendError):  # the caller has the first error
                lane.close()
        with self._changed:
            self._holders.remove(holder)
            if lane is not None and is_sound:
                self._idle.append(lane)
            self._changed.notify_all()


def open_tensorrt(bundle: Bundle, *, device: str | None, precision: str, options: TensorRtOptions) -> TensorRtBackend:
    """Load the engine that was built for a bundle's network on this machine; the device is "cuda" or None.

    Raises:
        BackendError: if another device is requested, or TensorRT or CUDA cannot start.
        MissingDependencyError: if TensorRT or cuda-bindings is not installed.
        BundleError: if the bundle has no such variant.
        EngineError: if no engine was built for it here, or the stored one must not run; names the field.
        InputError: if `options.shape` is not a shape.
    """
    if device not in (None, "cuda"):
        raise BackendError(f'the tensorrt backend runs on the device cuda, not "{device}"')
    file = bundle.deploy_file(precision)
    shapes = {bundle.deploy.input: read_shape(options.shape)} if options.shape is not None else None
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
    if capabilities.line == "8.5":
        options = replace(options, contexts=1)  # allows one context for a dynamic profile; further threads wait
    loaded = compat.LoadedEngine(trt, plan)
    try:
        return TensorRtBackend(loaded.engine, driver, options, on_close=loaded.close, log=loaded.log)
    except BaseException as error:
        compat.clear_frames(error)
        loaded.close()
        raise
