"""Reads protobuf's wire format: just enough to look into an ONNX file on a machine without protobuf.

Fields come as (number, value): an int for varints and fixed widths, a memoryview for anything with a length. Nothing
is copied, so the weights cost nothing. Lengths are checked against what is left before they are used, and what two
parsers of protobuf could read in two ways (a number of more than 64 bits, a field number out of range) is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ..errors import InputError

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_MAX_FIELD_NUMBER = (1 << 29) - 1
_MAX_VARINT_BYTES = 10


def read_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of one message, in the file's order.

    Raises:
        InputError: where the bytes are no protobuf message.
    """
    position, end = 0, len(message)
    while position < end:
        tag, position = _read_varint(message, position)
        number, kind = tag >> 3, tag & 7
        if not 0 < number <= _MAX_FIELD_NUMBER:
            raise InputError(f"is not an ONNX model: {number} is no field number, before byte {position}")
        if kind == _VARINT:
            value, position = _read_varint(message, position)
            yield number, value
            continue
        if kind == _LENGTH:
            length, position = _read_varint(message, position)
        elif kind in _WIDTHS:
            length = _WIDTHS[kind]
        else:  # groups: ONNX has none
            raise InputError(f"is not an ONNX model: protobuf wire type {kind} at byte {position}")
        if length > end - position:
            raise InputError(f"is cut short: a field of {length} bytes where {end - position} are left")
        chunk = message[position : position + length]
        position += length
        yield number, chunk if kind == _LENGTH else int.from_bytes(chunk, "little")


def read_varints(value: int | memoryview) -> Iterator[int]:
    """A repeated int64 field, packed or not, as signed numbers.

    Raises:
        InputError: where the bytes are no run of varints.
    """
    if isinstance(value, int):
        yield to_signed(value)
        return
    position = 0
    while position < len(value):
        number, position = _read_varint(value, position)
        yield to_signed(number)


def read_floats(value: int | memoryview) -> list[float]:
    """A repeated float field, packed or not.

    Raises:
        InputError: if the bytes are no whole number of floats.
    """
    if isinstance(value, int):
        return [to_float(value)]
    if len(value) % 4:
        raise InputError(f"is not an ONNX model: {len(value)} bytes are no list of floats")
    return [number for (number,) in struct.iter_unpack("<f", value)]


def to_signed(number: int) -> int:
    """An int64 from its two's complement."""
    return number - (1 << 64) if number >= 1 << 63 else number


def to_text(value: int | memoryview) -> str:
    """A string field.

    Raises:
        InputError: if it is no UTF-8 text.
    """
    try:
        return str(to_bytes(value), "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"is not an ONNX model: a name is not UTF-8 ({error.reason})") from error


def to_float(value: int | memoryview) -> float:
    """A float field from its 32 bits.

    Raises:
        InputError: if it is a message instead.
    """
    if not isinstance(value, int):
        raise InputError("is not an ONNX model: a number has a length")
    return float(struct.unpack("<f", value.to_bytes(8, "little")[:4])[0])


def to_bytes(value: int | memoryview) -> memoryview:
    """A field with a length.

    Raises:
        InputError: if it is a number instead.
    """
    if isinstance(value, int):
        raise InputError("is not an ONNX model: a number where a message belongs")
    return value


def to_int(value: int | memoryview) -> int:
    """An int64 field.

    Raises:
        InputError: if it is a message instead.
    """
    if not isinstance(value, int):
        raise InputError("is not an ONNX model: a message where a number belongs")
    return to_signed(value)


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    number = 0
    for index in range(_MAX_VARINT_BYTES):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if number >> 64:
                raise InputError(f"is not an ONNX model: a number of more than 64 bits, before byte {position}")
            return number, position
    raise InputError("is cut short or not an ONNX model: a number does not end")
