"""ONNX fields against the protobuf library's own bytes, and bytes that are not a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto

from atrous.errors import InputError
from atrous.runtime import wire

INT64S = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(width=32, allow_nan=False)


def read_all(content: bytes) -> list[tuple[int, int | memoryview]]:
    return list(wire.read_fields(memoryview(content)))


@given(st.lists(INT64S), st.lists(FLOATS), st.text(), INT64S, FLOATS)
def test_same_as_the_library(ints: list[int], floats: list[float], name: str, one: int, half: float) -> None:
    message = AttributeProto(name=name, ints=ints, floats=floats, i=one, f=half)
    fields = read_all(message.SerializeToString())
    assert [number for field, value in fields if field == 8 for number in wire.read_varints(value)] == ints
    assert [number for field, value in fields if field == 7 for number in wire.read_floats(value)] == floats
    single = dict(fields)
    assert (wire.to_text(single[1]), wire.to_int(single[3]), wire.to_float(single[2])) == (name, one, half)


@given(st.lists(INT64S, min_size=1), st.lists(FLOATS, min_size=1))
def test_packed_lists(ints: list[int], floats: list[float]) -> None:
    fields = dict(read_all(TensorProto(int64_data=ints, float_data=floats).SerializeToString()))
    assert list(wire.read_varints(fields[7])) == ints
    assert wire.read_floats(fields[4]) == floats


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x08", "is truncated .* a number runs past the end"),
        (b"\x08" + b"\xff" * 10, "is not an ONNX model: a number is longer than ten bytes"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "more than 64 bits"),
        (b"\x00\x01", "invalid field number 0"),
        (b"\x80\x80\x80\x80\x10\x01", "invalid field number 536870912"),
        (b"\x0b", "wire type 3"),
        (b"\x0d\x01", "field 1 ends 3 bytes past the end"),
        (b"\x0a\xff\xff\xff\xff\x7f", "is truncated .* past the end, at byte 0"),
    ],
)
def test_refuses(content: bytes, what: str) -> None:
    with pytest.raises(InputError, match=what):
        read_all(content)


def test_the_largest_numbers() -> None:
    assert read_all(b"\xf8\xff\xff\xff\x0f" + b"\xff" * 9 + b"\x01") == [((1 << 29) - 1, (1 << 64) - 1)]
    assert wire.to_signed((1 << 64) - 1) == -1


def test_refuses_half_a_float() -> None:
    with pytest.raises(InputError, match="6 bytes are not a list of floats"):
        wire.read_floats(memoryview(bytes(6)))


def test_refuses_the_other_kind() -> None:
    with pytest.raises(InputError, match="a number where a message belongs"):
        wire.to_bytes(1)
    with pytest.raises(InputError, match="a message where a number belongs"):
        wire.to_int(memoryview(b""))
    with pytest.raises(InputError, match="a message where a number belongs"):
        wire.to_float(memoryview(b""))
    with pytest.raises(InputError, match="not UTF-8"):
        wire.to_text(memoryview(b"\xff"))
