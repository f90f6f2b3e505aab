"""The ONNX Runtime backend, the default: on the CPU or on a CUDA device.

ONNX Runtime silently falls back to the CPU when a device's provider cannot start; here that is an error. TF32 is off,
so that a GPU computes what the CPU computes.

On a device, inputs are copied there once and outputs are copied back once (io binding).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...dependencies import import_optional
from ...errors import BackendError
from ..devices import describe_processor
from . import onnxruntime_providers
from .protocol import Array, Backend, TensorSpec, check_feeds, first_line
from .self_contained import require_self_contained

Provider = Literal["cpu", "cuda", "tensorrt"]
GraphLevel = Literal["disabled", "basic", "extended", "all"]

# our name -> device, and ONNX Runtime's providers with their settings; the first is the requested one
_PROVIDERS: dict[str, tuple[str, tuple[tuple[str, dict[str, str]], ...]]] = {
    "cpu": ("cpu", (("CPUExecutionProvider", {}),)),
    "cuda": ("cuda", (("CUDAExecutionProvider", {"use_tf32": "0"}),)),
    # CUDA, not the CPU, runs the nodes that TensorRT rejects. No precision flag: the precision is in the graph.
    "tensorrt": ("cuda", (("TensorrtExecutionProvider", {}), ("CUDAExecutionProvider", {"use_tf32": "0"}))),
}
_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(float16)": "float16", "tensor(int64)": "int64"}
#: without VNNI, the fast product of uint8 and 8-bit weights saturates; this selects exact, slower instructions
_EXACT_PRODUCTS = {"session.x64quantprecision": "1"}
_VNNI = {"avx512_vnni", "avx_vnni"}
_LOG_FATAL_ONLY = 4  # errors arrive as exceptions
_SESSION_ENTRIES = {
    # Defense in depth behind `require_self_contained`; releases before 1.24 open absolute paths in spite of the first.
    "session.model_external_initializers_file_folder_path": f"{os.devnull}/none",
    "session.load_model_format": "ONNX",  # never its own flatbuffer format, which that check cannot read
    "session.force_spinning_stop": "1",
}


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """Options of the onnxruntime backend.

    Attributes:
        provider: execution provider; None for that of the device, "cpu" or "cuda".
        graph_level: graph optimization level.
        spinning: whether threads spin while they wait within a run, which is faster and uses more CPU. Between runs
            they never spin, because the next stage needs the cores: a dense CRF then takes half the time.
        io_binding: whether inputs and outputs are bound to the device; None for every device but the CPU.
    """

    provider: Provider | None = None
    graph_level: GraphLevel = "all"
    spinning: bool = True
    io_binding: bool | None = None


class OnnxRuntimeBackend(Backend):
    """An ONNX Runtime session."""

    name = "onnxruntime"

    def __init__(
        self,
        model: bytes,
        *,
        device: str = "cpu",
        threads: int | None = None,
        path: Path | None = None,
        options: OnnxRuntimeOptions | None = None,
    ):
        """Load an ONNX model that contains its weights; threads None: one per core; `path` is for error messages."""
        require_self_contained(model, path)
        self._runtime: Any = import_optional("onnxruntime")
        options = options or OnnxRuntimeOptions()
        self.device = device
        self._bound = device != "cpu" if options.io_binding is None else options.io_binding
        self._session: Any = _open_session(self._runtime, model, device, threads, path, options)
        self.inputs, self.outputs = describe_session(self._session, path)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; see `Backend.run`."""
        session = self._session
        if session is None:
            raise BackendError("this backend was closed")
        check_feeds(self.inputs, feeds)
        names = [spec.name for spec in self.outputs]
        settings = self._make_run_settings(feeds)
        try:
            results = self._run_bound(session, feeds) if self._bound else session.run(names, dict(feeds), settings)
        except Exception as error:  # its exceptions share no base class
            raise BackendError(f"ONNX Runtime failed: {first_line(error)}") from error
        return dict(zip(names, results, strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def _make_run_settings(self, feeds: Mapping[str, Array]) -> Any:
        """ONNX Runtime's RunOptions for checked feeds; None for the default."""
        return None

    def _run_bound(self, session: Any, feeds: Mapping[str, Array]) -> list[Array]:
        binding = session.io_binding()  # one per run, so that threads share nothing
        for name, array in feeds.items():
            value = self._runtime.OrtValue.ortvalue_from_numpy(array, self.device, 0)
            binding.bind_ortvalue_input(name, value)
        for spec in self.outputs:
            binding.bind_output(spec.name, self.device, 0)  # allocated during the run
        binding.synchronize_inputs()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        results: list[Array] = binding.copy_outputs_to_cpu()
        return results


def _open_session(
    runtime: Any, model: bytes, device: str, threads: int | None, path: Path | None, options: OnnxRuntimeOptions
) -> Any:
    devices = sorted({place for place, _ in _PROVIDERS.values()})
    if device not in devices:
        raise BackendError(f'the onnxruntime backend runs on {" or ".join(devices)}, not "{device}"')
    place, providers = _PROVIDERS[options.provider or device]
    if place != device:
        raise BackendError(f'the provider "{options.provider}" runs on the device "{place}", not on "{device}"')
    available = runtime.get_available_providers()
    for provider, _ in providers:
        if provider not in available:
            raise BackendError(onnxruntime_providers.explain_absence(provider, available))
    requested = [provider for provider, _ in providers]
    if device != "cpu":
        onnxruntime_providers.load_libraries(runtime)
    settings = make_settings(runtime, {"session.intra_op.allow_spinning": str(int(options.spinning))})
    settings.intra_op_num_threads = threads or 0
    settings.inter_op_num_threads = 1
    settings.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, _LEVELS[options.graph_level])
    where = f"{path}: " if path is not None else ""
    try:
        # With its fallback, ONNX Runtime prints a model's errors to stdout and loads it again.
        session = runtime.InferenceSession(model, settings, providers=list(providers), enable_fallback=0)
    except Exception as error:  # its exceptions share no base class
        if obstacle := _find_obstacle(runtime, requested):
            raise BackendError(f"{where}{obstacle}") from error
        raise BackendError(f"{where}ONNX Runtime refuses the model: {first_line(error)}") from error
    started = session.get_providers()
    if started[: len(requested)] != requested:
        reason = _find_obstacle(runtime, requested) or "see `atrous doctor`"
        raise BackendError(
            f"{where}asked for {' and '.join(requested)}, ONNX Runtime started {', '.join(started)}: {reason}"
        )
    session.disable_fallback()
    return session


def _find_obstacle(runtime: Any, providers: Sequence[str]) -> str:
    """The reason why the first of these providers cannot start; "" if there is none."""
    found = ((name, onnxruntime_providers.find_obstacle(runtime, name)) for name in providers)
    return next((f"{name} cannot start: {obstacle}" for name, obstacle in found if obstacle), "")


def make_settings(runtime: Any, entries: Mapping[str, str] | None = None) -> Any:
    """Return ONNX Runtime's SessionOptions that read no other files and log fatal errors only, with more entries."""
    settings = runtime.SessionOptions()
    settings.log_severity_level = _LOG_FATAL_ONLY
    exact = _EXACT_PRODUCTS if _VNNI.isdisjoint(describe_processor().features) else {}
    for entry in {**_SESSION_ENTRIES, **exact, **(entries or {})}.items():
        settings.add_session_config_entry(*entry)
    return settings


def describe_session(session: Any, path: Path | None = None) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs of a session; `path` is for error messages."""
    try:
        return tuple(map(_describe, session.get_inputs())), tuple(map(_describe, session.get_outputs()))
    except UnicodeDecodeError as error:
        where = f"{path}: " if path is not None else ""
        raise BackendError(f"{where}the model has a name that is not UTF-8; convert the net again") from error


def _describe(value: Any) -> TensorSpec:
    # ONNX Runtime reports an axis without a name as None.
    shape = tuple(side if isinstance(side, int | str) else "?" for side in value.shape)
    return TensorSpec(value.name, _DTYPES.get(value.type, value.type), shape)
