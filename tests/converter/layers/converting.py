"""Helpers: small nets from text, compared between torch and ONNX Runtime, and recordings of real Caffe by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from atrous.converter import export_onnx, read_net, run_blobs, to_torch
from atrous.converter.export.onnx_export import value_names
from tools.conformance import Outcome, check_recording
from tools.recordings import find_recordings

Arrays = dict[str, np.ndarray[Any, Any]]

#: suggested by goldens/README.md for one layer, relative to the largest absolute value of the blob
TOLERANCE = 1e-5


def check_case(goldens: Path, name: str, tolerance: float = TOLERANCE) -> Outcome:
    """Convert a recorded tiny net and compare every blob, in torch and in ONNX Runtime."""
    (recording,) = find_recordings(goldens, "tiny", name)
    return check_recording(recording, tolerance=tolerance)


def assert_matches(goldens: Path, name: str, tolerance: float = TOLERANCE) -> None:
    outcome = check_case(goldens, name, tolerance)
    assert (outcome.torch, outcome.onnx) == ("passed", "passed"), outcome.detail


def assert_refused(goldens: Path, name: str) -> str:
    """Return the converter's message for a file that real Caffe refuses."""
    outcome = check_case(goldens, name)
    assert outcome.torch == "refused", outcome.detail
    return outcome.detail


def net_text(layer: str, **shapes: Sequence[int]) -> str:
    """A prototxt with inputs of these shapes and one layer named "y"; `layer` is its body with bottoms and tops."""
    inputs = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + " ".join(f"dim: {size}" for size in shape)
        + " } } }\n"
        for name, shape in shapes.items()
    )
    return f'{inputs}layer {{ name: "y" {layer} }}\n'


def as_v1(text: str) -> str:
    """Convert a text of :func:`net_text` to DeepLab v1's syntax: `input:` fields and `layers { type: ENUM }`."""
    inputs = re.compile(r'layer \{ name: "(\w+)" type: "Input" top: "\w+" input_param \{ shape (\{[^}]*\}) \} \}')
    text = inputs.sub(r'input: "\1" input_shape \2', text)
    enum = re.compile(r'type: "(\w+)"')
    upper = re.compile(r"(?<=[a-z])(?=[A-Z])")
    known = {"ArgMax": "ARGMAX", "ReLU": "RELU"}
    text = enum.sub(lambda found: f"type: {known.get(found[1]) or upper.sub('_', found[1]).upper()}", text)
    return text.replace("layer {", "layers {")


class Twin:
    """A net in torch and in ONNX Runtime."""

    def __init__(
        self,
        text: str,
        weights: Mapping[str, Sequence[Any]] | None = None,
        *,
        dialect: str | None = None,
        opset: int = 17,
    ) -> None:
        self.net = read_net(as_v1(text) if dialect == "deeplab_v1" else text, weights, dialect=dialect)
        self.module = to_torch(self.net)
        self.model = export_onnx(self.net, self.module, opset=opset, all_blobs=True)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            self.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, tolerance: float = 1e-6, **inputs: Any) -> Arrays:
        """Return every top by its name, from torch, after checking that ONNX Runtime agrees."""
        arrays = {name: np.array(array, np.float32) for name, array in inputs.items()}
        computed = run_blobs(self.module, arrays)
        names = value_names(self.net)
        tops = {key: blob for key, blob in self.net.recorded_tops() if blob.producer is not None}
        values = self.session.run([names[blob] for blob in tops.values()], arrays)
        results: Arrays = {}
        for (key, blob), value in zip(tops.items(), values, strict=True):
            assert value.dtype == np.float32
            assert value.shape == computed[key].shape, key
            scale = max(1.0, float(np.abs(value[np.isfinite(value)]).max(initial=0.0)))
            np.testing.assert_allclose(computed[key], value, rtol=0, atol=tolerance * scale, err_msg=key)
            results[blob.name] = computed[key]
        return results


def v1_text(layer: str, *shape: int) -> str:
    """A net in DeepLab v1's syntax: input "x", one `layers` message."""
    dims = " ".join(f"input_dim: {size}" for size in shape)
    return f'input: "x" {dims}\nlayers {{ name: "y" bottom: "x" top: "y" {layer} }}\n'


def random_array(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_exports(twin: Twin, axes: Sequence[int], *runs: Mapping[str, Any]) -> None:
    """Check torch.export with these axes of each input dynamic against the module, at the sizes of every run."""
    names = [blob.name for blob in twin.net.inputs]
    example = tuple(torch.from_numpy(np.asarray(runs[0][name], np.float32)) for name in names)
    shapes = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for _ in names)
    program = torch.export.export(twin.module, example, dynamic_shapes=shapes).module()
    for run in runs:
        arguments = [torch.from_numpy(np.asarray(run[name], np.float32)) for name in names]
        wanted, got = twin.module(*arguments), program(*arguments)
        for left, right in zip(_tensors(wanted), _tensors(got), strict=True):
            torch.testing.assert_close(left, right)


def _tensors(outputs: Any) -> list[torch.Tensor]:
    return list(outputs.values()) if isinstance(outputs, dict) else [outputs]
