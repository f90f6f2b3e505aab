"""Field values of an ONNX file, read without protobuf by `atrous.wire`.

Fields are (number, value): an int for varints and fixed widths, a memoryview for anything with a length. Nothing is
copied, so weights cost no memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ..errors import InputError
from ..wire import FIXED_WIDTHS, LENGTH, VARINT, WireError, WireReader, read_varint, to_signed


def read_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of one message, in the file's order.

    Raises:
        InputError: the bytes are not a protobuf message.
    """
    try:
        for field in WireReader(message).fields(0, len(message)):
            if field.wire_type == VARINT:
                yield field.number, field.value
            elif field.wire_type == LENGTH:
                yield field.number, message[field.start : field.stop]
            else:
                width = FIXED_WIDTHS[field.wire_type]
                for at in range(field.start, field.stop, width + 1):
                    yield field.number, int.from_bytes(message[at : at + width], "little")
    except WireError as error:
        raise _invalid(error) from error


def read_varints(value: int | memoryview) -> Iterator[int]:
    """A repeated int64 field, packed or not, as signed numbers.

    Raises:
        InputError: the bytes are not a run of varints.
    """
    if isinstance(value, int):
        yield to_signed(value)
        return
    position = 0
    try:
        while position < len(value):
            number, position = read_varint(value, position, len(value))
            yield to_signed(number)
    except WireError as error:
        raise _invalid(error) from error


def read_floats(value: int | memoryview) -> list[float]:
    """A repeated float field, packed or not.

    Raises:
        InputError: the length is not a multiple of 4.
    """
    if isinstance(value, int):
        return [to_float(value)]
    if len(value) % 4:
        raise InputError(f"is not an ONNX model: {len(value)} bytes are not a list of floats")
    return [number for (number,) in struct.iter_unpack("<f", value)]


def to_text(value: int | memoryview) -> str:
    """A string field.

    Raises:
        InputError: it is not UTF-8, or not a string.
    """
    try:
        return str(to_bytes(value), "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"is not an ONNX model: a name is not UTF-8 ({error.reason})") from error


def to_float(value: int | memoryview) -> float:
    """A float field from its 32 bits.

    Raises:
        InputError: it is a message.
    """
    if not isinstance(value, int):
        raise InputError("is not an ONNX model: a message where a number belongs")
    return float(struct.unpack("<f", value.to_bytes(8, "little")[:4])[0])


def to_bytes(value: int | memoryview) -> memoryview:
    """A field with a length.

    Raises:
        InputError: it is a number.
    """
    if isinstance(value, int):
        raise InputError("is not an ONNX model: a number where a message belongs")
    return value


def to_int(value: int | memoryview) -> int:
    """An int64 field.

    Raises:
        InputError: it is a message.
    """
    if not isinstance(value, int):
        raise InputError("is not an ONNX model: a message where a number belongs")
    return to_signed(value)


def _invalid(error: WireError) -> InputError:
    kind = "is truncated or not an ONNX model" if error.shortfall else "is not an ONNX model"
    return InputError(f"{kind}: {error}, at byte {error.offset} of a message")
