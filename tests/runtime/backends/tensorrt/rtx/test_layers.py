"""The builder's list of layers, as the log of 1.7.1 has it (shortened), and the audit of it."""

from __future__ import annotations

from atrous.runtime.backends.tensorrt.audit import audit_precision, parse_inspection
from atrous.runtime.backends.tensorrt.rtx.layers import parse_layers

from ..onnx_models import find_facts, make_graph


def tensor(name: str, kind: str) -> str:
    return (
        f"{{ Name: {name}, Dimensions: [-1,16,-1,-1], Strides: [-1,1,-1,16], StrideOrder: [3,0,2,1], "
        f"Datatype: {kind}, Format: (NHWC) Channel major format }}"
    )


def layer(name: str, kind: str, inputs: str, constants: str, outputs: str, nodes: str) -> str:
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {inputs}], Constants: [{constants}], Outputs: [ {outputs}], "
        f"TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: {nodes}"
    )


TEXT = "\n".join(
    [
        "Layers:",
        "Name: __mye15_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , "
        "StreamId: 0, Metadata: ",
        layer(
            "conv1_myl0_2",
            "correlation",
            tensor("q, odd", "Int8"),
            f" {tensor('w', 'Int8')}, {tensor('s', 'Float')}",
            tensor("c1", "Float"),
            "[ONNX Layer: conv1][ONNX Layer: dq]",
        ),
        layer("__myl_Relu", "kgen", tensor("c1", "Float"), "", tensor("r1", "Float"), "[ONNX Layer: conv1]"),
        layer("conv2_myl0_4", "correlation", tensor("r1", "Float"), "", tensor("c2", "Float"), "[ONNX Layer: conv2]"),
        "",
        "Bindings:",
        " Name: scores, IOMode: Output, DataType: Float, Dimensions: [-1,7,-1,-1], Location: Device",
    ]
)


def test_layers() -> None:
    content = parse_layers(TEXT)
    assert [row["LayerType"] for row in content["Layers"]] == ["shape_call", "correlation", "kgen", "correlation"]
    first = content["Layers"][1]
    assert [row["Name"] for row in first["Inputs"]] == ["q, odd"]
    assert [row["Datatype"] for row in first["Constants"]] == ["Int8", "Float"]


def test_audit() -> None:
    facts = find_facts(make_graph("int8"))
    audit = audit_precision(parse_inspection(parse_layers(TEXT)), facts)
    assert dict(audit.products) == {"int8": 1, "fp32": 1}
    assert (audit.reached, audit.narrow_writing_fp32, audit.reformats) == (1.0, 1, 1)


def test_no_list() -> None:
    assert parse_layers("Layers: none of these lines") == {"Layers": [], "Bindings": []}
