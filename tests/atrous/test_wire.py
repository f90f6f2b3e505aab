"""The wire walker: locations of fields, and rejected bytes."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.proto import schema
from atrous.wire import (
    FIXED32,
    FIXED64,
    LENGTH,
    VARINT,
    Field,
    WireError,
    WireReader,
    encode_block,
    encode_tag,
    encode_varint,
    read_varint,
    to_signed,
)


def walk(data: bytes, **options: int) -> list[Field]:
    return list(WireReader(data, **options).fields(0, len(data)))


@given(st.integers(0, 2**64 - 1))
def test_varints_round_trip(value: int) -> None:
    data = encode_varint(value)
    assert read_varint(data, 0, len(data)) == (value, len(data))


@given(st.integers(-(2**63), 2**63 - 1))
def test_negative_numbers_are_what_protobuf_writes(value: int) -> None:
    shape = schema.message("BlobShape")(dim=[value])
    data = shape.SerializeToString()
    field = walk(data)[0]
    assert data[field.start : field.stop] == encode_varint(value)
    assert to_signed(read_varint(data, field.start, field.stop)[0]) == value


def test_fields_are_located() -> None:
    data = encode_block(1, b"net") + encode_tag(100, VARINT) + encode_varint(300) + encode_tag(3, FIXED32) + b"abcd"
    named, number, fixed = walk(data)
    assert (named.number, named.wire_type, data[named.start : named.stop]) == (1, LENGTH, b"net")
    assert (number.number, number.value, number.at) == (100, 300, 5)
    assert (data[fixed.start : fixed.stop], fixed.repeats) == (b"abcd", 1)


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 66, 200, 1000])
@pytest.mark.parametrize(("wire_type", "width"), [(FIXED32, 4), (FIXED64, 8)])
def test_runs_are_collapsed(count: int, wire_type: int, width: int) -> None:
    tag = encode_tag(5, wire_type)
    data = (tag + b"\xff" * width) * count + encode_tag(6, VARINT) + b"\x07"
    run, rest = walk(data)
    assert (run.repeats, run.start, run.stop) == (count, 1, count * (width + 1))
    assert (rest.number, rest.value) == (6, 7)


def test_a_run_stops_where_its_last_payload_would_not_fit() -> None:
    data = (encode_tag(5, FIXED32) + b"1234") * 70
    with pytest.raises(WireError) as caught:
        walk(data[:-2])
    assert caught.value.shortfall == 2


@pytest.mark.parametrize(
    ("data", "words", "shortfall"),
    [
        (b"\x0a\x05abc", "2 bytes past", 2),
        (b"\x0a", "runs past the end", 1),
        (b"\x08\xff", "runs past the end", 1),
        (b"\x08" + b"\xff" * 10 + b"\x00", "longer than ten", 0),
        (b"\x0d\x00\x00", "2 bytes past", 2),
        (b"\x00\x00", "invalid field number", 0),
        (b"\x0b", "wire type 3", 0),
        (b"\x0f", "wire type 7", 0),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "invalid field number", 0),
        (encode_tag(1, LENGTH) + encode_varint(2**63), "past the end", None),
    ],
)
def test_refusals(data: bytes, words: str, shortfall: int | None) -> None:
    with pytest.raises(WireError, match=words) as caught:
        walk(data)
    if shortfall is not None:
        assert caught.value.shortfall == shortfall


def test_the_budget_of_fields_holds_for_all_walks_together() -> None:
    data = b"\x08\x00" * 6
    reader = WireReader(data, max_fields=10)
    assert len(list(reader.fields(0, len(data)))) == 6
    with pytest.raises(WireError, match="more than 10 fields"):
        list(reader.fields(0, len(data)))


def test_names_are_capped() -> None:
    data = encode_block(1, b"x" * 70_000)
    reader = WireReader(data)
    with pytest.raises(WireError, match="a name of 70000 bytes"):
        reader.text(next(reader.fields(0, len(data))))


def test_payloads_are_skipped_not_read() -> None:
    """64 MiB in one field, and a million fixed-width fields, take under a second together."""
    big = encode_block(5, bytes(64 << 20))
    many = (encode_tag(5, FIXED32) + b"\0\0\0\0") * 1_000_000
    start = time.perf_counter()
    assert [field.stop - field.start for field in walk(big)] == [64 << 20]
    assert walk(many)[0].repeats == 1_000_000
    assert time.perf_counter() - start < 1


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_walked_or_refused(data: bytes) -> None:
    try:
        fields = walk(data)
    except WireError as error:
        offset = error.offset
    else:
        offset = 0
        assert all(0 <= field.at < field.start <= field.stop <= len(data) for field in fields)
        assert sum(field.stop - field.at for field in fields) == len(data)
    assert 0 <= offset <= len(data)


@given(st.lists(st.tuples(st.integers(1, 15), st.floats(width=32, allow_nan=False)), max_size=50))
@settings(deadline=None)
def test_runs_lose_nothing(pairs: list[tuple[int, float]]) -> None:
    data = b"".join(encode_tag(number, FIXED32) + np.float32(value).tobytes() for number, value in pairs)
    found = []
    for field in walk(data):
        for index in range(field.repeats):
            at = field.start + 5 * index
            found.append((field.number, float(np.frombuffer(data, "<f4", 1, at)[0])))
    assert found == pairs
