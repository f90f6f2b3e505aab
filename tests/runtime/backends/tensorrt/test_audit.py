"""The precision audit on inspector JSON of both schemas: shares, missed nodes, and when they are an error."""

from __future__ import annotations

from typing import Any

import pytest

from atrous.errors import BackendError, EnginePrecisionError
from atrous.runtime.backends.tensorrt.audit import audit_precision, parse_inspection, read_type

from . import inspector
from .onnx_models import find_facts, make_graph

HALF = find_facts(make_graph("fp16"))
KEPT = find_facts(make_graph("fp16", keep_last=True))
WIDE = find_facts(make_graph())
INT8 = find_facts(make_graph("int8"))


@pytest.mark.parametrize(
    "account", [inspector.make_8(), inspector.make_10(), inspector.make_11(), inspector.make_11(key="DataType")]
)
def test_both_schemas(account: dict[str, Any]) -> None:
    audit = audit_precision(parse_inspection(account), HALF)
    assert (audit.asked, audit.products, audit.reached, audit.missed) == ("fp16", {"fp16": 2}, 1.0, ())
    audit.require(1.0)


def test_shares_of_an_8_engine() -> None:
    audit = audit_precision(parse_inspection(inspector.make_8(inspector.FLOAT_8)), HALF)
    assert audit.layers == {"fp16": 2, "fp32": 1}
    assert audit.products == {"fp32": 1, "fp16": 1}
    assert audit.reformats == 1
    assert [(missed.node, missed.asked, missed.got) for missed in audit.missed] == [("conv1", "fp16", "fp32")]
    assert audit.reached == 0.5
    audit.require(0.5)
    with pytest.raises(EnginePrecisionError, match=r"only 50% .* conv1 \(fp32\).*--required-share") as caught:
        audit.require(0.9)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("make", [inspector.make_10, inspector.make_11])
def test_an_engine_that_is_silently_fp32(make: Any) -> None:
    account = make("Float")
    account["Layers"][2]["Inputs"] = account["Layers"][1]["Inputs"]
    audit = audit_precision(parse_inspection(account), HALF)
    assert audit.reached == 0.0
    with pytest.raises(EnginePrecisionError, match="only 0%"):
        audit.require(0.01)


def test_what_the_graph_keeps_wide_has_not_missed() -> None:
    audit = audit_precision(parse_inspection(inspector.make_10(second="Float")), KEPT)
    assert audit.reached == 1.0
    assert audit.products == {"fp16": 1, "fp32": 1}


def test_tf32_is_told_by_the_kernel() -> None:
    account = inspector.make_8(inspector.FLOAT_8, "sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc")
    audit = audit_precision(parse_inspection(account), WIDE)
    assert audit.products == {"tf32": 1, "fp16": 1}
    assert audit.reached == 1.0


def test_int8() -> None:
    account = inspector.make_8(inspector.INT8_8)
    audit = audit_precision(parse_inspection(account), INT8)
    assert (audit.asked, audit.reached, audit.products) == ("int8", 1.0, {"int8": 1, "fp16": 1})
    half = audit_precision(parse_inspection(inspector.make_8()), INT8)
    assert [(missed.node, missed.got) for missed in half.missed] == [("conv1", "fp16")]


def test_int8_by_myelin() -> None:
    """The product decides, not the epilogue that names the same node; the product's float32 output is counted."""
    audit = audit_precision(parse_inspection(inspector.make_myelin()), INT8)
    assert (audit.asked, audit.reached, audit.missed) == ("int8", 1.0, ())
    assert audit.products == {"int8": 1, "fp32": 1}
    assert audit.narrow_writing_fp32 == 1
    assert audit.layers == {"fp32": 3, "int8": 1}
    wide = audit_precision(parse_inspection(inspector.make_myelin("Float", "Int8")), INT8)
    assert [(missed.node, missed.got) for missed in wide.missed] == [("conv1", "fp32")]
    assert (wide.products, wide.narrow_writing_fp32) == ({"fp32": 2}, 0)


def test_a_node_without_a_product_has_its_narrowest_layer() -> None:
    """Such as if a version uses an unknown name for its products."""
    account = inspector.make_myelin()
    account["Layers"][2]["LayerType"] = "something_new"
    audit = audit_precision(parse_inspection(account), INT8)
    assert (audit.reached, audit.products) == (1.0, {"int8": 1, "fp32": 1})


def test_half_products_that_write_half() -> None:
    assert audit_precision(parse_inspection(inspector.make_10()), HALF).narrow_writing_fp32 == 0


def test_layers_that_name_no_node_are_counted() -> None:
    account = inspector.make_10()
    for layer in account["Layers"]:
        del layer["Metadata"]
    assert audit_precision(parse_inspection(account), HALF).reached == 1.0
    for layer in account["Layers"]:
        layer["Inputs"][0]["Format/Datatype"] = "Float"
    assert audit_precision(parse_inspection(account), HALF).reached == 0.0


def test_time_by_precision() -> None:
    inspection = parse_inspection(inspector.make_8(inspector.FLOAT_8))
    profile = [
        {"count": 100},
        {"name": "Reformatting CopyNode for Input Tensor 0 to conv1 + relu1", "averageMs": 0.25},
        {"name": "conv1 + relu1", "averageMs": 3.0},
        {"name": "pool1", "averageMs": 0.5},
        {"name": "conv2", "averageMs": 1.0},
        {"name": "something else", "averageMs": 9.0},
    ]
    assert audit_precision(inspection, HALF, profile).time_ms == {"fp32": 3.0, "fp16": 1.5, "move": 0.25}
    with pytest.raises(BackendError, match="names no layer of this engine"):
        audit_precision(inspection, HALF, [{"name": "other", "averageMs": 1.0}])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Float", "fp32"),
        ("Half", "fp16"),
        ("Int8", "int8"),
        ("BFloat16", "bf16"),
        ("FP8", "fp8"),
        ("UInt8", "uint8"),
        ("Int32", "int32"),
        ("Bool", "bool"),
        ("N/A due to dynamic shapes", ""),
        (inspector.HALF_8, "fp16"),
        (inspector.FLOAT_8, "fp32"),
        (inspector.INT8_8, "int8"),
        ("Row major linear FP32 format (kLINEAR)", "fp32"),
        ("Two wide channel vectorized row major FP16 format", "fp16"),
        ("", ""),
    ],
)
def test_types(text: str, kind: str) -> None:
    assert read_type(text) == kind


@pytest.mark.parametrize(
    ("account", "reason"),
    [
        ({}, 'no list "Layers"'),
        ({"Layers": 5, "Bindings": []}, 'no list "Layers"'),
        ({"Layers": ["conv1 + relu1"], "Bindings": []}, "names only"),
        ({"Layers": [5], "Bindings": []}, "is not an object"),
        ({"Layers": []}, "neither"),
    ],
)
def test_unknown_forms(account: dict[str, Any], reason: str) -> None:
    with pytest.raises(BackendError, match=reason):
        parse_inspection(account)


def test_to_json() -> None:
    written = audit_precision(parse_inspection(inspector.make_8(inspector.FLOAT_8)), HALF).to_json()
    assert written["missed"] == [{"node": "conv1", "asked": "fp16", "got": "fp32"}]
    assert written["time_ms"] is None
