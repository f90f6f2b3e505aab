"""NVIDIA's parser refuses what the checks before a build refuse, and builds what only older parsers lack.

Not tried here: windows outside the input and divisors with ceil_mode, which TensorRT builds and computes otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tools.nvidia_check.graphs import Graph
from tools.nvidia_check.harness import Nvidia
from tools.nvidia_check.sweep import give

from .onnx_models import find_facts, finish_model

CONSTANTS: dict[str, Any] = {
    "scale": np.float32(0.1),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "sizes": np.array([1, 4, 9, 9], np.int64),
    "three": np.int8(3),
    "kept": np.array([True, False, True, True]),
    "unsigned": np.uint8(3),
}
POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}
#: pattern -> operator, inputs, attributes and outputs of a node that has it, and the type of the graph's input
CASES: dict[str, tuple[str, list[str], dict[str, Any], list[str], int]] = {
    "dilated_pooling": ("MaxPool", ["data"], {**POOL, "dilations": [2, 2]}, ["out"], TensorProto.FLOAT),
    "pooling_indices": ("MaxPool", ["data"], POOL, ["out", "indices"], TensorProto.FLOAT),
    "unsupported_operator": ("Compress", ["data", "kept"], {"axis": 1}, ["out"], TensorProto.FLOAT),
    "shifted_zero_point": ("QuantizeLinear", ["data", "scale", "three"], {}, ["q"], TensorProto.FLOAT),
    "uint8_codes": ("QuantizeLinear", ["data", "scale", "unsigned"], {}, ["q"], TensorProto.FLOAT),
    "bool_resize": ("Resize", ["data", "", "", "sizes"], {"mode": "nearest"}, ["out"], TensorProto.BOOL),
    "uint8_operand": ("Transpose", ["data"], {"perm": [0, 2, 3, 1]}, ["out"], TensorProto.UINT8),
}
OLDER: dict[str, tuple[str, list[str], dict[str, Any], list[str], int]] = {
    "partial_shape": ("Shape", ["data"], {"start": 1, "end": 3}, ["n"], TensorProto.FLOAT),
    "aligned_resize_by_scales": (
        "Resize",
        ["data", "", "scales"],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        ["out"],
        TensorProto.FLOAT,
    ),
}


def write_case(folder: Path, pattern: str) -> Graph:
    """A graph of one node with a pattern, and what makes a graph of it."""
    op, inputs, attributes, outputs, kind = {**CASES, **OLDER}[pattern]
    nodes, made = [helper.make_node(op, inputs, outputs, name="it", **attributes)], kind
    if outputs == ["q"]:
        nodes.append(helper.make_node("DequantizeLinear", ["q", *inputs[1:]], ["out"], name="back"))
    elif outputs == ["n"]:
        nodes.append(helper.make_node("ConstantOfShape", ["n"], ["out"], name="fill"))
    elif kind == TensorProto.UINT8:
        nodes[0].output[0] = "codes"
        nodes.append(helper.make_node("Cast", ["codes"], ["out"], name="cast", to=TensorProto.FLOAT))
        made = TensorProto.FLOAT
    ends = [
        helper.make_tensor_value_info("data", kind, [1, 4, 8, 8]),
        helper.make_tensor_value_info("out", made, None),
    ]
    used = {name for node in nodes for name in node.input}
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in CONSTANTS.items() if name in used]
    model = finish_model(helper.make_graph(nodes, "net", ends[:1], ends[1:], constants))
    graph = Graph(pattern, folder / "net.onnx", folder / "net.json")
    graph.model.write_bytes(model)
    facts = find_facts(model)
    assert facts.patterns[pattern]
    graph.facts.write_text(facts.model_dump_json())
    return graph


@pytest.mark.parametrize("pattern", CASES)
def test_nvidia_refuses_the_same(nvidia: Nvidia, tmp_path: Path, pattern: str) -> None:
    given = give(nvidia, write_case(tmp_path, pattern))
    assert given.verdict == "refused", given.reason
    assert ": TensorRT" in given.reason or "zero point" in given.reason


@pytest.mark.parametrize("pattern", OLDER)
def test_nvidia_builds_what_only_older_parsers_lack(nvidia: Nvidia, tmp_path: Path, pattern: str) -> None:
    given = give(nvidia, write_case(tmp_path, pattern))
    assert given.verdict == "built", given.reason
