"""Small deployment graphs, images for them, and ways to run them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from atrous.converter import read_net
from atrous.converter.export.deploy import export_deploy, plan_deployment
from atrous.converter.export.torch_module import to_torch

from ..nets import DEEPLAB, conv, data, layer, random_weights, relu

Array = np.ndarray[Any, Any]
MEAN = (104.008, 116.669, 122.675)

#: SegNet in small: a pooling mask leads an unpooling, over more pixels than float16 can count
SEGNET = (
    data(1, 3, 64, 64)
    + conv("conv1", "data", "conv1", 4, 3, "pad: 1")
    + relu("relu1", "conv1")
    + layer("Pooling", "pool", "conv1", ["pool", "mask"], "pooling_param { kernel_size: 2 stride: 2 }")
    + conv("conv2", "pool", "conv2", 4, 3, "pad: 1")
    + layer("Upsample", "up", ["conv2", "mask"], "up", "upsample_param { scale: 2 }")
    + conv("score", "up", "score", 3, 3, "pad: 1")
    + layer("Softmax", "prob", "score", "prob")
)
#: convolution, BatchNorm, Scale, and a second one whose sum with a shortcut cannot be folded
NORMED = (
    data(1, 3, 32, 32)
    + conv("conv1", "data", "conv1", 4, 3, "pad: 1 bias_term: false")
    + layer("BatchNorm", "bn1", "conv1", "bn1")
    + layer("Scale", "scale1", "bn1", "scale1", "scale_param { bias_term: true }")
    + relu("relu1", "scale1")
    + conv("conv2", "scale1", "conv2", 4, 3, "pad: 1")
    + layer("BatchNorm", "bn2", "conv2", "bn2")
    + layer("Eltwise", "sum", ["bn2", "scale1"], "sum")
    + conv("score", "sum", "score", 3)
)


def make_deploy(text: str = DEEPLAB, seed: int = 0, **options: Any) -> onnx.ModelProto:
    """The deployment graph of a net with random weights."""
    weights = random_weights(read_net(text), seed)
    for name in weights:
        if name.startswith("bn"):
            mean, variance, _ = weights[name]
            weights[name] = [mean, np.abs(variance) + np.float32(0.5), np.ones(1, np.float32)]
    net = read_net(text, weights)
    return export_deploy(plan_deployment(net), to_torch(net), mean=MEAN, **options)


def make_image(height: int = 41, width: int = 49, seed: int = 3) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


class CalibrationImages:
    """A `CalibrationDataReader` of ONNX Runtime."""

    def __init__(self, *images: Array) -> None:
        self.images = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        image = next(self.images, None)
        return None if image is None else {"image": image[None]}


def run(
    model: onnx.ModelProto, image: Array, names: Sequence[str] | None = None, optimize: bool = False
) -> list[Array]:
    """Values of a graph on one image; by default its outputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    known = {output.name for output in model.graph.output}
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names or () if name not in known)
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results: list[Array] = session.run(list(names) if names else None, {model.graph.input[0].name: image[None]})
    return results


def weights_of(model: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def change_weight(model: onnx.ModelProto, name: str, values: Array) -> onnx.ModelProto:
    """A copy of the model with another weight."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(values, name))
    return changed


def node_named(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Every value's element type, inferred anew."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {info.name: info.type.tensor_type.elem_type for info in (*graph.value_info, *graph.output, *graph.input)}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def scan_model() -> onnx.ModelProto:
    """conv -> a Scan over rows whose body reads a weight and a value of the outer graph -> conv."""
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)

    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "row"], ["sum"], name="s/Add/node"),
            helper.make_node("Mul", ["sum", "decay"], ["scaled"], name="s/Mul/node"),
            helper.make_node("Add", ["scaled", "bias_map"], ["next"], name="s/Add/node.2"),
            helper.make_node("Identity", ["next"], ["out"], name="s/Identity/node"),
        ],
        "body",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2, 8]) for n in ("state", "row")],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2, 8]) for n in ("next", "out")],
    )
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], name="graph/Cast/node", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], name="graph/Transpose/node", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w1"], ["c1"], name="c1/Conv/node"),
        helper.make_node("ReduceMean", ["c1"], ["bias_map_wide"], name="m/ReduceMean/node", axes=[2], keepdims=0),
        helper.make_node("Relu", ["bias_map_wide"], ["bias_map"], name="m/Relu/node"),
        helper.make_node(
            "Scan", ["start", "c1"], ["last", "rows"], name="s/Scan/node", body=body, num_scan_inputs=1,
            scan_input_axes=[2], scan_output_axes=[2],
        ),
        helper.make_node("Conv", ["rows", "w2"], ["scores"], name="score/Conv/node"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "scan",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 8, 8, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3, 8, 8])],
        [
            weight("w1", 2, 3, 1, 1),
            weight("w2", 3, 2, 1, 1),
            numpy_helper.from_array(np.zeros((1, 2, 8), np.float32), "start"),
            numpy_helper.from_array(np.float32(0.5), "decay"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model
