"""The ONNX Runtime backend: the default, on the CPU or on a CUDA device.

ONNX Runtime falls back to the CPU without a word when a device's provider cannot start; here the provider that was
asked for is the one that runs, or an error says why not. TF32 is off, so that a GPU computes what the CPU computes.

On a device, inputs are copied there and outputs are left there until the graph is done (io binding), so that no
intermediate lands on the CPU unasked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..dependencies import import_optional
from ..errors import BackendError
from .protocol import Array, TensorSpec, check_feeds
from .self_contained import require_self_contained

Provider = Literal["cpu", "cuda", "tensorrt"]
GraphLevel = Literal["disabled", "basic", "extended", "all"]

# our name -> device, ONNX Runtime's providers in order with their settings; the first is the one that was asked for
_PROVIDERS: dict[str, tuple[str, tuple[tuple[str, dict[str, str]], ...]]] = {
    "cpu": ("cpu", (("CPUExecutionProvider", {}),)),
    "cuda": ("cuda", (("CUDAExecutionProvider", {"use_tf32": "0"}),)),
    # What TensorRT does not take goes to CUDA, not to the CPU. The precision is the graph's own: no flag for it here.
    "tensorrt": ("cuda", (("TensorrtExecutionProvider", {}), ("CUDAExecutionProvider", {"use_tf32": "0"}))),
}
_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(float16)": "float16", "tensor(int64)": "int64"}
_LOG_FATAL_ONLY = 4  # errors arrive as exceptions
# A second lock behind `require_self_contained`; releases before 1.24 open absolute paths in spite of it.
_NO_FOLDER = ("session.model_external_initializers_file_folder_path", f"{os.devnull}/none")


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """How ONNX Runtime runs a graph.

    Attributes:
        provider: what computes; None for the device's own, "cpu" or "cuda".
        graph_level: how far the graph is rewritten before it runs.
        spinning: whether threads wait in a loop within a run, which is faster and burns the CPU. Between runs they
            never do: the stage that follows needs the cores (a dense CRF takes half the time without them).
        io_binding: whether inputs and outputs are bound to the device; None for: unless it is the CPU.
    """

    provider: Provider | None = None
    graph_level: GraphLevel = "all"
    spinning: bool = True
    io_binding: bool | None = None


class OnnxRuntimeBackend:
    """A graph in ONNX Runtime."""

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
        """Load a graph.

        Args:
            model: an ONNX model, complete in itself.
            device: "cpu" or "cuda".
            threads: threads of one run on the CPU; None for one per core.
            path: where the model came from, for error messages.
            options: how to run it.

        Raises:
            MissingDependencyError: if ONNX Runtime is not installed.
            BackendError: if the device's provider is missing or refuses, or the model is not valid.
        """
        require_self_contained(model, path)
        self._runtime: Any = import_optional("onnxruntime")
        options = options or OnnxRuntimeOptions()
        self.device = device
        self._bound = device != "cpu" if options.io_binding is None else options.io_binding
        self._session: Any = _open_session(self._runtime, model, device, threads, path, options)
        self.inputs = tuple(_describe(value) for value in self._session.get_inputs())
        self.outputs = tuple(_describe(value) for value in self._session.get_outputs())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; see `Backend.run`."""
        session = self._session
        if session is None:
            raise BackendError("this backend was closed")
        check_feeds(self.inputs, feeds)
        names = [spec.name for spec in self.outputs]
        try:
            results = self._run_bound(session, feeds) if self._bound else session.run(names, dict(feeds))
        except Exception as error:  # its exceptions share no base class
            raise BackendError(f"ONNX Runtime failed: {_first_line(error)}") from error
        return dict(zip(names, results, strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def _run_bound(self, session: Any, feeds: Mapping[str, Array]) -> list[Array]:
        binding = session.io_binding()  # one a run: runs of several threads share nothing
        for name, array in feeds.items():
            value = self._runtime.OrtValue.ortvalue_from_numpy(array, self.device, 0)
            binding.bind_ortvalue_input(name, value)
        for spec in self.outputs:
            binding.bind_output(spec.name, self.device, 0)  # allocated by ONNX Runtime when the shape is known
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
        raise BackendError(f'the onnxruntime backend knows the devices {devices}, not "{device}"')
    place, providers = _PROVIDERS[options.provider or device]
    if place != device:
        raise BackendError(f'the provider "{options.provider}" runs on the device "{place}", not on "{device}"')
    available = runtime.get_available_providers()
    for provider, _ in providers:
        if provider not in available:
            raise BackendError(
                f'this ONNX Runtime has no {provider} (it has {", ".join(available)}): pip install "atrous[gpu]"'
            )
    settings = runtime.SessionOptions()
    settings.log_severity_level = _LOG_FATAL_ONLY
    settings.add_session_config_entry(*_NO_FOLDER)
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spinning)))
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    settings.intra_op_num_threads = threads or 0
    settings.inter_op_num_threads = 1
    settings.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, _LEVELS[options.graph_level])
    where = f"{path}: " if path is not None else ""
    try:
        session = runtime.InferenceSession(model, settings, providers=list(providers))
    except Exception as error:  # its exceptions share no base class
        raise BackendError(f"{where}ONNX Runtime refuses the model: {_first_line(error)}") from error
    wanted = [provider for provider, _ in providers]
    started = session.get_providers()
    if started[: len(wanted)] != wanted:
        raise BackendError(
            f"{where}asked for {' and '.join(wanted)}, ONNX Runtime started {', '.join(started)}: see `atrous doctor`"
        )
    session.disable_fallback()
    return session


def _describe(value: Any) -> TensorSpec:
    # ONNX Runtime writes an axis without a name as None.
    shape = tuple(side if isinstance(side, int | str) else "?" for side in value.shape)
    return TensorSpec(value.name, _DTYPES.get(value.type, value.type), shape)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
