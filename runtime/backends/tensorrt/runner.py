"""Runs an engine: copies in, network and copies out on three streams, two or three images in flight.

::

    copy in    | H2D 1 | H2D 2 | H2D 3 |
    compute            | net 1 | net 2 | net 3 |
    copy out                   | D2H 1 | D2H 2 | D2H 3 |

A *slot* is the memory and the events of one image on its way. A *lane* is a set of slots with its streams and
contexts, used by one thread at a time; several threads get a lane each. Shapes are checked against the engine's
profiles before anything is queued.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ....errors import BackendError, InputError
from ..protocol import Array, TensorSpec, check_feeds
from .buffers import TensorMemory
from .compat import numpy_name
from .cuda_graphs import Binding, ReplayedContext
from .driver import Driver

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
_STAGES = ("h2d", "compute", "d2h")


class ProfileBusyError(BackendError):
    """TensorRT gives a profile to one context only: before 8.6, where the profile is dynamic."""


@dataclass(frozen=True)
class EngineTensors:
    """What an engine takes and gives.

    Attributes:
        inputs, outputs: with "?" for sizes that may vary.
        profiles: (min, opt, max) of each input, by profile; one of the engine's own shapes where it has none.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Mapping[str, tuple[Shape, Shape, Shape]], ...]

    def find_profile(self, shapes: Shapes) -> int:
        """The profile for input shapes: one that is made for just these, else the smallest that takes them.

        Raises:
            InputError: naming an input, its shape and what the engine takes.
        """
        fitting = [index for index, profile in enumerate(self.profiles) if _find_misfit(profile, shapes) is None]
        if fitting:
            exact = [i for i in fitting if all(self.profiles[i][name][1] == shape for name, shape in shapes.items())]
            return exact[0] if exact else min(fitting, key=self._count_elements)
        name = _find_misfit(self.profiles[0], shapes)
        assert name is not None
        taken = " or ".join(_write_range(*profile[name]) for profile in self.profiles)
        raise InputError(
            f'input "{name}" is {_write(shapes[name])}, the engine takes {taken}: build an engine for this shape with '
            "`atrous build`, or resize the image"
        )

    def _count_elements(self, index: int) -> int:
        return sum(int(np.prod(high)) for _, _, high in self.profiles[index].values())


def describe_engine(engine: Any) -> EngineTensors:
    """Read an engine's tensors and profiles.

    Args:
        engine: a TensorRT ICudaEngine.

    Raises:
        BackendError: if a tensor's type has no NumPy form.
    """
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


class Runner:
    """An engine and the driver it runs by; makes lanes."""

    def __init__(self, engine: Any, driver: Driver, *, slots: int = 2, cuda_graphs: bool = False):
        """Take an engine.

        Args:
            engine: a TensorRT ICudaEngine, or what answers as one.
            driver: where it runs.
            slots: images in flight at once in a lane.
            cuda_graphs: whether a shape that comes back is captured and replayed. Each slot then has a context of its
                own, and with it its own scratch memory on the device.
        """
        self.engine = engine
        self.driver = driver
        self.slots = slots
        self.cuda_graphs = cuda_graphs
        self.tensors = describe_engine(engine)

    def open_lane(self) -> ExecutionLane:
        """Streams, events and slots for one thread at a time.

        Raises:
            BackendError: if CUDA refuses.
        """
        return ExecutionLane(self)


class Ticket:
    """A run that was submitted."""

    def __init__(self, lane: ExecutionLane, slot: _Slot, outputs: Mapping[str, Array], host_ms: float):
        self._lane, self._slot, self._outputs = lane, slot, outputs
        self._result: dict[str, Array] | None = None
        self.timings_ms: dict[str, float] = {"enqueue": host_ms}

    def result(self) -> dict[str, Array]:
        """Wait for the run and give its outputs, which belong to the caller.

        `timings_ms` then holds trtexec's figures: "h2d", "compute", "d2h" on the device's clock, "latency" from the
        first copy's start to the last one's end, "enqueue" the host's time to queue it all.

        Raises:
            BackendError: if the device failed.
        """
        if self._result is None:
            self._result = self._lane.collect(self._slot, self._outputs, self.timings_ms)
        return self._result


@dataclass
class _Slot:
    """Memory and events of one image on its way."""

    memory: dict[str, TensorMemory]
    events: dict[str, int]
    contexts: dict[int, _Context] = field(default_factory=dict)  # by profile
    is_busy: bool = False


class _Context:
    """An execution context bound to one profile, and the shapes it was last given."""

    def __init__(self, runner: Runner, profile: int, stream: int):
        self._context: Any = runner.engine.create_execution_context()
        if self._context is None:
            raise BackendError("TensorRT gives no execution context: is the device's memory full?")
        if not self._context.set_optimization_profile_async(profile, stream):
            raise ProfileBusyError(
                f"TensorRT gives no second context for profile {profile}, as before 8.6 for dynamic shapes: use one "
                "thread and cuda_graphs off, or build an engine of fixed shapes"
            )
        runner.driver.synchronize(stream)
        self._stream = stream
        self._tensors = runner.tensors
        self._shapes: dict[str, Shape] = {}
        self._output_shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self.replay = ReplayedContext(runner.driver, self.enqueue, stream)

    def set_shapes(self, shapes: Shapes) -> dict[str, Shape]:
        """Choose the inputs' shapes; the outputs' shapes."""
        if shapes == self._shapes:
            return self._output_shapes
        self._shapes = {}
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise BackendError(f'TensorRT refuses the shape {_write(shape)} for input "{name}"')
        missing = list(self._context.infer_shapes())
        if missing:
            raise BackendError(f"TensorRT cannot tell the outputs' shapes: {', '.join(missing)} is open")
        outputs = {
            spec.name: tuple(int(side) for side in self._context.get_tensor_shape(spec.name))
            for spec in self._tensors.outputs
        }
        for name, shape in outputs.items():
            if any(side < 0 for side in shape):
                raise BackendError(f'output "{name}" has a size that depends on the data: {_write(shape)}')
        self._shapes, self._output_shapes = dict(shapes), outputs
        return outputs

    def set_addresses(self, addresses: Mapping[str, int]) -> None:
        """Choose where the tensors lie."""
        if addresses == self._addresses:
            return
        self._addresses = {}
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise BackendError(f'TensorRT refuses the address of "{name}"')
        self._addresses = dict(addresses)

    def enqueue(self) -> None:
        """Queue the network on the stream."""
        if not self._context.execute_async_v3(stream_handle=self._stream):
            raise BackendError("TensorRT's enqueue failed; its log says why")

    def close(self) -> None:
        """Free the graph, then the context; a reference cycle would keep it beyond its engine."""
        self.replay.forget()
        self._context = None


class ExecutionLane:
    """Streams and slots for one thread at a time; see the module's picture."""

    def __init__(self, runner: Runner):
        """Create streams, slots and events; memory comes with the first image.

        Args:
            runner: whose engine it runs.
        """
        self._runner, self._driver = runner, runner.driver
        self._streams: dict[str, int] = {}
        self._slots: list[_Slot] = []
        self._shared: dict[int, _Context] = {}  # by profile, where slots have none of their own
        self._next = 0
        self._driver.activate()
        specs = (*runner.tensors.inputs, *runner.tensors.outputs)
        try:
            self._streams |= {stage: self._driver.create_stream() for stage in _STAGES}
            for _ in range(runner.slots):
                memory = {spec.name: TensorMemory(self._driver, spec.dtype) for spec in specs}
                self._slots.append(_Slot(memory, {}))
                for name in [f"{stage} {end}" for stage in _STAGES for end in ("start", "end")]:
                    self._slots[-1].events[name] = self._driver.create_event()
        except BaseException:
            self.close()
            raise

    @property
    def captures(self) -> int:
        """How many CUDA graphs were captured."""
        return sum(context.replay.captures for context in self._list_contexts())

    @property
    def in_flight(self) -> int:
        """How many runs were submitted and not collected."""
        return sum(slot.is_busy for slot in self._slots)

    def submit(self, feeds: Mapping[str, Array], clock: Callable[[], float]) -> Ticket:
        """Queue one run and return at once.

        Args:
            feeds: by input name; copied before this returns.
            clock: seconds, for the time that queueing takes.

        Raises:
            InputError: if a feed is not what an input takes, or no profile takes its shape.
            BackendError: if all slots are taken, or TensorRT or CUDA refuses.
        """
        tensors, driver = self._runner.tensors, self._driver
        check_feeds(tensors.inputs, feeds)
        shapes = {name: tuple(array.shape) for name, array in feeds.items()}
        profile = tensors.find_profile(shapes)
        if not self.in_flight:
            self._next = 0  # one image at a time needs one slot's memory and graph
        slot = self._slots[self._next]
        if slot.is_busy:
            raise BackendError(f"all {len(self._slots)} slots are taken: collect a result first")
        driver.activate()
        context = self._find_context(slot, profile)
        output_shapes = context.set_shapes(shapes)
        inputs = {name: self._bind(slot, name, shape) for name, shape in shapes.items()}
        outputs = {name: self._bind(slot, name, shape) for name, shape in output_shapes.items()}
        bindings = {**inputs, **outputs}
        addresses = {name: binding.address for name, binding in bindings.items()}
        context.set_addresses(addresses)
        for name, array in feeds.items():
            np.copyto(inputs[name].host, array)
        key = (profile, *((name, bindings[name].host.shape, address) for name, address in addresses.items()))
        if self._runner.cuda_graphs and context.replay.is_due(key):
            context.replay.capture(inputs, outputs)
        started_s = clock()
        slot.is_busy = True
        self._next = (self._next + 1) % len(self._slots)
        try:
            self._queue(slot, context, key, inputs, outputs)
        except BaseException:
            for stream in self._streams.values():
                driver.synchronize(stream)  # what was queued uses the slot's memory
            slot.is_busy = False
            raise
        return Ticket(self, slot, {name: b.host for name, b in outputs.items()}, (clock() - started_s) * 1000)

    def collect(self, slot: _Slot, outputs: Mapping[str, Array], timings_ms: dict[str, float]) -> dict[str, Array]:
        """Wait for a slot's run, copy its outputs, note its times and free the slot; `Ticket.result` calls it."""
        driver, events = self._driver, slot.events
        driver.activate()
        try:
            driver.synchronize_event(events["d2h end"])
        finally:
            slot.is_busy = False
        for stage in _STAGES:
            timings_ms[stage] = driver.measure_ms(events[f"{stage} start"], events[f"{stage} end"])
        timings_ms["latency"] = driver.measure_ms(events["h2d start"], events["d2h end"])
        return {name: array.copy() for name, array in outputs.items()}

    def close(self) -> None:
        """Wait for what is queued, then free everything."""
        self._driver.activate()
        for stream in self._streams.values():
            self._driver.synchronize(stream)
        for context in self._list_contexts():
            context.close()
        for slot in self._slots:
            slot.contexts.clear()
            for memory in slot.memory.values():
                memory.free()
            for event in slot.events.values():
                self._driver.destroy_event(event)
        for stream in self._streams.values():
            self._driver.destroy_stream(stream)
        self._shared.clear()
        self._slots.clear()
        self._streams.clear()

    def _queue(
        self,
        slot: _Slot,
        context: _Context,
        key: tuple[object, ...],
        inputs: Mapping[str, Binding],
        outputs: Mapping[str, Binding],
    ) -> None:
        driver, events = self._driver, slot.events
        copy_in, compute, copy_out = (self._streams[stage] for stage in _STAGES)
        driver.record_event(events["h2d start"], copy_in)
        for binding in inputs.values():
            driver.copy_to_device(binding.address, binding.host, copy_in)
        driver.record_event(events["h2d end"], copy_in)
        driver.wait_event(compute, events["h2d end"])
        driver.record_event(events["compute start"], compute)
        if self._runner.cuda_graphs:
            context.replay.queue(key)
        else:
            context.enqueue()
        driver.record_event(events["compute end"], compute)
        driver.wait_event(copy_out, events["compute end"])
        driver.record_event(events["d2h start"], copy_out)
        for binding in outputs.values():
            driver.copy_to_host(binding.host, binding.address, copy_out)
        driver.record_event(events["d2h end"], copy_out)

    def _bind(self, slot: _Slot, name: str, shape: Shape) -> Binding:
        host = slot.memory[name].fit(shape)
        return Binding(host, slot.memory[name].address)

    def _find_context(self, slot: _Slot, profile: int) -> _Context:
        contexts = slot.contexts if self._runner.cuda_graphs else self._shared
        if profile not in contexts:
            contexts[profile] = _Context(self._runner, profile, self._streams["compute"])
        return contexts[profile]

    def _list_contexts(self) -> Sequence[_Context]:
        return [*self._shared.values(), *(context for slot in self._slots for context in slot.contexts.values())]


def _find_misfit(profile: Mapping[str, tuple[Shape, Shape, Shape]], shapes: Shapes) -> str | None:
    """The first input whose shape lies outside a profile."""
    for name, shape in shapes.items():
        if name in profile:
            low, _, high = profile[name]
            if not all(a <= side <= b for a, side, b in zip(low, shape, high, strict=True)):
                return name
    return None


def _write(shape: Sequence[int]) -> str:
    return " x ".join(str(side) for side in shape) or "()"


def _write_range(low: Shape, _: Shape, high: Shape) -> str:
    return " x ".join(str(a) if a == b else f"{a}..{b}" for a, b in zip(low, high, strict=True))
