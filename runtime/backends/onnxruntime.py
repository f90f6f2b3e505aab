"""The ONNX Runtime backend: the default, on the CPU or on a CUDA device.

ONNX Runtime falls back to the CPU without a word when a device's provider cannot start; here the provider that was
asked for is the one that runs, or an error says why not. TF32 is off, so that a GPU computes what the CPU computes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..dependencies import import_optional
from ..errors import BackendError
from .protocol import Array, TensorSpec, check_feeds

_PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}
_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(float16)": "float16", "tensor(int64)": "int64"}
_LOG_FATAL_ONLY = 4  # errors arrive as exceptions
# A bundle's model holds its weights itself; one that names other files gets none.
_NO_FOLDER = ("session.model_external_initializers_file_folder_path", f"{os.devnull}/none")


class OnnxRuntimeBackend:
    """A graph in ONNX Runtime."""

    name = "onnxruntime"

    def __init__(self, model: bytes, *, device: str = "cpu", threads: int | None = None, path: Path | None = None):
        """Load a graph.

        Args:
            model: an ONNX model, complete in itself.
            device: "cpu" or "cuda".
            threads: threads of one run on the CPU; None for one per core.
            path: where the model came from, for error messages.

        Raises:
            MissingDependencyError: if ONNX Runtime is not installed.
            BackendError: if the device's provider is missing or refuses, or the model is not valid.
        """
        runtime = import_optional("onnxruntime")
        self.device = device
        self._session: Any = _open_session(runtime, model, device, threads, path)
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
            return dict(zip(names, session.run(names, dict(feeds)), strict=True))
        except Exception as error:  # its exceptions share no base class
            raise BackendError(f"ONNX Runtime failed: {_first_line(error)}") from error

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _open_session(runtime: Any, model: bytes, device: str, threads: int | None, path: Path | None) -> Any:
    if device not in _PROVIDERS:
        raise BackendError(f'the onnxruntime backend knows the devices {sorted(_PROVIDERS)}, not "{device}"')
    provider, settings = _PROVIDERS[device]
    available = runtime.get_available_providers()
    if provider not in available:
        raise BackendError(
            f'this ONNX Runtime has no {provider} (it has {", ".join(available)}): pip install "atrous[gpu]"'
        )
    options = runtime.SessionOptions()
    options.log_severity_level = _LOG_FATAL_ONLY
    options.add_session_config_entry(*_NO_FOLDER)
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    where = f"{path}: " if path is not None else ""
    try:
        session = runtime.InferenceSession(model, options, providers=[(provider, settings)])
    except Exception as error:  # its exceptions share no base class
        raise BackendError(f"{where}ONNX Runtime refuses the model: {_first_line(error)}") from error
    started = session.get_providers()
    if started[0] != provider:
        raise BackendError(f"{where}asked for {provider}, ONNX Runtime started {started[0]}: see `atrous doctor`")
    session.disable_fallback()
    return session


def _describe(value: Any) -> TensorSpec:
    # ONNX Runtime writes an axis without a name as None.
    shape = tuple(side if isinstance(side, int | str) else "?" for side in value.shape)
    return TensorSpec(value.name, _DTYPES.get(value.type, value.type), shape)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
