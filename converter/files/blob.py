"""One array of a weights file, as a view into the file.

A BlobProto stores numbers in one of four ways: packed floats (all Caffes), one tag per float (some writers), doubles,
or raw bytes of a given type (NVCaffe's float16). The first two are views into the file; `array` copies all but packed
floats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...wire import (
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

MAX_AXES = 32
MAX_PIECES = 4096
MAX_COUNT = (1 << 31) - 1
"""Caffe counts elements in an int."""
_LEGACY_AXES = (1, 2, 3, 4)
_DATA, _SHAPE, _DOUBLE_DATA, _RAW_TYPE, _RAW_DATA = 5, 7, 8, 10, 12
_RAW_DTYPES = {0: "<f8", 1: "<f4", 2: "<f2", 3: "<i4", 4: "<u4"}


@dataclass(frozen=True, eq=False)
class BlobView:
    """One parameter blob."""

    shape: tuple[int, ...]  # as stored; (num, channels, height, width) if legacy
    legacy: bool  # the shape is the four numbers of 2014, in which leading ones have no meaning
    stored: str  # element type in the file: "float32", "float64", "float16", "int32" or "uint32"
    pieces: tuple[NDArray[Any], ...]  # flat read-only arrays, usually one; concatenated they are the blob

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def array(self) -> NDArray[np.float32]:
        """The blob in its shape: a read-only view of float32 stored in one piece, else a new array."""
        flat = self.pieces[0] if len(self.pieces) == 1 else np.concatenate(self.pieces or (np.empty(0, np.float32),))
        return np.ascontiguousarray(flat, dtype=np.float32).reshape(self.shape)


def read_blob(reader: WireReader, start: int, stop: int) -> BlobView:
    """The BlobProto in reader.data[start:stop]; raises WireError if it is invalid or its data do not fill its shape."""
    legacy: dict[int, int] = {}
    dims: list[int] = []
    floats: list[NDArray[Any]] = []
    doubles: list[NDArray[Any]] = []
    raw: NDArray[Any] | None = None
    raw_type = 1
    for field in reader.fields(start, stop):
        if field.number in _LEGACY_AXES and field.wire_type == VARINT:
            legacy[field.number] = to_signed(field.value)
        elif field.number == _SHAPE and field.wire_type == LENGTH:
            _read_dims(reader, field, dims)
        elif field.number == _DATA and field.wire_type in (LENGTH, FIXED32):
            floats.append(_view(reader, field, "<f4"))
        elif field.number == _DOUBLE_DATA and field.wire_type in (LENGTH, FIXED64):
            doubles.append(_view(reader, field, "<f8"))
        elif field.number == _RAW_TYPE and field.wire_type == VARINT:
            raw_type = field.value
        elif field.number == _RAW_DATA and field.wire_type == LENGTH:
            raw = np.frombuffer(reader.data, np.uint8, field.stop - field.start, field.start)
        if len(floats) > MAX_PIECES or len(doubles) > MAX_PIECES:
            raise WireError(f"an array in more than {MAX_PIECES} pieces", field.at)
    shape = tuple(legacy.get(axis, 0) for axis in _LEGACY_AXES) if legacy else tuple(dims)
    if any(size < 0 for size in shape):
        raise WireError(f"the shape {_write_shape(shape)} has a negative size", start)
    if math.prod(size or 1 for size in shape) > MAX_COUNT:
        raise WireError(f"the shape {_write_shape(shape)} exceeds the {MAX_COUNT} elements of a Caffe blob", start)
    pieces = _choose(floats, doubles, raw, raw_type, start)
    found, wanted = sum(piece.size for piece in pieces), math.prod(shape)
    if found != wanted:
        raise WireError(f"the shape {_write_shape(shape)} needs {wanted} numbers, the file has {found}", start)
    return BlobView(shape, bool(legacy), str(pieces[0].dtype) if pieces else "float32", pieces)


def encode_blob(shape: tuple[int, ...], *, legacy: bool, data_bytes: int) -> tuple[bytes, bytes]:
    """The bytes before and after the `data_bytes` of float32 data of a BlobProto, in protobuf's order.

    `legacy` writes num, channels, height, width instead of a BlobShape; `shape` then has four axes.
    """
    data_tag = encode_tag(_DATA, LENGTH) + encode_varint(data_bytes)
    if legacy:
        sizes = zip(_LEGACY_AXES, shape, strict=True)
        return b"".join(encode_tag(axis, VARINT) + encode_varint(size) for axis, size in sizes) + data_tag, b""
    dims = b"".join(map(encode_varint, shape))
    return data_tag, encode_block(_SHAPE, encode_block(1, dims)) if shape else b""


def _read_dims(reader: WireReader, shape: Field, dims: list[int]) -> None:
    """Append the sizes of a BlobShape; the axes of all shapes of a blob count together."""
    for field in reader.fields(shape.start, shape.stop):
        if field.number != 1:
            continue
        if field.wire_type == VARINT:
            dims.append(to_signed(field.value))
        elif field.wire_type == LENGTH:
            at = field.start
            while at < field.stop and len(dims) <= MAX_AXES:
                value, at = read_varint(reader.data, at, field.stop)
                dims.append(to_signed(value))
        if len(dims) > MAX_AXES:
            raise WireError(f"a shape of more than {MAX_AXES} axes", shape.at)


def _view(reader: WireReader, field: Field, dtype: str) -> NDArray[Any]:
    """The numbers of a packed field or of a run of unpacked fields, without a copy."""
    width = np.dtype(dtype).itemsize
    if field.wire_type != LENGTH:
        run: NDArray[Any] = np.ndarray(
            (field.repeats,), dtype, buffer=reader.data, offset=field.start, strides=(width + 1,)
        )
        return run
    length = field.stop - field.start
    if length % width:
        raise WireError(f"{length} bytes of data are not a multiple of {np.dtype(dtype)}", field.at)
    return np.frombuffer(reader.data, dtype, count=length // width, offset=field.start)


def _choose(
    floats: list[NDArray[Any]], doubles: list[NDArray[Any]], raw: NDArray[Any] | None, raw_type: int, at: int
) -> tuple[NDArray[Any], ...]:
    """The data that Caffe reads: raw ones first, then doubles, then floats."""
    if raw is not None and raw.size:
        if raw_type not in _RAW_DTYPES:
            raise WireError(f"raw_data of unknown type {raw_type}", at)
        dtype = np.dtype(_RAW_DTYPES[raw_type])
        if raw.size % dtype.itemsize:
            raise WireError(f"{raw.size} bytes of raw_data are not a multiple of {dtype}", at)
        return (np.frombuffer(raw, dtype),)
    chosen = doubles if any(piece.size for piece in doubles) else floats
    return tuple(piece for piece in chosen if piece.size)


def _write_shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
