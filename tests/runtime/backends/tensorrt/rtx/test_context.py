"""The model around a plan: read back by the onnx library and by ONNX Runtime."""

from __future__ import annotations

import onnx
import pytest

from atrous.bundle.manifest import GraphBlob, GraphFacts
from atrous.errors import BackendError
from atrous.runtime.backends.self_contained import require_self_contained
from atrous.runtime.backends.tensorrt.rtx import context

from ..onnx_models import find_facts, make_graph

PLAN = bytes(range(256)) * 40


def wrap(facts: GraphFacts | None = None, plan: bytes = PLAN) -> bytes:
    facts = facts or find_facts(make_graph())
    return context.wrap_plan(plan, facts, name="atrous1234", targets="sm86,sm89", version="1.7.1.116")


def test_read_by_onnx() -> None:
    model = onnx.load_from_string(wrap())
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 17, "com.microsoft": 1}
    (node,) = model.graph.node
    assert (node.op_type, node.domain, list(node.input), list(node.output)) == (
        "EPContext",
        "com.microsoft",
        ["data"],
        ["scores"],
    )
    assert {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute} == {
        "main_context": 0,
        "embed_mode": 1,
        "ep_cache_context": PLAN,
        "partition_name": b"atrous1234",
        "hardware_architecture": b"sm86,sm89",
        "ep_sdk_version": b"1.7.1.116",
        "source": b"NvTensorRTRTXExecutionProvider",
    }


def test_the_same_inputs_and_outputs() -> None:
    """Names, types and shapes are the graph's; free sizes have names."""
    for shape in (("n", 3, "h", "w"), (1, 3, 9, 11)):
        built = make_graph(shape=shape)
        wrapped, original = (onnx.load_from_string(data).graph for data in (wrap(find_facts(built)), built))
        for ours, theirs in ((wrapped.input, original.input), (wrapped.output, original.output)):
            for one, other in zip(ours, theirs, strict=True):
                left, right = one.type.tensor_type, other.type.tensor_type
                assert (one.name, left.elem_type) == (other.name, right.elem_type)
                sides = [
                    [side.dim_value or None if not side.dim_param else None for side in tensor.shape.dim]
                    for tensor in (left, right)
                ]
                assert sides[0] == sides[1]


def test_onnxruntime_knows_the_provider() -> None:
    """Without the provider, ONNX Runtime's message names the node and its source."""
    runtime = pytest.importorskip("onnxruntime", "1.24", reason="atrous[rtx] needs onnxruntime 1.24")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4
    with pytest.raises(Exception, match=r"EPContext.*NvTensorRTRTXExecutionProvider"):
        runtime.InferenceSession(wrap(), settings, providers=["CPUExecutionProvider"])


def test_other_backends_refuse_it() -> None:
    with pytest.raises(BackendError, match="contains a compiled engine"):
        require_self_contained(wrap())


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = find_facts(make_graph())
    odd = facts.model_copy(update={"outputs": {"scores": GraphBlob(type="bfloat16", shape=(1,))}})
    with pytest.raises(BackendError, match='"scores" has type bfloat16'):
        wrap(odd)
    monkeypatch.setattr(context, "MAX_PLAN_BYTES", len(PLAN) - 1)
    with pytest.raises(BackendError, match="too large for ONNX Runtime"):
        wrap()
