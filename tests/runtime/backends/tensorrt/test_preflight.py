"""The preflight finds known problems by node, and the DeepLab nets pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from atrous.errors import InputError
from atrous.runtime.backends.tensorrt.capabilities import LINES
from atrous.runtime.backends.tensorrt.preflight import Finding, check_graph, require_sound

from ....converter.precision.graphs import scan_model
from ...bundles import make_model
from .onnx_models import find_facts, finish_model, make_graph, make_node_graph


def findings_of(op: str, inputs: Any = ("data",), constants: Any = None, **more: Any) -> list[Finding]:
    kinds = {name: more.pop(name) for name in ("data", "out") if name in more}
    node = helper.make_node(op, list(inputs), ["out"], name="it", **more)
    return check_graph(find_facts(make_node_graph([node], constants, **kinds)), LINES["10"])


def grave(findings: list[Finding]) -> list[str]:
    return [finding.problem for finding in findings if finding.severity == "refuse"]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("model", [make_model(), make_graph("fp16"), make_graph("int8")])
def test_sound_graphs(line: str, model: bytes) -> None:
    assert grave(check_graph(find_facts(model), LINES[line])) == []


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 2, 1), (3, 2, 0), (3, 1, 1), (2, 2, 0)])
def test_ceil_mode_of_the_deeplab_nets_is_safe(kernel: int, stride: int, pad: int) -> None:
    more = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "ceil_mode": 1}
    assert findings_of("MaxPool", **more) == []


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 4), st.integers(0, 4))
def test_ceil_mode_is_refused_iff_a_window_can_escape(kernel: int, stride: int, start: int, end: int) -> None:
    """Against a count of the windows of every input size, with Caffe's rule and with rounding up alone."""
    start, end = min(start, kernel - 1), min(end, kernel - 1)
    escapes = False
    for size in range(1, 40):
        padded = size + start + end
        if padded < kernel:
            continue
        windows = -(-(padded - kernel) // stride) + 1
        escapes |= (windows - 1) * stride >= size + start
    more = {"kernel_shape": [kernel, 1], "strides": [stride, 1], "pads": [start, 0, end, 0], "ceil_mode": 1}
    assert bool(findings_of("MaxPool", **more)) == escapes


def test_average_pooling() -> None:
    basic: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2]}
    assert findings_of("AveragePool", **basic, ceil_mode=1) == []
    assert findings_of("AveragePool", **basic, pads=[1, 1, 1, 1]) == []
    assert "divisor" in grave(findings_of("AveragePool", **basic, pads=[1, 1, 1, 1], ceil_mode=1))[0]


def test_dilated_pooling() -> None:
    assert grave(findings_of("MaxPool", kernel_shape=[3, 3], dilations=[2, 2])) == ["TensorRT has no dilated pooling"]


@pytest.mark.parametrize("line", LINES)
def test_computed_biases(line: str) -> None:
    weights = {"w": np.zeros((1, 1, 1, 1), np.float32)}
    nodes = [
        helper.make_node("ReduceSum", ["data"], ["b"], name="sum"),
        helper.make_node("Conv", ["data", "w", "b"], ["out"], name="it"),
    ]
    found = check_graph(find_facts(make_node_graph(nodes, weights)), LINES[line])
    assert grave(found) == ["its bias is computed, its weights are constant"]


def test_quantized_weights_are_constants() -> None:
    assert grave(check_graph(find_facts(make_graph("int8")), LINES["8.5"])) == []


@pytest.mark.parametrize("op", ["QuantizeLinear", "DequantizeLinear"])
def test_zero_points(op: str) -> None:
    for value, wrong in ((0, False), (3, True)):
        found = findings_of(op, inputs=("data", "s", "z"), constants={"s": np.float32(1), "z": np.int8(value)})
        assert grave(found) == (["its zero point is not 0"] if wrong else [])


def test_unsigned_codes() -> None:
    constants = {"s": np.float32(1), "z": np.uint8(0)}
    found = findings_of("QuantizeLinear", inputs=("data", "s", "z"), constants=constants, out=TensorProto.UINT8)
    assert grave(found) == ["TensorRT quantizes to int8, not to uint8"]


def test_resizes() -> None:
    sizes = {"s": np.array([1, 1, 2, 2], np.float32), "n": np.array([1, 1, 9, 9], np.int64)}
    corners: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    assert findings_of("Resize", inputs=("data", "", "", "n"), constants=sizes, **corners) == []
    by_scales = findings_of("Resize", inputs=("data", "", "s"), constants=sizes, **corners)
    assert [(finding.severity, finding.nodes) for finding in by_scales] == [("warn", ("it",))]
    inputs = ("data", "", "", "n")
    assert grave(findings_of("Resize", inputs=inputs, constants=sizes, **corners, data=TensorProto.UINT8))


@pytest.mark.parametrize(
    ("source", "target", "wrong"),
    [
        (TensorProto.UINT8, TensorProto.FLOAT, False),
        (TensorProto.FLOAT16, TensorProto.UINT8, False),
        (TensorProto.UINT8, TensorProto.INT32, True),
        (TensorProto.INT64, TensorProto.UINT8, True),
        (TensorProto.INT64, TensorProto.FLOAT, False),
    ],
)
def test_casts(source: int, target: int, wrong: bool) -> None:
    assert bool(grave(findings_of("Cast", data=source, out=target, to=target))) == wrong


@pytest.mark.parametrize("op", ["Shape", "Transpose", "Resize"])
def test_uint8_goes_into_casts_only(op: str) -> None:
    assert grave(findings_of(op, data=TensorProto.UINT8)) == ["TensorRT accepts uint8 in a Cast only"]


@pytest.mark.parametrize("line", LINES)
def test_what_older_parsers_pass_over_or_lack(line: str) -> None:
    constants = {"p": np.zeros(2, np.int64), "v": np.float32(0), "a": np.zeros(1, np.int64), "s": np.float32(1)}
    nodes = [
        helper.make_node("Shape", ["data"], ["n"], name="part", start=1, end=2),
        helper.make_node("Shape", ["data"], ["m"], name="whole"),
        helper.make_node("Pad", ["data", "p", "v", "a"], ["o"], name="axes"),
        helper.make_node("Pad", ["data", "p", "v"], ["l"], name="all"),
        helper.make_node("QuantizeLinear", ["data", "s"], ["out"], name="quantize"),
    ]
    found = check_graph(find_facts(make_node_graph(nodes, constants, out=TensorProto.UINT8)), LINES[line])
    expected = {"8.5": {"part", "axes", "quantize"}, "8.6": {"part", "axes", "quantize"}, "9": {"part", "axes"}}
    refused = {node for finding in found if finding.severity == "refuse" for node in finding.nodes}
    assert refused == expected.get(line, set())


@pytest.mark.parametrize("line", LINES)
def test_half_scales(line: str) -> None:
    constants = {"s": np.float16(1), "z": np.int8(0)}
    node = helper.make_node("QuantizeLinear", ["data", "s", "z"], ["out"], name="it")
    model = make_node_graph([node], constants, data=TensorProto.FLOAT16, out=TensorProto.INT8)
    found = grave(check_graph(find_facts(model), LINES[line]))
    assert [problem.partition("supports ")[2] for problem in found] == (
        ["float32 scales only"] if line in ("8.5", "8.6") else []
    )


def test_the_labels_head_casts_by_way_of_what_tensorrt_takes() -> None:
    """ONNX Runtime accepts ArgMax cast directly to uint8, TensorRT does not."""
    found = check_graph(find_facts(make_model("labels")), LINES["10"])
    assert [finding.severity for finding in found] == ["refuse", "warn"]
    assert "casts uint8 from and to float32 and float16 only" in found[0].problem
    assert "ArgMax is slow" in found[1].problem


def test_a_newer_opset_is_warned_of() -> None:
    graph = helper.make_graph([helper.make_node("Relu", ["data"], ["out"])], "net", [], [])
    found = check_graph(find_facts(finish_model(graph, opset=21)), LINES["8.5"])
    assert [finding.severity for finding in found] == ["warn"]
    assert "opset 21" in found[0].problem


def test_all_refusals_in_one_message() -> None:
    findings = [Finding("refuse", (f"pool{index}",), f"bad {index}", "do this") for index in range(12)]
    with pytest.raises(InputError, match=r"pool0: bad 0: do this; .*pool9: bad 9.*and 2 more problems"):
        require_sound(findings)
    require_sound([Finding("warn", ("x",), "y", "z")])


@pytest.mark.parametrize(("count", "named"), [(1, "it0"), (2, "it0 and 1 more node"), (12, "it0 and 11 more nodes")])
def test_one_problem_of_many_nodes_is_one_finding(count: int, named: str) -> None:
    constants = {"s": np.float32(1), "z": np.uint8(1)}
    nodes = [helper.make_node("QuantizeLinear", ["data", "s", "z"], [f"q{n}"], name=f"it{n}") for n in range(count)]
    (found,) = check_graph(find_facts(make_node_graph(nodes, constants)), LINES["11"])
    assert found.nodes == tuple(f"it{n}" for n in range(count))
    with pytest.raises(InputError, match=f"results: {named}: TensorRT quantizes to int8, not to uint8: use"):
        require_sound([found])


def test_pooling_with_indices() -> None:
    node = helper.make_node("MaxPool", ["data"], ["out", "indices"], name="it", kernel_shape=[2, 2], strides=[2, 2])
    found = grave(check_graph(find_facts(make_node_graph([node])), LINES["11"]))
    assert found == ["TensorRT has no MaxPool with indices, which unpooling needs"]


@pytest.mark.parametrize("line", LINES)
def test_bodies_are_not_checked(line: str) -> None:
    """The parsers of 8.5, 8.6 and 9 silently ignore some attributes, so that such a body is refused there."""
    (found,) = check_graph(find_facts(scan_model().SerializeToString()), LINES[line])
    assert (found.nodes, found.problem) == (("s/Scan/node",), "the nodes in its body are not checked")
    assert found.severity == ("refuse" if line in ("8.5", "8.6", "9") else "warn")


def test_every_pattern_of_the_converter_is_known() -> None:
    """The tables cover the patterns that the converter writes, and unknown ones of a later converter are ignored."""
    facts = find_facts(make_graph())
    every = facts.model_copy(update={"patterns": {name: (name,) for name in facts.patterns}})
    found = check_graph(every, LINES["8.5"])
    assert {node for finding in found for node in finding.nodes} == set(facts.patterns)
    later = facts.model_copy(update={"patterns": {"unheard_of": ("it",)}})
    assert check_graph(later, LINES["8.5"]) == []
