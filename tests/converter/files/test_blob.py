"""Arrays in every encoding, against protobuf's own parser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from atrous.converter.files.blob import BlobView, encode_blob, read_blob
from atrous.proto import schema
from atrous.wire import FIXED32, FIXED64, WireError, WireReader, encode_block, encode_tag

VALUES: NDArray[np.float32] = np.arange(6, dtype=np.float32) - 2.5


def blob_proto(**fields: Any) -> Any:
    return schema.message("BlobProto")(**fields)


def read(data: bytes | Any) -> BlobView:
    data = data if isinstance(data, bytes) else data.SerializeToString()
    return read_blob(WireReader(data), 0, len(data))


def refuse(data: bytes | Any, words: str) -> None:
    with pytest.raises(WireError, match=words):
        read(data)


def test_packed_floats_are_a_view() -> None:
    proto = blob_proto(data=VALUES)
    proto.shape.dim.extend([2, 3])
    data = proto.SerializeToString()
    blob = read_blob(WireReader(data), 0, len(data))
    np.testing.assert_array_equal(blob.array, VALUES.reshape(2, 3))
    assert (blob.shape, blob.legacy, blob.stored, blob.size) == ((2, 3), False, "float32", 6)
    assert not blob.array.flags.writeable
    assert not blob.array.flags.owndata
    assert np.shares_memory(blob.array, np.frombuffer(data, np.uint8))


def test_a_legacy_shape_is_marked_and_wins() -> None:
    proto = blob_proto(num=1, channels=1, height=2, width=3, data=VALUES)
    proto.shape.dim.extend([6])
    blob = read(proto)
    assert (blob.shape, blob.legacy) == ((1, 1, 2, 3), True)


def test_any_legacy_field_makes_a_legacy_shape() -> None:
    refuse(blob_proto(num=6, data=VALUES), r"\(6, 0, 0, 0\) needs 0 numbers, the file has 6")


def test_axes_of_several_shapes_count_together() -> None:
    shape = encode_block(7, encode_block(1, b"\x01" * 20))
    refuse(shape * 2 + encode_block(5, bytes(4)), "more than 32 axes")


def test_no_shape_is_a_scalar() -> None:
    blob = read(blob_proto(data=[7]))
    assert (blob.shape, float(blob.array)) == ((), 7.0)
    refuse(blob_proto(data=VALUES), r"\(\) needs 1 numbers, the file has 6")


def test_unpacked_floats_doubles_and_dims() -> None:
    tag = encode_tag(5, FIXED32)
    data = b"".join(tag + value.tobytes() for value in VALUES) + encode_block(7, b"\x08\x02\x08\x03")
    np.testing.assert_array_equal(read(data).array, VALUES.reshape(2, 3))
    assert read(data).array.flags.c_contiguous
    double = encode_tag(8, FIXED64)
    data = b"".join(double + np.float64(value).tobytes() for value in VALUES) + encode_block(7, b"\x08\x06")
    assert read(data).stored == "float64"
    np.testing.assert_array_equal(read(data).array, VALUES)


def test_pieces_are_joined_in_order() -> None:
    part = encode_tag(5, FIXED32) + VALUES[2].tobytes()
    data = encode_block(5, VALUES[:2].tobytes()) + part + encode_block(5, VALUES[3:].tobytes())
    np.testing.assert_array_equal(read(data + encode_block(7, b"\x0a\x01\x06")).array, VALUES)


def test_doubles_win_over_floats() -> None:
    proto = blob_proto(data=VALUES, double_data=VALUES + 1)
    proto.shape.dim.append(6)
    np.testing.assert_array_equal(read(proto).array, VALUES + 1)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("FLOAT16", "<f2"), ("FLOAT", "<f4"), ("DOUBLE", "<f8"), ("INT", "<i4"), ("UINT", "<u4")]
)
def test_raw_data_of_nvcaffe(kind: str, dtype: str) -> None:
    values = np.arange(6).astype(dtype)
    proto = blob_proto(raw_data_type=kind, raw_data=values.tobytes())
    proto.shape.dim.append(6)
    blob = read(proto)
    assert blob.stored == np.dtype(dtype).name
    assert blob.array.dtype == np.float32
    np.testing.assert_array_equal(blob.array, values.astype(np.float32))


def test_zero_sized_blobs() -> None:
    proto = blob_proto()
    proto.shape.dim.extend([0, 3])
    assert read(proto).array.shape == (0, 3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (encode_block(5, b"abc"), "not a multiple of float32"),
        (encode_block(8, b"abcd"), "not a multiple of float64"),
        (encode_block(12, b"abc") + b"\x50\x02", "not a multiple of float16"),
        (encode_block(12, b"ab") + b"\x50\x09", "unknown type 9"),
        (b"\x08" + b"\xff" * 9 + b"\x01", "negative"),
        (encode_block(7, b"\x08\x01" * 33), "more than 32 axes"),
        (encode_block(7, encode_block(1, b"\x01" * 33)), "more than 32 axes"),
        (encode_block(7, encode_block(1, b"\xff" * 9 + b"\x01")), "negative"),
        (encode_block(7, encode_block(1, b"\xff" * 9 + b"\x7f")), "more than 64 bits"),
        (encode_block(7, encode_block(1, b"\x00" + b"\xff\xff\x7f" * 3)), "exceeds the 2147483647 elements"),
        (encode_block(5, b"") * 5000, "more than 4096 pieces"),
    ],
)
def test_refusals(data: bytes, words: str) -> None:
    refuse(data, words)


def test_a_shape_whose_product_overflows_allocates_nothing() -> None:
    proto = blob_proto(data=[1.0])
    proto.shape.dim.extend([2**62] * 32)
    refuse(proto, "exceeds the 2147483647 elements")


@given(
    st.lists(st.integers(0, 4), max_size=5),
    st.booleans(),
    st.data(),
)
@settings(deadline=None)
def test_protobuf_reads_encoded_blobs(shape: list[int], legacy: bool, data: st.DataObject) -> None:
    if legacy:
        shape = ([1] * 4 + shape)[-4:]
    floats = st.floats(width=32, allow_nan=False)
    size = int(np.prod(shape, dtype=np.int64))
    values = np.array(data.draw(st.lists(floats, min_size=size, max_size=size)), dtype=np.float32)
    before, after = encode_blob(tuple(shape), legacy=legacy, data_bytes=values.nbytes)
    encoded = before + values.tobytes() + after
    theirs = schema.message("BlobProto").FromString(encoded)
    assert list(theirs.data) == values.tolist()
    found = [theirs.num, theirs.channels, theirs.height, theirs.width] if legacy else list(theirs.shape.dim)
    assert found == shape
    ours = read(encoded)
    assert (list(ours.shape), ours.legacy) == (shape, legacy)
    np.testing.assert_array_equal(ours.array, values.reshape(shape))
