"""torch and ONNX Runtime on the same device and images, and the rate of plain matrix products as the ceiling."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from atrous.bundle.folder import read_bundle
from atrous.runtime.backends import open_backend
from atrous.runtime.backends.protocol import Array

from .cases import Case
from .job import Job
from .measuring import Feeds, Opened

#: name -> precisions, options; TF32 is an option of torch, not a property of the graph
TORCH_SETTINGS: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
    "torch eager": (("fp32", "tf32"), {"mode": "eager"}),
    "torch channels_last": (("fp16",), {"mode": "channels_last", "benchmark": True}),
    "torch cuda_graphs": (("fp16",), {"mode": "cuda_graphs", "benchmark": True}),
    "torch compiled": (("fp16",), {"mode": "compiled", "benchmark": True}),
}
#: torch.compile is slow, so it runs at the targets' shapes only
_COMPILED_SIZE, _MATMUL_SIDE, _MATMUL_RUNS = (513, 513), 8192, 20


class Torch:
    """A `Library`: the bundle's module in one mode; `_pick_grid` samples its full-size scores for the comparison."""

    def __init__(self, name: str, device: str):
        """Take one of `TORCH_SETTINGS`."""
        self.name = name
        self._precisions, self._options = TORCH_SETTINGS[name]
        self._device = device

    def takes(self, case: Case) -> bool:
        """Accept the setting's precisions; compile only at the targets' shapes."""
        compiles = self._options["mode"] == "compiled"
        wanted = not compiles or ((case.height, case.width) == _COMPILED_SIZE and case.net == "largefov")
        return case.precision in self._precisions and wanted

    def open(self, job: Job, case: Case) -> Opened:
        """Load the module."""
        bundle = read_bundle(Path(job.nets[case.net].bundle))
        options = {**self._options, "tf32": case.precision == "tf32"}
        backend: Any = open_backend("torch", bundle, device=self._device, precision=case.graph, options=options)
        reference = job.read_reference(case)

        def run(feeds: Feeds) -> Array:
            return _pick_grid(backend.run(feeds)["scores"], reference)

        def measure_ms(feeds: Feeds, runs: int) -> Iterator[Mapping[str, float]]:
            for compute_ms in backend.measure_compute_ms(feeds, runs):
                yield {"compute": compute_ms}

        return Opened(run, measure_ms, None, backend.close, {})


def _pick_grid(scores: Array, reference: Array) -> Array:
    """Sample upsampled scores at the low-resolution grid: every eighth pixel, with align_corners.

    The last row or column may lie in the padding, which torch's scores lack; the reference's values fill it.
    """
    found: Array = reference.copy()
    height, width = scores.shape[2:]
    rows, columns = (height - 1) // 8 + 1, (width - 1) // 8 + 1
    found[:, :, :rows, :columns] = scores[:, :, ::8, ::8]
    return found


class OnnxRuntimeCuda:
    """A `Library`: ONNX Runtime's CUDA provider with I/O binding; reports only the time of the whole run."""

    def __init__(self, device: str):
        """Run on a device."""
        self.name = "onnxruntime " + device
        self._device = device

    def takes(self, case: Case) -> bool:
        """Accept FP32 and FP16; the CUDA provider has no int8 convolutions, and TF32 is off in the backend."""
        return case.precision in ("fp32", "fp16")

    def open(self, job: Job, case: Case) -> Opened:
        """Load the graph."""
        bundle = read_bundle(Path(job.nets[case.net].bundle))
        backend = open_backend("onnxruntime", bundle, device=self._device, precision=case.graph)
        output = bundle.deploy.head

        def measure_ms(feeds: Feeds, runs: int) -> Iterator[Mapping[str, float]]:
            for _ in range(runs):
                started_s = time.perf_counter()
                backend.run(feeds)
                yield {"latency": (time.perf_counter() - started_s) * 1000}

        return Opened(lambda feeds: backend.run(feeds)[output], measure_ms, None, backend.close, {})


def measure_ceilings(device: str, side: int = _MATMUL_SIDE) -> dict[str, float]:
    """TFLOP/s of square matrix products of random numbers in each precision, by torch; int8 in TOP/s.

    Raises:
        BackendError: if torch or the device is missing.
    """
    from atrous.dependencies import import_optional
    from atrous.errors import BackendError

    torch: Any = import_optional("torch")
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError("torch sees no CUDA device")
    rates: dict[str, float] = {}
    kinds: dict[str, tuple[Any, bool]] = {
        "fp16": (torch.float16, False),
        "fp32": (torch.float32, False),
        "tf32": (torch.float32, True),
        "int8": (torch.int8, False),
    }
    for name, (dtype, tf32) in kinds.items():
        torch.backends.cuda.matmul.allow_tf32 = tf32
        try:
            rates[name] = 2 * side**3 / _time_product_s(torch, device, dtype, side) / 1e12
        except RuntimeError as error:
            print(f"ceiling of {name}: skipped: {str(error).splitlines()[0]}", flush=True)
    return rates


def _time_product_s(torch: Any, device: str, dtype: Any, side: int) -> float:
    if dtype == torch.int8:
        one, other = (torch.randint(-127, 128, (side, side), device=device, dtype=dtype) for _ in range(2))
        product: Callable[[Any, Any], Any] = torch._int_mm
    else:
        one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        product = torch.matmul
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    for _ in range(3):
        product(one, other)
    wait()
    started_s = time.perf_counter()
    for _ in range(_MATMUL_RUNS):
        product(one, other)
    wait()
    return (time.perf_counter() - started_s) / _MATMUL_RUNS
