"""The ONNX reader against the onnx library, and on bytes that are not ONNX."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from atrous.errors import BackendError, InputError
from atrous.runtime.backends.tensorrt.capabilities import LINES
from atrous.runtime.backends.tensorrt.onnx_facts import ELEMENT_TYPES
from atrous.runtime.backends.tensorrt.onnx_reader import read_facts
from atrous.runtime.backends.tensorrt.options import BuildOptions
from atrous.runtime.backends.tensorrt.plan import plan_build
from atrous.runtime.backends.tensorrt.preflight import check_graph

from ...bundles import make_model
from .onnx_models import finish_model, make_graph, make_node_graph

MODELS = {
    **{head: make_model(head) for head in ("scores", "labels", "lowres")},
    **{name: make_graph(name) for name in ("fp32", "fp16", "int8")},
    "kept": make_graph("fp16", keep_last=True),
}


@pytest.mark.parametrize("name", MODELS)
def test_same_as_the_library(name: str) -> None:
    graph, model = read_facts(MODELS[name]), onnx.load_from_string(MODELS[name])
    assert graph.opset == model.opset_import[0].version
    assert [(n.op, n.name, list(n.inputs), list(n.outputs)) for n in graph.nodes] == [
        (n.op_type, n.name, list(n.input), list(n.output)) for n in model.graph.node
    ]
    for mine, theirs in zip(graph.nodes, model.graph.node, strict=True):
        assert {n: list(v) if isinstance(v, tuple) else v for n, v in mine.attributes.items()} == {
            a.name: _plain(helper.get_attribute_value(a)) for a in theirs.attribute
        }
    assert {n: i.shape for n, i in graph.initializers.items()} == {
        i.name: tuple(i.dims) for i in model.graph.initializer
    }
    assert graph.outputs == tuple(value.name for value in model.graph.output)


@pytest.mark.parametrize("name", MODELS)
def test_types_as_the_library_infers_them(name: str) -> None:
    graph = read_facts(MODELS[name])
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(MODELS[name])).graph
    for value in (*inferred.value_info, *inferred.output, *inferred.input):
        assert graph.types[value.name] == ELEMENT_TYPES[value.type.tensor_type.elem_type], value.name


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def test_precisions() -> None:
    wide, half, quantized, kept = (read_facts(MODELS[name]) for name in ("fp32", "fp16", "int8", "kept"))
    assert [graph.precisions for graph in (wide, half, quantized, kept)] == [
        {"fp32"},
        {"fp16"},
        {"int8", "fp32"},
        {"fp16", "fp32"},
    ]


def test_inputs_and_free_sizes() -> None:
    graph = read_facts(make_graph(shape=("n", 3, 33, "w")))
    assert graph.inputs == {"data": ("float32", (-1, 3, 33, -1))}
    assert read_facts(MODELS["scores"]).inputs == {"image": ("uint8", (-1, -1, -1, 3))}


def test_zero_points() -> None:
    constants = {"s": np.float32(1), "z": np.int8(0), "o": np.int8(3)}
    node = helper.make_node("QuantizeLinear", ["data", "s", "z"], ["out"])
    graph = read_facts(make_node_graph([node], constants, out=TensorProto.INT8))
    assert graph.initializers["z"].zeros_only is True
    assert graph.initializers["o"].zeros_only is False


def test_float_attributes_and_packed_lists() -> None:
    node = helper.make_node("Upsample", ["data"], ["out"], scales=[1.0, 1.0, 2.5, -2.5], alpha=0.25, ints=[-1, 300])
    found = read_facts(make_node_graph([node])).nodes[0].attributes
    assert found == {"scales": (1.0, 1.0, 2.5, -2.5), "alpha": 0.25, "ints": (-1, 300)}


def test_subgraphs_are_refused() -> None:
    inner = helper.make_graph([helper.make_node("Identity", ["data"], ["y"])], "inner", [], [])
    node = helper.make_node("If", ["c"], ["out"], then_branch=inner, else_branch=inner)
    with pytest.raises(InputError, match="is a graph, of If"):
        read_facts(make_node_graph([node]))


@pytest.mark.parametrize("model", [b"", b"text", b"\x3a\xff\xff\xff\xff\x7f", b"\x38" + b"\xff" * 20, b"\x3b"])
def test_no_onnx(model: bytes) -> None:
    with pytest.raises(InputError):
        read_facts(model)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_models_raise_nothing_else(data: st.DataObject) -> None:
    model = bytearray(MODELS["kept"])
    for _ in range(data.draw(st.integers(1, 4))):
        model[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(model)))
    with contextlib.suppress(InputError):
        facts = read_facts(bytes(model[:cut]))
        for known in LINES.values():
            check_graph(facts, known)
            with contextlib.suppress(BackendError):
                plan_build(BuildOptions(profiles=({},)), known, facts)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Cast", ["data"], [], to=1),
        helper.make_node("Cast", [], ["out"], to=1),
        helper.make_node("Resize", [], ["out"]),
        helper.make_node("DequantizeLinear", ["data"], ["out"]),
    ],
)
def test_nodes_that_lack_inputs_or_outputs(node: onnx.NodeProto) -> None:
    with pytest.raises(InputError, match="too few"):
        read_facts(make_node_graph([node]))


def test_too_many_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atrous.runtime.backends.tensorrt.onnx_reader._MAX_NODES", 3)
    nodes = [helper.make_node("Identity", ["data"], [f"v{index}"]) for index in range(4)]
    with pytest.raises(InputError, match="more than 3 nodes"):
        read_facts(finish_model(helper.make_graph(nodes, "net", [], [])))
