"""Runs an engine: copies in, network and copies out on three streams, with two or three images in flight.

::

    copy in    | H2D 1 | H2D 2 | H2D 3 |
    compute            | net 1 | net 2 | net 3 |
    copy out                   | D2H 1 | D2H 2 | D2H 3 |

Outputs that stay on the device are copied there in the last stage, into arrays that outlive the lane.

A *slot* is the memory and the events of one image in flight. An *execution lane* is a set of slots with its streams
and contexts, used by one thread at a time; several threads get a lane each. Shapes are checked against the engine's
profiles before anything is queued.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, MutableSequence, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ....errors import BackendError, InputError
from ..protocol import Allocate, Array, DeviceArray, TensorSpec, check_feeds
from .compat import explain, numpy_name
from .cuda_graphs import Binding, Bindings, Key, ReplayedContext
from .driver import CudaDriver, TensorMemory

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Log = MutableSequence[str]
Range = tuple[Shape, Shape, Shape]  # minimum, optimum, maximum
_STAGES = ("h2d", "compute", "d2h")


@dataclass(frozen=True)
class EngineTensors:
    """Inputs and outputs of an engine, with "?" for dynamic sizes, and the range of each input in each profile."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Mapping[str, Range], ...]

    def find_profile(self, shapes: Shapes) -> int:
        """Find the profile for input shapes: one whose optimum they are, else the smallest that allows them."""
        fitting = [index for index, profile in enumerate(self.profiles) if _find_misfit(profile, shapes) is None]
        if fitting:
            return min(fitting, key=lambda index: _rank(self.profiles[index], shapes))
        name = str(_find_misfit(self.profiles[0], shapes))
        allowed = " or ".join(_write_range(profile[name]) for profile in self.profiles)
        raise InputError(
            f'input "{name}" is {_write(shapes[name])}, the engine takes {allowed}: build an engine for this shape '
            "with `atrous build`, or resize the image"
        )


def describe_engine(engine: Any) -> EngineTensors:
    """Read the tensors and profiles of a TensorRT ICudaEngine; raises BackendError for a type that NumPy lacks."""
    sides: dict[str, list[TensorSpec]] = {"INPUT": [], "OUTPUT": []}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        shape = tuple(int(side) if side >= 0 else "?" for side in engine.get_tensor_shape(name))
        sides[engine.get_tensor_mode(name).name].append(
            TensorSpec(name, numpy_name(engine.get_tensor_dtype(name)), shape)
        )
    profiles = [
        {
            spec.name: tuple(tuple(int(side) for side in shape) for shape in ranges)
            for spec in sides["INPUT"]
            if len(ranges := engine.get_tensor_profile_shape(spec.name, index)) == 3
        }
        for index in range(engine.num_optimization_profiles)
    ]
    return EngineTensors(tuple(sides["INPUT"]), tuple(sides["OUTPUT"]), tuple(profiles))  # type: ignore[arg-type]


class Ticket:
    """A submitted run."""

    def __init__(self, lane: ExecutionLane, slot: _Slot, outputs: Mapping[str, Array], enqueue_ms: float):
        self._lane, self._slot, self._outputs = lane, slot, outputs
        self._outcome: dict[str, Any] | Exception | None = None
        self.timings_ms: dict[str, float] = {"enqueue": enqueue_ms}

    def result(self) -> dict[str, Any]:
        """Wait for the run and return its outputs, which the caller owns; a second call returns or raises the same.

        They are NumPy arrays, or the arrays of `submit`'s `allocate`.

        `timings_ms` then has trtexec's figures in milliseconds: "h2d", "compute", "d2h" by the device's clock,
        "latency" from the start of the first copy to the end of the last one, "enqueue" the host's time to queue it.

        Raises:
            BackendError: if the device failed.
        """
        if self._outcome is None:
            try:
                self._outcome = self._lane.collect(self._slot, self._outputs, self.timings_ms)
            except Exception as error:
                self._outcome = error
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


@dataclass
class _Slot:
    """Memory and events of one image in flight, which `ticket` is for; `kept` are the outputs that stay on the device.

    A copy that is queued writes to `kept`, so the slot holds it until the copy has ended, whatever fails.
    """

    memory: dict[str, TensorMemory] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    contexts: dict[int, _Context] = field(default_factory=dict)  # by profile
    kept: dict[str, DeviceArray] = field(default_factory=dict)
    ticket: Ticket | None = None


class _Context:
    """An execution context bound to one profile, with the shapes and addresses it was last given."""

    def __init__(
        self, engine: Any, tensors: EngineTensors, driver: CudaDriver, profile: int, stream: int, log: Log | None
    ):
        self._log: Log = [] if log is None else log
        self._context: Any = engine.create_execution_context()
        if self._context is None:
            raise self._fail("TensorRT returns no execution context", "free memory of the GPU, or use fewer contexts")
        try:
            if not self._context.set_optimization_profile_async(profile, stream):
                raise self._fail(
                    f"TensorRT refuses a second context for profile {profile}",
                    "before 8.6, for dynamic shapes: use one thread and cuda_graphs off, or build an engine of fixed "
                    "shapes",
                )
            driver.synchronize(stream)
        except BaseException:
            self._context = None  # the traceback would keep it alive beyond its engine
            raise
        self._stream = stream
        self._outputs = tensors.outputs
        self._shapes: dict[str, Shape] = {}
        self._output_shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self.replay = ReplayedContext(driver, self.enqueue, stream)

    def set_shapes(self, shapes: Shapes) -> dict[str, Shape]:
        """Set the inputs' shapes; return the outputs' shapes."""
        if shapes == self._shapes:
            return self._output_shapes
        self._shapes = {}
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise self._fail(f'TensorRT refuses the shape {_write(shape)} for input "{name}"')
        missing = list(self._context.infer_shapes())
        if missing:
            raise BackendError(f"TensorRT cannot infer the output shapes: {', '.join(missing)} has no shape or value")
        outputs = {
            spec.name: tuple(int(side) for side in self._context.get_tensor_shape(spec.name)) for spec in self._outputs
        }
        for name, shape in outputs.items():
            if any(side < 0 for side in shape):
                raise BackendError(f'output "{name}" has a size that depends on the data: {_write(shape)}')
        self._shapes, self._output_shapes = dict(shapes), outputs
        return outputs

    def set_addresses(self, addresses: Mapping[str, int]) -> None:
        """Set the tensors' device addresses."""
        if addresses == self._addresses:
            return
        self._addresses = {}
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise self._fail(f'TensorRT refuses the address of "{name}"')
        self._addresses = dict(addresses)

    def enqueue(self) -> None:
        """Queue the network on the stream."""
        if not self._context.execute_async_v3(stream_handle=self._stream):
            raise self._fail("TensorRT's enqueue failed")

    def _fail(self, problem: str, advice: str = "") -> BackendError:
        """An error with the lines that TensorRT logged since the last one."""
        lines = list(self._log)
        self._log.clear()
        return BackendError(explain(problem, lines, advice=advice))

    def close(self) -> None:
        """Destroy the graph, and free the context; a reference cycle would keep it alive beyond its engine."""
        self._context = None
        self.replay.discard()


class ExecutionLane:
    """Streams and slots for one thread at a time; see the module's picture.

    Attributes:
        has_failed: whether the device failed under a run, so that the lane must be closed and not used again.
    """

    def __init__(
        self,
        engine: Any,
        tensors: EngineTensors,
        driver: CudaDriver,
        *,
        slots: int,
        cuda_graphs: bool,
        log: Log | None = None,
    ):
        """Create streams, slots and events for an ICudaEngine; memory is allocated at the first image.

        With `cuda_graphs`, each slot has a context of its own, with its own scratch memory on the device. Errors report
        the lines of `log`, where TensorRT's logger writes.
        """
        self.has_failed, self._log = False, log
        self._engine, self._tensors, self._driver, self._cuda_graphs = engine, tensors, driver, cuda_graphs
        self._streams: dict[str, int] = {}
        self._slots: list[_Slot] = []
        self._shared: dict[int, _Context] = {}  # by profile, if slots have none of their own
        self._next = 0
        self._cleanup = ExitStack()  # frees what was created, newest first, whatever fails
        driver.activate()
        try:
            for stage in _STAGES:
                self._streams[stage] = driver.create_stream()
                self._cleanup.callback(driver.destroy_stream, self._streams[stage])
            for _ in range(slots):
                self._slots.append(self._make_slot())
        except BaseException:
            self.close()
            raise

    @property
    def in_flight(self) -> int:
        """Number of runs submitted and not collected."""
        return sum(slot.ticket is not None for slot in self._slots)

    def submit(self, feeds: Mapping[str, Array], allocate: Allocate | None = None) -> Ticket:
        """Queue one run and return at once; the feeds, arrays by input name, are copied before.

        With `allocate`, the outputs stay on the device, in arrays that it makes.
        """
        check_feeds(self._tensors.inputs, feeds)
        shapes = {name: tuple(array.shape) for name, array in feeds.items()}
        profile = self._tensors.find_profile(shapes)
        if not self.in_flight:
            self._next = 0  # one image at a time needs the memory and the graph of one slot only
        slot = self._slots[self._next]
        if slot.ticket is not None:
            raise BackendError(f"all {len(self._slots)} slots are busy: collect a result first")
        self._driver.activate()
        context = self._find_context(slot, profile)
        output_shapes = context.set_shapes(shapes)
        inputs = {name: self._bind(slot, name, shape) for name, shape in shapes.items()}
        outputs = {name: self._bind(slot, name, shape) for name, shape in output_shapes.items()}
        bindings = {**inputs, **outputs}
        context.set_addresses({name: binding.address for name, binding in bindings.items()})
        for name, array in feeds.items():
            np.copyto(inputs[name].host, array)
        if allocate is not None:
            slot.kept = {name: allocate(each.host.shape, each.host.dtype.name) for name, each in outputs.items()}
        key = (profile, *((name, binding.host.shape, binding.address) for name, binding in bindings.items()))
        try:
            if self._cuda_graphs and context.replay.should_capture(key):
                context.replay.capture(inputs, outputs)
            started_s = time.perf_counter()
            self._queue(slot, context, key, inputs, outputs)
        except BaseException:
            for stream in self._streams.values():  # what was queued uses the slot's memory
                try:
                    self._driver.synchronize(stream)
                except BackendError:  # report the first error
                    self.has_failed = True
            if not self.has_failed:
                slot.kept = {}
            raise
        enqueue_ms = (time.perf_counter() - started_s) * 1000
        slot.ticket = Ticket(self, slot, {name: binding.host for name, binding in outputs.items()}, enqueue_ms)
        self._next = (self._next + 1) % len(self._slots)
        return slot.ticket

    def collect(self, slot: _Slot, outputs: Mapping[str, Array], timings_ms: dict[str, float]) -> dict[str, Any]:
        """Wait for a slot's run, copy its outputs, record its times and free the slot; called by `Ticket.result`."""
        driver, events = self._driver, slot.events
        try:
            driver.activate()
            driver.synchronize_event(events["d2h end"])
            for stage in _STAGES:
                timings_ms[stage] = driver.measure_ms(events[f"{stage} start"], events[f"{stage} end"])
            timings_ms["latency"] = driver.measure_ms(events["h2d start"], events["d2h end"])
        except BaseException:
            self.has_failed = True
            raise
        finally:
            slot.ticket = None
        kept, slot.kept = slot.kept, {}
        return kept or {name: array.copy() for name, array in outputs.items()}

    def drain(self) -> None:
        """Collect the results that were not asked for; raises the first error once all are collected."""
        errors = []
        for slot in (*self._slots[self._next :], *self._slots[: self._next]):  # oldest first
            try:
                if slot.ticket is not None:
                    slot.ticket.result()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def close(self) -> None:
        """Wait for queued work, then free everything that can be freed; raises an error of CUDA after that."""
        self._cleanup.callback(self._slots.clear)
        for stream in self._streams.values():
            self._cleanup.callback(self._driver.synchronize, stream)
        self._cleanup.callback(self._driver.activate)  # added last, called first
        self._streams.clear()
        self._shared.clear()
        self._engine = None
        self._cleanup.close()

    def _make_slot(self) -> _Slot:
        slot = _Slot()
        for spec in (*self._tensors.inputs, *self._tensors.outputs):
            slot.memory[spec.name] = TensorMemory(self._driver, spec.dtype)
            self._cleanup.callback(slot.memory[spec.name].free)
        for name in [f"{stage} {end}" for stage in _STAGES for end in ("start", "end")]:
            slot.events[name] = self._driver.create_event()
            self._cleanup.callback(self._driver.destroy_event, slot.events[name])
        return slot

    def _queue(self, slot: _Slot, context: _Context, key: Key, inputs: Bindings, outputs: Bindings) -> None:
        driver, events = self._driver, slot.events
        copy_in, compute, copy_out = (self._streams[stage] for stage in _STAGES)
        driver.record_event(events["h2d start"], copy_in)
        for binding in inputs.values():
            driver.copy_to_device(binding.address, binding.host, copy_in)
        driver.record_event(events["h2d end"], copy_in)
        driver.wait_event(compute, events["h2d end"])
        driver.record_event(events["compute start"], compute)
        if self._cuda_graphs:
            context.replay.queue(key)
        else:
            context.enqueue()
        driver.record_event(events["compute end"], compute)
        driver.wait_event(copy_out, events["compute end"])
        driver.record_event(events["d2h start"], copy_out)
        for name, binding in outputs.items():
            if name in slot.kept:
                driver.copy_on_device(slot.kept[name].address, binding.address, binding.host.nbytes, copy_out)
            else:
                driver.copy_to_host(binding.host, binding.address, copy_out)
        driver.record_event(events["d2h end"], copy_out)

    def _bind(self, slot: _Slot, name: str, shape: Shape) -> Binding:
        host = slot.memory[name].fit(shape)
        return Binding(host, slot.memory[name].address)

    def _find_context(self, slot: _Slot, profile: int) -> _Context:
        contexts = slot.contexts if self._cuda_graphs else self._shared
        if profile not in contexts:
            stream = self._streams["compute"]
            context = _Context(self._engine, self._tensors, self._driver, profile, stream, self._log)
            contexts[profile] = context
            self._cleanup.callback(context.close)
        return contexts[profile]


def _find_misfit(profile: Mapping[str, Range], shapes: Shapes) -> str | None:
    """The first input whose shape lies outside a profile."""
    for name, shape in shapes.items():
        if name in profile:
            low, _, high = profile[name]
            if not all(a <= side <= b for a, side, b in zip(low, shape, high, strict=True)):
                return name
    return None


def _rank(profile: Mapping[str, Range], shapes: Shapes) -> tuple[bool, int]:
    """Whether a profile is optimized for other shapes, and its number of elements."""
    is_other = any(profile[name][1] != shape for name, shape in shapes.items() if name in profile)
    return is_other, sum(math.prod(maximum) for _, _, maximum in profile.values())


def _write(shape: Sequence[int]) -> str:
    return " x ".join(str(side) for side in shape) or "()"


def _write_range(shapes: Range) -> str:
    return " x ".join(str(a) if a == b else f"{a}..{b}" for a, _, b in zip(*shapes, strict=True))
