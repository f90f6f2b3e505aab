"""Every place of an ONNX file where a tensor may name another file, compiled engines, and bytes that are not ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from atrous.errors import BackendError
from atrous.runtime.backends.self_contained import require_self_contained

from ..bundles import make_model


def make_outside() -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def put_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(make_outside())


def put_constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(constant(make_outside()))


def put_subgraph(model: onnx.ModelProto) -> None:
    branch = helper.make_graph([constant(make_outside())], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))


def put_function(model: onnx.ModelProto) -> None:
    opset = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("d", "F", [], ["c"], [constant(make_outside())], opset))


def put_sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(make_outside())


def put_tensors(model: onnx.ModelProto) -> None:
    node = helper.make_node("Custom", ["x"], ["y"])
    node.attribute.append(helper.make_attribute("tensors", [make_outside()]))
    model.graph.node.append(node)


def put_training(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.initializer.append(make_outside())


def put_entries_alone(model: onnx.ModelProto) -> None:
    tensor = make_outside()
    tensor.ClearField("data_location")
    model.graph.initializer.append(tensor)


PLACES = [
    put_initializer,
    put_constant,
    put_subgraph,
    put_function,
    put_sparse,
    put_tensors,
    put_training,
    put_entries_alone,
]


def test_accepts_a_whole_model() -> None:
    require_self_contained(make_model("lowres"))


@pytest.mark.parametrize("put", PLACES, ids=lambda put: put.__name__)
def test_finds_the_tensor(put: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.ModelProto.FromString(make_model())
    put(model)
    with pytest.raises(BackendError, match="other files"):
        require_self_contained(model.SerializeToString())


def test_refuses_a_compiled_engine() -> None:
    """ONNX Runtime's TensorRT provider would deserialize it, in a subgraph too."""
    engine = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context=b"plan", embed_mode=1)
    plain, nested = (onnx.ModelProto.FromString(make_model()) for _ in range(2))
    plain.graph.node.append(engine)
    branch = helper.make_graph([engine], "branch", [], [])
    nested.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
    for model in (plain, nested):
        with pytest.raises(BackendError, match=r"^b/deploy\.onnx: the model contains a compiled engine"):
            require_self_contained(model.SerializeToString(), Path("b/deploy.onnx"))


def test_refuses_every_cut() -> None:
    model = make_model()
    refused = 0
    for size in range(len(model)):
        try:
            require_self_contained(model[:size])
        except BackendError:
            refused += 1
    assert refused >= len(model) - 20  # truncation between two fields of the outermost message is not detected


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"text", "unsupported wire type 4"),
        (b"<xml/>", "unsupported wire type 4"),
        (b"\xff" * 20, "is not an ONNX model: a number is longer than ten bytes"),
        (b"\x08", "is truncated or not an ONNX model: a number runs past the end"),
        (b"\x08" + b"\xff" * 10, "longer than ten bytes"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "more than 64 bits"),
        (b"\x00\x01", "invalid field number 0"),
        (b"\x80\x80\x80\x80\x10\x01", "invalid field number 536870912"),
        (b"\x0b", "unsupported wire type 3"),
        (b"\x0d\x01", "field 1 ends 3 bytes past the end, at byte 0; convert the net again"),
        (b"\x3a\xff\xff\xff\xff\x0f", "is truncated or not an ONNX model: field 7 ends 4294967295 bytes past the end"),
        (b"\x38\x01", "a number where a message belongs"),
    ],
)
def test_refuses_invalid_protobuf(content: bytes, problem: str) -> None:
    with pytest.raises(BackendError, match=problem):
        require_self_contained(content)


def nest(key: bytes, content: bytes) -> bytes:
    size = len(content)
    return key + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + content


def test_refuses_endless_nesting() -> None:
    content = b""
    for _ in range(200):  # a graph in an attribute of a node of a graph ...
        for key in (b"\x32", b"\x2a", b"\x0a"):
            content = nest(key, content)
    with pytest.raises(BackendError, match="not an ONNX model: its messages are nested more than 100 deep"):
        require_self_contained(nest(b"\x3a", content))
