"""Renumbering between a dialect's binaries and the merged schema."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from atrous.converter.dialects.renumber import belongs, find_layer_field, from_merged, to_merged
from atrous.proto import schema
from atrous.wire import FIXED32, VARINT, WireError, encode_block, encode_tag


def layer(kind: str, **fields: Any) -> Any:
    return schema.message("LayerParameter")(name="l", type=kind, **fields)


@pytest.mark.parametrize("dialect", ["deeplab_v2", "pspnet", "deeplab_v2_xmyqsh"])
def test_interp_round_trips_through_each_dialects_number(dialect: str) -> None:
    merged = layer("Interp", interp_param={"zoom_factor": 8}).SerializeToString()
    wire = from_merged(merged, "LayerParameter", dialect)
    assert wire != merged
    assert to_merged(wire, "LayerParameter", dialect) == merged


def test_hole_is_17_in_deeplab_v1_and_nowhere_else() -> None:
    convolution = schema.message("ConvolutionParameter")(num_output=1, hole=4)
    merged = convolution.SerializeToString()
    assert from_merged(merged, "ConvolutionParameter", "deeplab_v1").endswith(encode_tag(17, VARINT) + b"\x04")
    with pytest.raises(WireError, match=r"ConvolutionParameter\.hole has no number in files of bvlc"):
        from_merged(merged, "ConvolutionParameter", "bvlc")


def test_the_same_bytes_mean_hole_or_force_nd() -> None:
    data = encode_tag(17, VARINT) + b"\x01" + encode_tag(18, VARINT) + b"\x02"

    def read(dialect: str) -> Any:
        return schema.message("ConvolutionParameter").FromString(to_merged(data, "ConvolutionParameter", dialect))

    assert (read("bvlc").force_nd_im2col, list(read("bvlc").dilation)) == (True, [2])
    assert (read("deeplab_v1").hole, read("deeplab_v1").hole_h) == (1, 2)


def test_a_field_a_fork_hides_cannot_be_written_for_it() -> None:
    merged = schema.message("ConvolutionParameter")(dilation=[2]).SerializeToString()
    with pytest.raises(WireError, match="dilation has no number in files of deeplab_v1"):
        from_merged(merged, "ConvolutionParameter", "deeplab_v1")


def test_v1_type_numbers_are_translated_both_ways() -> None:
    old = schema.message("V1LayerParameter")(name="i", type="INTERP")
    wire = from_merged(old.SerializeToString(), "V1LayerParameter", "deeplab_v1")
    assert encode_tag(5, VARINT) + b"\x29" in wire
    assert schema.message("V1LayerParameter").FromString(to_merged(wire, "V1LayerParameter", "deeplab_v1")) == old
    with pytest.raises(WireError, match="has a value that files of deconvnet lack"):
        from_merged(old.SerializeToString(), "V1LayerParameter", "deconvnet")


def test_the_layer_type_decides_a_contested_number() -> None:
    payload = b"\x18\x08"
    for kind, name in (("Interp", "interp_param"), ("Input", "input_param")):
        found = find_layer_field(kind, 143, "bvlc")
        assert found is not None
        assert found.name == name
    data = encode_block(2, b"Interp") + encode_block(143, payload)
    merged = schema.message("LayerParameter").FromString(to_merged(data, "LayerParameter", "bvlc"))
    assert merged.interp_param.zoom_factor == 8


def test_an_unexplained_number_is_left_out_and_counted() -> None:
    data = encode_block(2, b"TripletLoss") + encode_block(137, b"") + encode_block(106, b"\x78\x01\xf8\x3f\x01")
    unknown: Counter[tuple[str, int]] = Counter()
    merged = schema.message("LayerParameter").FromString(to_merged(data, "LayerParameter", "bvlc", unknown))
    assert not merged.HasField("embed_param")
    assert unknown == {('LayerParameter of type "TripletLoss"', 137): 1, ("ConvolutionParameter", 1023): 1}


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (encode_tag(3, VARINT) + b"\x01", "bn_mode"),
        (encode_tag(3, FIXED32) + b"\0\0\0\x3f", "momentum"),
        (encode_tag(5, VARINT) + b"\x01", "frozen"),
    ],
)
def test_the_two_bn_messages_are_distinguished(payload: bytes, field: str) -> None:
    data = encode_block(2, b"BN") + encode_block(99_999, payload)
    merged = schema.message("LayerParameter").FromString(to_merged(data, "LayerParameter", "bvlc"))
    assert merged.bn_param.HasField(field)


@pytest.mark.parametrize(("number", "field"), [(45, "scale_filler"), (152, "slope_filler")])
def test_the_message_number_decides_the_fillers_of_bn(number: int, field: str) -> None:
    data = encode_block(2, b"BN") + encode_block(number, encode_block(1, b""))
    merged = schema.message("LayerParameter").FromString(to_merged(data, "LayerParameter", "bvlc"))
    assert merged.bn_param.HasField(field)


def test_parameter_messages_of_layer_types() -> None:
    assert belongs("InnerProduct", "inner_product_param")
    assert belongs("LSTM", "recurrent_param")
    assert not belongs("Interp", "input_param")
