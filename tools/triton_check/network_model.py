"""Stands in for Triton's onnxruntime backend, which the wheel lacks: runs `model.onnx` beside it by onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """The network of an exported repository."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the graph; its outputs are those of the configuration."""
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        path = str(Path(__file__).with_name("model.onnx"))
        self._session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        config = json.loads(args["model_config"])
        self._inputs, self._outputs = ([entry["name"] for entry in config[part]] for part in ("input", "output"))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Run each request by itself."""
        responses = []
        for request in requests:
            feeds = {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
            try:
                values = self._session.run(self._outputs, feeds)
            except Exception as error:
                responses.append(triton.InferenceResponse(error=triton.TritonError(str(error))))
                continue
            tensors = [triton.Tensor(name, value) for name, value in zip(self._outputs, values, strict=True)]
            responses.append(triton.InferenceResponse(tensors))
        return responses
