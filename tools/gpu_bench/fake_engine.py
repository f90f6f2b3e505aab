"""An engine without TensorRT: a function of arrays, run on the fake driver's streams.

It has the methods of `ICudaEngine` and `IExecutionContext` that the runner calls, and enforces their rules: shapes
inside the profile, shapes before addresses before the enqueue, optionally one context for each dynamic profile, no
capture before an enqueue with the same shapes, and no use of a context whose engine is freed.
"""

from __future__ import annotations

import enum
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from atrous.runtime.backends.protocol import Array, TensorSpec

from .fake_driver import DriverMisuseError, FakeDriver

Shape = tuple[int, ...]
Range = tuple[Shape, Shape, Shape]  # min, opt, max
Function = Callable[[Mapping[str, Array]], Mapping[str, Array]]
ShapeRule = Callable[[Mapping[str, Shape]], Mapping[str, Shape]]


class TensorIOMode(enum.Enum):
    """TensorRT's enumeration."""

    INPUT = 1
    OUTPUT = 2


class DataType(enum.Enum):
    """TensorRT's enumeration, as far as inputs and outputs use it."""

    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    INT64 = 6


_TYPES = {
    "float32": DataType.FLOAT,
    "float16": DataType.HALF,
    "int32": DataType.INT32,
    "uint8": DataType.UINT8,
    "int64": DataType.INT64,
}


@dataclass
class FakeEngine:
    """A network as an engine.

    Attributes:
        driver: the fake driver whose memory it uses.
        inputs, outputs: its tensors; a string or -1 is a dynamic size.
        function: arrays by input name -> arrays by output name.
        shape_rule: shapes by input name -> shapes by output name.
        profiles: min, opt and max by input name, for each profile.
        compute_ms: duration of an enqueue on the simulated clock.
        shares_profiles: whether several contexts may use one profile; TensorRT before 8.6 refuses if it is dynamic.
        fault: a fault to simulate: "empty capture" enqueues on another stream than the captured one, "stale graph"
            captures the inputs' values instead of their addresses, "refuse" fails every enqueue, "refuse capture" the
            captured ones.
        busy_profiles: the profiles of all contexts.
    """

    driver: FakeDriver
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    function: Function
    shape_rule: ShapeRule
    profiles: Sequence[Mapping[str, Range]]
    compute_ms: float = 1.0
    shares_profiles: bool = True
    fault: str = ""
    busy_profiles: list[int] = field(default_factory=list)

    @property
    def num_io_tensors(self) -> int:
        """Number of tensors."""
        return len(self.inputs) + len(self.outputs)

    @property
    def num_optimization_profiles(self) -> int:
        """Number of profiles."""
        return len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        """Return a tensor's name."""
        return [*self.inputs, *self.outputs][index].name

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        """Return whether a tensor is an input or an output."""
        return TensorIOMode.INPUT if name in {spec.name for spec in self.inputs} else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        """Return a tensor's type."""
        return _TYPES[self._find(name).dtype]

    def get_tensor_shape(self, name: str) -> Shape:
        """Return a tensor's shape, -1 for dynamic sizes."""
        return tuple(side if isinstance(side, int) else -1 for side in self._find(name).shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[Shape]:
        """Return a tensor's shape range in a profile."""
        return list(self.profiles[profile][name])

    def create_execution_context(self) -> FakeContext:
        """Return a context."""
        return FakeContext(self)

    def _find(self, name: str) -> TensorSpec:
        return next(spec for spec in (*self.inputs, *self.outputs) if spec.name == name)


class FakeContext:
    """An execution context of a `FakeEngine`."""

    def __init__(self, engine: FakeEngine):
        self._made_by = weakref.ref(engine)
        self._profile: int | None = None
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._enqueued: dict[str, Shape] = {}  # the shapes of the last enqueue that was not captured

    @property
    def _engine(self) -> FakeEngine:
        engine = self._made_by()
        if engine is None:
            raise DriverMisuseError("use of an execution context whose engine is freed")
        return engine

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        """Select a profile; False if another context has it."""
        if not self._engine.shares_profiles and profile in self._engine.busy_profiles:
            return False
        self._engine.busy_profiles.append(profile)
        self._profile = profile
        self._shapes.clear()
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        """Set an input's shape; False if it is outside the profile."""
        assert self._profile is not None, "a profile comes first"
        low, _, high = self._engine.profiles[self._profile][name]
        if len(shape) != len(low) or not all(a <= s <= b for a, s, b in zip(low, shape, high, strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        """Return the inputs without a shape."""
        return [spec.name for spec in self._engine.inputs if spec.name not in self._shapes]

    def get_tensor_shape(self, name: str) -> Shape:
        """Return the shape of a tensor for the input shapes."""
        if name in self._shapes:
            return self._shapes[name]
        return tuple(self._engine.shape_rule(self._shapes)[name])

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Set a tensor's address."""
        self._addresses[name] = address
        return address != 0

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Queue the network."""
        engine, driver = self._engine, self._engine.driver
        if engine.fault == "refuse" or self.infer_shapes():
            return False
        # as in CUDA: shapes and addresses are read now, the memory's content when the kernel runs
        shapes = {spec.name: self.get_tensor_shape(spec.name) for spec in (*engine.inputs, *engine.outputs)}
        places, frozen = dict(self._addresses), {}
        stream = stream_handle
        if driver.is_capturing(stream):
            if self._enqueued != self._shapes:
                raise DriverMisuseError("a capture before an enqueue with these shapes captures TensorRT's setup too")
            if engine.fault == "refuse capture":
                return False
            if engine.fault == "empty capture":
                return True
            if engine.fault == "stale graph":
                frozen = {spec.name: self._read(spec, shapes, places).copy() for spec in engine.inputs}
        else:
            self._enqueued = dict(self._shapes)

        def compute() -> None:
            feeds = {spec.name: self._read(spec, shapes, places) for spec in engine.inputs} | frozen
            for name, array in engine.function(feeds).items():
                spec = next(spec for spec in engine.outputs if spec.name == name)
                assert array.shape == shapes[name], f"{name} is {array.shape}, the rule says {shapes[name]}"
                self._read(spec, shapes, places)[:] = array

        driver.run_kernel(compute, engine.compute_ms, stream)
        return True

    def _read(self, spec: TensorSpec, shapes: Mapping[str, Shape], places: Mapping[str, int]) -> Array:
        dtype = np.dtype(spec.dtype)
        size_bytes = int(np.prod(shapes[spec.name])) * dtype.itemsize
        memory = self._engine.driver.view_memory(places[spec.name], size_bytes)
        return memory.view(dtype).reshape(shapes[spec.name])
