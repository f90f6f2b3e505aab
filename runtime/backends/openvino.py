"""The OpenVINO backend: the same graph on the CPU with Intel's kernels, which are fast on AMD CPUs too.

By default OpenVINO computes a float32 graph in bfloat16 where the CPU has it. Here the graph's own precision runs.
OpenVINO compiles the graph for each new input shape and caches the kernels of the last shapes.
"""

from __future__ import annotations

import queue
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...dependencies import import_optional
from ...errors import BackendError
from .protocol import Array, Backend, TensorSpec, check_feeds
from .self_contained import require_self_contained

_DTYPES = {"f32": "float32", "u8": "uint8", "f16": "float16", "i64": "int64"}
_MAX_RANK = 8


@dataclass(frozen=True)
class OpenVinoOptions:
    """Options of the openvino backend.

    Attributes:
        hint: "latency" gives one run all threads; "throughput" divides them among concurrent runs.
    """

    hint: Literal["latency", "throughput"] = "latency"


class OpenVinoBackend(Backend):
    """A graph compiled by OpenVINO."""

    name = "openvino"

    def __init__(
        self,
        model: bytes,
        *,
        device: str = "cpu",
        threads: int | None = None,
        path: Path | None = None,
        options: OpenVinoOptions | None = None,
    ):
        """Load an ONNX model that contains its weights, on the CPU only; `path` is for error messages."""
        if device != "cpu":
            raise BackendError(f'the openvino backend runs on cpu, not "{device}"')
        openvino = import_optional("openvino")
        options = options or OpenVinoOptions()
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": options.hint.upper(),
            "INFERENCE_PRECISION_HINT": "f32",  # float32 parts stay float32; Q/DQ still runs in int8
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self.device = device
        where = f"{path}: " if path is not None else ""
        require_self_contained(model, path)
        try:
            core = openvino.Core()
            graph = core.read_model(model)
            compiled = core.compile_model(graph, "CPU", settings)
            # a compiled port may have the names of several nodes, merged into one
            self.inputs = tuple(map(_describe, compiled.inputs, graph.inputs))
            self.outputs = tuple(map(_describe, compiled.outputs, graph.outputs))
        except Exception as error:  # RuntimeError, and for some models other types that pybind11 translates
            raise BackendError(f"{where}OpenVINO refuses the model: {_last_line(error)}") from error
        # The graph and its idle requests; a request serves one run at a time.
        self._open: tuple[Any, queue.SimpleQueue[Any]] | None = compiled, queue.SimpleQueue()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; see `Backend.run`."""
        opened = self._open
        if opened is None:
            raise BackendError("this backend was closed")
        compiled, idle = opened
        check_feeds(self.inputs, feeds)
        try:
            request = idle.get_nowait()
        except queue.Empty:
            request = compiled.create_infer_request()
        try:
            given = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
            results = request.infer(given, share_inputs=True, share_outputs=False)
            outputs = {spec.name: results[index] for index, spec in enumerate(self.outputs)}
        except Exception as error:  # as above
            raise BackendError(f"OpenVINO failed: {_last_line(error)}") from error
        idle.put(request)  # one that failed is dropped
        return outputs

    def close(self) -> None:
        """Free the graph and its requests, as soon as the runs in progress end."""
        self._open = None


def _describe(port: Any, named: Any) -> TensorSpec:
    shape = port.get_partial_shape()
    sides: list[int | str] = []
    for axis in range(min(len(shape), _MAX_RANK)):
        side = shape[axis]
        sides.append("?" if side.is_dynamic else int(side.get_length()))
    dtype = port.get_element_type().get_type_name()
    return TensorSpec(named.get_any_name(), _DTYPES.get(dtype, dtype), tuple(sides))


def _last_line(error: Exception) -> str:
    # Its messages begin with places in its own source.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
