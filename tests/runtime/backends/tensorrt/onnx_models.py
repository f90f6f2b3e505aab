"""Small ONNX graphs in each precision: image -> Conv, Relu, Conv -> scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from atrous.bundle.manifest import GraphFacts
from atrous.converter.precision import describe_graph


def find_facts(model: bytes) -> GraphFacts:
    """The facts about a model as a runtime reads them from the manifest."""
    return describe_graph(onnx.load_from_string(model))


def make_graph(
    precision: str = "fp32", *, dilation: int = 1, keep_last: bool = False, shape: tuple[Any, ...] = ("n", 3, "h", "w")
) -> bytes:
    """A graph of two convolutions; with `keep_last` the second stays in FP32, as a precision pass leaves it."""
    random = np.random.default_rng(0)
    kind = np.float16 if precision == "fp16" else np.float32
    weights: dict[str, np.ndarray] = {
        "w1": random.normal(size=(8, 3, 3, 3)).astype(kind),
        "b1": np.zeros(8, kind),
        "w2": random.normal(size=(4, 8, 1, 1)).astype(np.float32 if keep_last else kind),
        "b2": np.zeros(4, np.float32 if keep_last else kind),
    }
    pads, spread = [dilation] * 4, [dilation] * 2
    nodes, last = [], "data"
    if precision == "fp16":
        nodes.append(helper.make_node("Cast", [last], ["half"], name="to_half", to=TensorProto.FLOAT16))
        last = "half"
    weight = "w1"
    if precision == "int8":
        weights["w1"] = random.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8)
        weights |= {"s": np.float32(0.1), "z": np.int8(0), "sw": np.ones(8, np.float32), "zw": np.zeros(8, np.int8)}
        nodes += [
            helper.make_node("QuantizeLinear", [last, "s", "z"], ["q"], name="q"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"], name="dq"),
            helper.make_node("DequantizeLinear", ["w1", "sw", "zw"], ["dw"], name="dw", axis=0),
        ]
        last, weight = "dq", "dw"
    nodes += [
        helper.make_node("Conv", [last, weight, "b1"], ["c1"], name="conv1", pads=pads, dilations=spread),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
    ]
    last = "r1"
    if precision == "fp16" and keep_last:
        nodes.append(helper.make_node("Cast", [last], ["wide"], name="to_float", to=TensorProto.FLOAT))
        last = "wide"
    nodes.append(helper.make_node("Conv", [last, "w2", "b2"], ["c2"], name="conv2"))
    last = "c2"
    if precision == "fp16" and not keep_last:
        nodes.append(helper.make_node("Cast", [last], ["scores"], name="back", to=TensorProto.FLOAT))
    else:
        nodes.append(helper.make_node("Identity", [last], ["scores"], name="out"))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [shape[0], 4, shape[2], shape[3]])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return finish_model(graph)


def make_node_graph(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray] | None = None, **kinds: int) -> bytes:
    """A graph of given nodes, from "data" to "out"; `kinds` are the element types of these, float by default."""
    ends = {"data": kinds.get("data", TensorProto.FLOAT), "out": kinds.get("out", TensorProto.FLOAT)}
    values = [helper.make_tensor_value_info(name, kind, None) for name, kind in ends.items()]
    initializers = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    return finish_model(helper.make_graph(nodes, "net", values[:1], values[1:], initializers))


def finish_model(graph: onnx.GraphProto, opset: int = 17) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return model.SerializeToString()
