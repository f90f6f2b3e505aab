"""Facts of hand-made graphs, one known pattern each, and of the converter's own variants."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from atrous.converter import precision
from atrous.converter.precision.calibrate import observe
from atrous.converter.precision.cast import cast_graph
from atrous.converter.precision.facts import PATTERNS
from atrous.converter.precision.float_types import BFLOAT16, FLOAT16
from atrous.converter.precision.quantize import find_quantizable, quantize_graph

from .graphs import make_deploy, make_image, scan_model

FLOAT, BYTES, BOOL, LONG = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.BOOL, TensorProto.INT64
CONVS = ["conv1/Conv/node", "conv2/Conv/node", "conv3/Conv/node", "fc6/Conv/node", "fc8/Conv/node"]
ZERO = np.int8(0)


def describe_graph(model: onnx.ModelProto) -> dict[str, Any]:
    """The facts as the manifest holds them."""
    return precision.describe_graph(model).model_dump(mode="json")


def model_of(
    nodes: list[onnx.NodeProto], *, kind: int = FLOAT, to: int = FLOAT, opset: int = 19, **constants: Any
) -> onnx.ModelProto:
    """x (1, 2, 8, 8) -> y by some nodes and constants."""
    graph = helper.make_graph(
        nodes,
        "facts",
        [helper.make_tensor_value_info("x", kind, [1, 2, 8, 8])],
        [helper.make_tensor_value_info("y", to, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def one(op: str, inputs: str = "x", name: str = "n", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, ["" if i == "-" else i for i in inputs.split()], ["y"], name=name, **attributes)


def pool(op: str, kernel: int, stride: int, pad: int, ceil_mode: int = 1) -> onnx.NodeProto:
    shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    return one(op, ceil_mode=ceil_mode, **shape)


W = np.ones((2, 2, 1, 1), np.float32)
S = np.float32(0.1)
CASES: list[tuple[onnx.ModelProto, set[str]]] = [
    (model_of([one("Relu")]), set()),
    (model_of([pool("MaxPool", 3, 2, 1)]), set()),
    (model_of([pool("MaxPool", 2, 2, 1)]), {"late_pooling_window"}),
    (model_of([pool("MaxPool", 2, 2, 1, ceil_mode=0)]), set()),
    (model_of([one("MaxPool", kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1)]), {"late_pooling_window"}),
    (model_of([pool("AveragePool", 3, 1, 1)]), {"padded_ceil_average"}),
    (model_of([pool("AveragePool", 3, 1, 1, ceil_mode=0)]), set()),
    (model_of([one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2])]), {"dilated_pooling"}),
    (
        model_of([helper.make_node("MaxPool", ["x"], ["y", "places"], name="n", kernel_shape=[2, 2])]),
        {"pooling_indices"},
    ),
    (model_of([helper.make_node("MaxPool", ["x"], ["y", ""], name="n", kernel_shape=[2, 2])]), set()),
    (model_of([one("NonZero")], to=LONG), {"data_dependent_size"}),
    (model_of([one("Compress", "x k", axis=1)], k=np.array([True, False])), {"unsupported_operator"}),
    (model_of([one("Dropout", "x r m")], r=np.float32(0.5), m=np.array(True)), {"unsupported_operator"}),
    (model_of([one("Dropout", "x r m")], r=np.float32(0.5), m=np.array(False)), set()),
    (model_of([one("Dropout", "x r")], r=np.float32(0.5)), set()),
    (model_of([one("Conv", "x w b")], w=W, b=np.zeros(2, np.float32)), set()),
    (
        model_of([helper.make_node("Relu", ["v"], ["b"]), one("Conv", "x w b")], w=W, v=np.zeros(2, np.float32)),
        {"computed_bias"},
    ),
    (model_of([one("QuantizeLinear", "x s z")], to=TensorProto.INT8, s=S, z=ZERO), set()),
    (model_of([one("QuantizeLinear", "x s z")], to=TensorProto.INT8, s=S, z=np.int8(3)), {"shifted_zero_point"}),
    (model_of([one("QuantizeLinear", "x s z")], to=BYTES, s=S, z=np.uint8(0)), {"uint8_codes"}),
    (model_of([one("QuantizeLinear", "x s")], to=BYTES, s=S), {"uint8_codes", "missing_zero_point"}),
    (
        model_of(
            [one("QuantizeLinear", "x s z")], kind=TensorProto.FLOAT16, to=TensorProto.INT8, s=np.float16(0.1), z=ZERO
        ),
        {"narrow_scale"},
    ),
    (
        model_of([one("DequantizeLinear", "x s z")], kind=BYTES, s=S, z=np.uint8(128)),
        {"uint8_codes", "shifted_zero_point"},
    ),
    (
        model_of(
            [one("Resize", "x - s", coordinate_transformation_mode="align_corners", mode="linear")],
            s=np.ones(4, np.float32),
        ),
        {"aligned_resize_by_scales"},
    ),
    (
        model_of(
            [one("Resize", "x - - s", coordinate_transformation_mode="align_corners", mode="linear")],
            s=np.array([1, 2, 16, 16]),
        ),
        set(),
    ),
    (model_of([one("Resize", "x - s")], kind=BOOL, to=BOOL, s=np.ones(4, np.float32)), {"bool_resize"}),
    (model_of([one("Transpose")], kind=BYTES, to=BYTES), {"uint8_operand"}),
    (model_of([one("Cast", to=FLOAT)], kind=BYTES), set()),
    (model_of([one("Cast", to=LONG)], kind=BYTES, to=LONG), {"uint8_cast"}),
    (model_of([one("Shape")], to=LONG), set()),
    (model_of([one("Shape", start=1)], to=LONG), {"partial_shape"}),
    (model_of([one("Pad", "x p")], p=np.zeros(8, np.int64)), set()),
    (model_of([one("Pad", "x p - a")], p=np.zeros(4, np.int64), a=np.array([2, 3])), {"pad_axes"}),
    (model_of([one("ArgMax", axis=1)], to=LONG), {"argmax"}),
]


@pytest.mark.parametrize(("model", "found"), CASES)
def test_each_pattern_and_its_absence(model: onnx.ModelProto, found: set[str]) -> None:
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, strict_mode=True), full_check=True)
    facts = describe_graph(model)
    assert facts["patterns"] == {name: ["n"] if name in found else [] for name in PATTERNS}


def test_a_computed_zero_point_counts_as_shifted() -> None:
    nodes = [one("QuantizeLinear", "x s z"), helper.make_node("Identity", ["z0"], ["z"])]
    facts = describe_graph(model_of(nodes[::-1], to=TensorProto.INT8, s=S, z0=ZERO))
    assert facts["patterns"]["shifted_zero_point"] == ["n"]


def test_inputs_outputs_and_types() -> None:
    facts = describe_graph(make_deploy())
    assert facts["opset"] == 17
    assert facts["inputs"] == {"image": {"type": "uint8", "shape": [-1, -1, -1, 3]}}
    assert facts["outputs"] == {"scores": {"type": "float32", "shape": [-1, 5, -1, -1]}}
    assert facts["types"] == ["float32", "int64", "uint8"]
    assert facts["quantized"] is False
    assert facts["node_precisions"] == dict.fromkeys(CONVS, "fp32")
    assert facts["wide_nodes"] == {}
    assert facts["subgraphs"] == []


def test_precisions_of_typed_graphs() -> None:
    half = describe_graph(cast_graph(make_deploy(), FLOAT16, keep={"fc6/Conv/node": "asked"}).model)
    assert half["node_precisions"] == dict.fromkeys(CONVS, "fp16") | {"fc6/Conv/node": "fp32"}
    assert half["wide_nodes"] == {
        "graph/Sub/node": "Sub",
        "fc6/Conv/node": "Conv",
        "fc8_interp/Resize/node": "Resize",
    }
    brain = describe_graph(cast_graph(make_deploy(), BFLOAT16).model)
    assert set(brain["node_precisions"].values()) == {"bf16"}
    assert (brain["opset"], brain["wide_nodes"]) == (22, {})


@pytest.mark.parametrize(
    ("codes", "precision", "shifted"), [("int8", "int8", 0), ("uint8", "int8", 2), ("fp8", "fp8", 0)]
)
def test_precisions_of_quantized_graphs(codes: Any, precision: str, shifted: int) -> None:
    model = make_deploy()
    seen = observe(model, [make_image()], threads=1)
    layers = find_quantizable(model)
    reaches = {layer.source: seen[layer.source].largest for layer in layers}
    facts = describe_graph(quantize_graph(model, layers, reaches, seen, codes))
    assert facts["node_precisions"] == dict.fromkeys(CONVS, precision)
    assert facts["quantized"] is True
    assert len(facts["patterns"]["shifted_zero_point"]) == shifted
    assert len(facts["patterns"]["uint8_codes"]) == (10 if codes == "uint8" else 0)


def test_bodies_are_listed() -> None:
    facts = describe_graph(scan_model())
    assert facts["subgraphs"] == ["s/Scan/node"]
    assert facts["node_precisions"] == {"c1/Conv/node": "fp32", "score/Conv/node": "fp32"}


def test_unnamed_nodes_go_by_their_output() -> None:
    facts = describe_graph(model_of([one("Conv", "x w", name="")], w=W))
    assert facts["node_precisions"] == {"y": "fp32"}
