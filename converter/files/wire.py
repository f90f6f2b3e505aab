"""Protobuf's wire format, walked in place.

A message is a run of fields; a field is a tag (number * 8 + wire type) and a value. The walker yields where each value
lies and never touches a payload, so its cost is per field, not per byte. Nothing is allocated by a length read from
the file: a length is first held against what is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
FIXED_WIDTHS = {FIXED32: 4, FIXED64: 8}
MAX_FIELD_NUMBER = (1 << 29) - 1
MAX_FIELDS = 4_000_000
MAX_NAME_BYTES = 1 << 16


class WireError(ValueError):
    """Bytes that are not a protobuf message.

    Attributes:
        offset: where.
        shortfall: how many bytes are missing, where the fault is an early end.
    """

    def __init__(self, message: str, offset: int, shortfall: int = 0) -> None:
        super().__init__(message)
        self.offset, self.shortfall = offset, shortfall


class Field(NamedTuple):
    """One field, located; or a run of fields of fixed width, located as one.

    Attributes:
        number: field number.
        wire_type: VARINT, FIXED64, LENGTH or FIXED32.
        at: offset of the (first) tag.
        start: offset of the (first) payload.
        stop: end of the (last) payload.
        value: of a VARINT, as 64 unsigned bits; 0 otherwise.
        repeats: how many fields; more than one in a run only, where payloads lie one tag (a byte) apart.
    """

    number: int
    wire_type: int
    at: int
    start: int
    stop: int
    value: int
    repeats: int


class WireReader:
    """Walks messages inside one buffer, with one budget of fields for all walks together.

    Args:
        data: the whole buffer: bytes or mmap.
        max_fields: after that many the file is refused, so that time and memory stay bounded.
    """

    def __init__(self, data: bytes | mmap, max_fields: int = MAX_FIELDS) -> None:
        self.data, self.left, self.max_fields = data, max_fields, max_fields
        self.bytes: NDArray[np.uint8] = np.frombuffer(data, np.uint8)

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """The fields of the message in data[start:stop], in order; runs of fixed width collapsed.

        Raises:
            WireError: the bytes are no message, or the budget is spent.
        """
        data, at = self.data, start
        while at < stop:
            self.left -= 1
            if self.left < 0:
                raise WireError(f"more than {self.max_fields} fields", at)
            tag, payload = data[at], at + 1
            if tag >= 0x80:
                tag, payload = read_varint(data, at, stop)
            number, wire_type = tag >> 3, tag & 7
            if not 0 < number <= MAX_FIELD_NUMBER:
                raise WireError(f"{number} is no field number", at)
            value, count = 0, 1
            if wire_type == LENGTH:
                length, payload = read_varint(data, payload, stop)
                end = payload + length
            elif wire_type == VARINT:
                value, end = read_varint(data, payload, stop)
            elif wire_type in FIXED_WIDTHS:
                width = FIXED_WIDTHS[wire_type]
                end = payload + width
                if payload == at + 1 and end < stop and data[end] == tag:
                    count = self._count_run(at, stop, width + 1)
                    end = at + count * (width + 1)
            else:
                raise WireError(f"field {number} has the wire type {wire_type}, which Caffe never wrote", at)
            if end > stop:
                raise WireError(f"field {number} ends {end - stop} bytes past the end", at, end - stop)
            yield Field(number, wire_type, at, payload, end, value, count)
            at = end

    def text(self, field: Field) -> str:
        """A field's payload as a string.

        Raises:
            WireError: longer than any name.
        """
        if field.stop - field.start > MAX_NAME_BYTES:
            raise WireError(f"a name of {field.stop - field.start} bytes", field.at)
        return self.data[field.start : field.stop].decode("utf-8", errors="replace")

    def _count_run(self, at: int, stop: int, stride: int) -> int:
        """How many fields of this tag and width follow each other, each of them whole.

        The search doubles its reach, so that it reads at most about twice what it finds.
        """
        data, most, found, step = self.bytes, (stop - at) // stride, 1, 64
        tag = data[at]
        while found < most:
            reach = min(found + step, most)
            differ = np.flatnonzero(data[at + found * stride : at + reach * stride : stride] != tag)
            if differ.size:
                return found + int(differ[0])
            found, step = reach, step * 2
        return found


def read_varint(data: bytes | mmap, at: int, stop: int) -> tuple[int, int]:
    """The varint at `at` (as 64 bits, unsigned), and the offset after it.

    Raises:
        WireError: it runs past `stop` or past ten bytes.
    """
    if at < stop and data[at] < 0x80:
        return data[at], at + 1
    value = shift = 0
    for position in range(at, min(at + 10, stop)):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position + 1
        shift += 7
    if stop - at < 10:
        raise WireError("a number runs past the end", at, 1)
    raise WireError("a number is longer than ten bytes", at)


def to_signed(value: int) -> int:
    """A varint's 64 bits as a signed number, as int32 and int64 fields are written."""
    return value - (1 << 64) if value >= 1 << 63 else value


def encode_varint(value: int) -> bytes:
    """A number of up to 64 bits as a varint; negative ones as int32 and int64 fields are written."""
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_tag(number: int, wire_type: int) -> bytes:
    """The tag of a field."""
    return encode_varint(number << 3 | wire_type)


def encode_block(number: int, payload: bytes) -> bytes:
    """A field of bytes, a string or a message."""
    return encode_tag(number, LENGTH) + encode_varint(len(payload)) + payload
