"""Small bundles whose network NumPy can compute too: one 1x1 convolution over the preprocessed image."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper

from atrous.converter.precision import describe_graph
from atrous.runtime.backends import TensorSpec

COMPARISON = {
    "stage": "model.onnx",
    "reference": "torch",
    "input_shapes": {"data": [1, 3, 9, 9]},
    "blobs": 1,
    "worst_error": 0.0,
    "tolerance": 1e-4,
    "passed": True,
    "first_divergence": None,
}
MEAN = (104.008, 116.669, 122.675)  # B, G, R
STRIDE = 8  # of the lowres head, as DeepLab's
MINIMUM = 17
# (labels, BGR): label 0 is dark, 1 blue, 2 green, 3 red
WEIGHT = np.array([[-1, -1, -1], [2, -1, -1], [-1, 2, -1], [-1, -1, 2]], np.float32) / 64
CLASSES = ["background", "blue", "green", "red"]
PALETTE = [[0, 0, 0], [0, 0, 255], [0, 255, 0], [255, 0, 0]]
CRF = {
    "mode": "deeplab",
    "iterations": 5,
    "gaussian": [{"sxy": 3.0, "weight": 3.0}],
    "bilateral": [{"sxy": 20.0, "srgb": 10.0, "weight": 4.0}],
}
SIZE_RULE = {"minimum": [MINIMUM, MINIMUM], "multiple": STRIDE, "offset": 1}

MODEL_SOURCE = '''"""The same network as the graph, in the form that the converter writes."""

from pathlib import Path

from torch import nn


class FourColors(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Conv2d(3, 4, 1, bias=False)

    def forward(self, data):
        return self.score(data)


def load(path=Path(__file__).with_name("model.safetensors")):
    from safetensors.torch import load_model

    net = FourColors()
    load_model(net, path)
    return net.eval()
'''


def expected_scores(image: np.ndarray) -> np.ndarray:
    """The network's scores for an H x W x 3 uint8 RGB image, computed by NumPy: L x H x W float32."""
    centered = image[:, :, ::-1].astype(np.float32) - np.array(MEAN, np.float32)  # (H, W, BGR)
    return np.einsum("lc,hwc->lhw", WEIGHT, centered)


def make_model(head: str = "scores") -> bytes:
    """The deploy graph with one of the heads of the manifest."""
    constants = {
        "mean": np.array(MEAN, np.float32).reshape(1, 3, 1, 1),
        "bgr": np.array([2, 1, 0], np.int64),
        "weight": WEIGHT.reshape(4, 3, 1, 1),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["rgb"], perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["rgb", "bgr"], ["blobs"], axis=1),
        helper.make_node("Sub", ["blobs", "mean"], ["data"]),
    ]
    if head == "lowres":
        # Zeros below and to the right, as the size rule says; then every eighth pixel.
        constants |= {
            "axes": np.array([2, 3], np.int64),
            "one": np.array([1], np.int64),
            "minimum": np.array([MINIMUM, MINIMUM], np.int64),
            "multiple": np.array([STRIDE, STRIDE], np.int64),
            "up": np.array([STRIDE - 2, STRIDE - 2], np.int64),
            "none": np.array([0, 0, 0, 0, 0, 0], np.int64)[:2],
            "start": np.array([0, 0], np.int64),
            "end": np.array([1 << 30, 1 << 30], np.int64),
        }
        nodes += [
            helper.make_node("Shape", ["data"], ["size"], start=2, end=4),
            helper.make_node("Max", ["size", "minimum"], ["least"]),
            helper.make_node("Add", ["least", "up"], ["raised"]),
            helper.make_node("Div", ["raised", "multiple"], ["steps"]),
            helper.make_node("Mul", ["steps", "multiple"], ["even"]),
            helper.make_node("Add", ["even", "one"], ["padded"]),
            helper.make_node("Sub", ["padded", "size"], ["missing"]),
            helper.make_node("Concat", ["none", "missing"], ["pads"], axis=0),
            helper.make_node("Pad", ["data", "pads", "", "axes"], ["whole"]),
            helper.make_node("Slice", ["whole", "start", "end", "axes", "multiple"], ["net"]),
        ]
    net = "net" if head == "lowres" else "data"
    nodes.append(helper.make_node("Conv", [net, "weight"], ["scores" if head != "lowres" else "lowres"]))
    dynamic: list[Any] = ["batch", "height", "width"]
    output = helper.make_tensor_value_info(head, TensorProto.FLOAT, ["batch", 4, "h", "w"])
    if head == "labels":
        nodes.append(helper.make_node("ArgMax", ["scores"], ["index"], axis=1, keepdims=0))
        nodes.append(helper.make_node("Cast", ["index"], ["labels"], to=TensorProto.UINT8))
        output = helper.make_tensor_value_info(head, TensorProto.UINT8, dynamic)
    graph = helper.make_graph(
        nodes,
        "deploy",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [*dynamic, 3])],
        [output],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@functools.cache
def describe_model(model: bytes) -> dict[str, Any]:
    """The facts about a model that the converter writes into the manifest."""
    return describe_graph(onnx.load_from_string(model)).model_dump(mode="json")


def make_outside_model(location: str) -> bytes:
    """A model that takes its one weight, a float32, from another file."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def make_manifest(contents: dict[str, bytes], head: str = "scores", **changes: Any) -> dict[str, Any]:
    """A manifest as the converter writes it; `changes` replace whole sections."""
    upsampling = {"padded": SIZE_RULE, "align_corners": True} if head == "lowres" else None
    manifest: dict[str, Any] = {
        "schema_version": 1,
        "name": "four-colors",
        "created": "2024-05-01T12:00:00Z",
        "atrous_version": "0.1.0",
        "sources": [
            {"role": role, "file": name, "sha256": "0" * 64, "bytes": 1, "format": "V1", "dialect": "deeplab-v1"}
            for role, name in (("prototxt", "deploy.prototxt"), ("caffemodel", "w.caffemodel"))
        ],
        "inputs": [{"name": "data", "shape": [1, 3, "height", "width"], "dtype": "float32"}],
        "outputs": [{"name": "fc8_interp", "shape": [1, 4, "height", "width"], "dtype": "float32"}],
        "preprocessing": {"color_order": "BGR", "mean": list(MEAN), "scale": 1.0, "size_rule": SIZE_RULE},
        "deploy": {
            "file": "deploy.onnx",
            "input": "image",
            "head": head,
            "output": head,
            "scores_are": "logits",
            "upsampling": upsampling,
        },
        "classes": CLASSES,
        "palette": PALETTE,
        "crf": None,
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in contents.items()
        },
        "verification": [{**COMPARISON}],
        "versions": {"onnx": onnx.__version__},
    }
    return {**manifest, **changes}


def write_bundle(folder: Path, head: str = "scores", contents: dict[str, bytes] | None = None, **changes: Any) -> Path:
    """Write a complete bundle, with further files if any, and return its folder."""
    files = {"deploy.onnx": make_model(head), **(contents or {})}
    graphs = {name: describe_model(content) for name, content in files.items() if name.endswith(".onnx")}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "manifest.json").write_text(json.dumps(make_manifest(files, head, **{"graphs": graphs, **changes})))
    return folder


def write_torch_bundle(folder: Path, head: str = "scores", source: str | None = None, **changes: Any) -> Path:
    """Write a bundle with the same network as torch code and weights beside the graph."""
    weights = safetensors.numpy.save({"score.weight": WEIGHT.reshape(4, 3, 1, 1)})
    text = MODEL_SOURCE if source is None else source
    return write_bundle(folder, head, {"model.py": text.encode(), "model.safetensors": weights}, **changes)


def make_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Patches of the four classes' colors with noise: H x W x 3 uint8 RGB."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    patch = (rows // 12 + 2 * (columns // 12)) % 4
    colors = np.array([[10, 10, 10], [20, 30, 220], [30, 210, 20], [230, 20, 20]])
    noisy = colors[patch] + random.integers(-10, 11, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


class FixedBackend:
    """A backend with the same output for every image; `closed` counts the calls of `close`."""

    name, device = "fixed", "cpu"
    inputs = (TensorSpec("image", "uint8", ("n", "h", "w", 3)),)

    def __init__(self, name: str, output: np.ndarray, labels: int | str = "l"):
        self.outputs = (TensorSpec(name, output.dtype.name, ("n", labels, "h", "w")),)
        self._result = {name: output}
        self.closed = 0

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        return self._result

    def close(self) -> None:
        self.closed += 1
