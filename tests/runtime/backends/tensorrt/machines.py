"""Where the tests of `test_gpu.py` run: on a GPU with TensorRT, or without both on fakes, which prove the tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from atrous.bundle.folder import Bundle
from atrous.errors import BackendError
from atrous.runtime.backends.onnxruntime import OnnxRuntimeBackend
from atrous.runtime.backends.protocol import Array, TensorSpec
from atrous.runtime.backends.tensorrt import compat, workflow
from atrous.runtime.backends.tensorrt.audit import PrecisionAudit
from atrous.runtime.backends.tensorrt.backend import TensorRtBackend, TensorRtOptions
from atrous.runtime.backends.tensorrt.builder import build_engine
from atrous.runtime.backends.tensorrt.driver import CudaDriver
from atrous.runtime.backends.tensorrt.options import BuildOptions, ShapeRange
from atrous.runtime.devices import list_cuda_devices
from tools.cuda_on_cpu.driver import EmulatedDriver
from tools.gpu_bench.fake_driver import FakeDriver
from tools.gpu_bench.fake_engine import FakeEngine, Shape

#: images, height and width of the two profiles of every engine: one size, and a range
PROFILES = (((1, 65, 65),) * 3, ((1, 33, 33), (1, 65, 97), (4, 97, 129)))
_CHUNKS = tuple(1 << bits for bits in range(33, 8, -1))  # bytes, from large to small


class Machine(Protocol):
    """A device, and engines of a bundle with the profiles `PROFILES`."""

    driver: CudaDriver
    #: whether several threads may use the device at once
    has_threads: bool

    def open(self, bundle: Bundle, precision: str, options: TensorRtOptions) -> TensorRtBackend:
        """Open an engine; built at the first call."""

    def audit(self, bundle: Bundle, precision: str) -> PrecisionAudit:
        """Audit an engine."""

    def count_free_bytes(self) -> int:
        """Count the device's free memory."""


class Gpu:
    """The first GPU, and the installed TensorRT."""

    has_threads = True

    def __init__(self) -> None:
        """BackendError or MissingDependencyError without a GPU, TensorRT or cuda-bindings."""
        if not list_cuda_devices():
            raise BackendError("there is no GPU")
        self.driver: CudaDriver = CudaDriver()
        self.trt, self.capabilities = compat.load_tensorrt()
        self._built: dict[tuple[str, str], tuple[bytes, PrecisionAudit]] = {}

    def open(self, bundle: Bundle, precision: str, options: TensorRtOptions) -> TensorRtBackend:
        loaded = compat.LoadedEngine(self.trt, self._build(bundle, precision)[0])
        return TensorRtBackend(loaded.engine, self.driver, options, on_close=loaded.close, log=loaded.log)

    def audit(self, bundle: Bundle, precision: str) -> PrecisionAudit:
        return self._build(bundle, precision)[1]

    def count_free_bytes(self) -> int:
        return int(self.driver._call("cudaMemGetInfo")[0])

    def _build(self, bundle: Bundle, precision: str) -> tuple[bytes, PrecisionAudit]:
        key = str(bundle.path), precision
        if key not in self._built:
            facts, name = bundle.graph_facts(precision), bundle.deploy.input
            profiles = tuple({name: ShapeRange(*((*size, 3) for size in sizes))} for sizes in PROFILES)
            model = bundle.read_file(bundle.deploy_file(precision))
            prepared = workflow.prepare_build(
                model, facts, BuildOptions(profiles), self.capabilities, precision=precision
            )
            built = build_engine(self.trt, prepared.plan, model)
            audit = workflow.audit_precision(workflow.parse_inspection(built.inspection), facts)
            self._built[key] = built.plan, audit
        return self._built[key]


class SharedDriver(FakeDriver):
    """The fake driver of a device whose memory includes that of the dense CRF's emulation.

    Attributes:
        emulation: the emulation, or None without one.
        host_bytes: bytes that were copied to the host.
    """

    emulation: EmulatedDriver | None = None
    host_bytes = 0

    def copy_to_host(self, memory: Array, address: int, stream: int) -> None:
        self.host_bytes += memory.nbytes
        super().copy_to_host(memory, address, stream)

    def _view(self, address: int, size_bytes: int) -> Array:
        shared = None if self.emulation is None else self.emulation.view_memory(address, size_bytes)
        return super()._view(address, size_bytes) if shared is None else shared


class Fakes:
    """ONNX Runtime on the CPU behind the fake driver, which rejects undefined use of CUDA."""

    has_threads = False

    def __init__(self, memory_bytes: int = 1 << 26) -> None:
        self.device = SharedDriver(seed=0, memory_bytes=memory_bytes)
        self.driver: CudaDriver = self.device

    def open(self, bundle: Bundle, precision: str, options: TensorRtOptions) -> TensorRtBackend:
        network = OnnxRuntimeBackend(bundle.read_file(bundle.deploy_file(precision)), threads=1)
        output = network.outputs[0]
        sides: dict[Shape, Shape] = {}

        def infer(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
            shape = shapes["image"]
            if shape not in sides:
                sides[shape] = network.run({"image": np.zeros(shape, np.uint8)})[output.name].shape
            return {output.name: sides[shape]}

        def compute(feeds: Mapping[str, Array]) -> dict[str, Array]:
            return network.run({name: array.copy() for name, array in feeds.items()})

        engine = FakeEngine(
            self.device,
            inputs=[TensorSpec("image", "uint8", ("batch", "height", "width", 3))],
            outputs=[TensorSpec(output.name, output.dtype, ("batch", *output.shape[1:]))],
            function=compute,
            shape_rule=infer,
            profiles=[{"image": tuple((*size, 3) for size in sizes)} for sizes in PROFILES],  # type: ignore[misc]
        )
        return TensorRtBackend(engine, self.device, options)

    def audit(self, bundle: Bundle, precision: str) -> PrecisionAudit:
        raise NotImplementedError("the fakes build no engine")

    def count_free_bytes(self) -> int:
        return self.device._free_bytes


@contextlib.contextmanager
def fill_memory(driver: CudaDriver) -> Iterator[None]:
    """Leave nothing of the device's memory for the block."""
    driver.activate()
    blocks: list[int] = []
    try:
        for size in _CHUNKS:
            with contextlib.suppress(BackendError):
                while True:
                    blocks.append(driver.allocate(size))
        yield
    finally:
        driver.activate()
        for address in blocks:
            driver.free(address)


def make_machine(kind: str) -> Any:
    """A GPU, or fakes."""
    return Gpu() if kind == "gpu" else Fakes()
