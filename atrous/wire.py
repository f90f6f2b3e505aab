"""Protobuf's wire format: a bounded walker over a buffer, and encoders.

A message is a run of fields; a field is a tag (number * 8 + wire type) and a value. The walker yields the location of
each value and never reads a payload, so its cost is per field, not per byte. Lengths are checked against the rest of
the buffer before they are used. Bytes that two protobuf parsers could read differently (a number of more than 64 bits,
a field number out of range) are rejected.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
FIXED_WIDTHS = {FIXED32: 4, FIXED64: 8}
MAX_FIELD_NUMBER = (1 << 29) - 1
MAX_FIELDS = 4_000_000
MAX_NAME_BYTES = 1 << 16
_MAX_VARINT_BYTES = 10
_MAX_STEP = 1 << 16

Buffer = bytes | mmap | memoryview


class WireError(ValueError):
    """Bytes that are not a protobuf message.

    Attributes:
        offset: position of the fault.
        shortfall: number of missing bytes if the buffer ends early, else 0.
    """

    def __init__(self, message: str, offset: int, shortfall: int = 0) -> None:
        super().__init__(message)
        self.offset, self.shortfall = offset, shortfall


class Field(NamedTuple):
    """The location of one field, or of a run of adjacent fields with the same fixed-width tag."""

    number: int  # field number
    wire_type: int  # VARINT, FIXED64, LENGTH or FIXED32
    at: int  # offset of the (first) tag
    start: int  # offset of the (first) payload
    stop: int  # end of the (last) payload
    value: int  # of a VARINT, as 64 unsigned bits; 0 otherwise
    repeats: int  # number of fields; above 1 only in a run, whose payloads are one tag (a byte) apart


class WireReader:
    """Walks messages inside one buffer, with one budget of fields for all walks.

    Args:
        data: the buffer.
        max_fields: number of fields after which the buffer is rejected, so that time and memory stay bounded.
    """

    def __init__(self, data: Buffer, max_fields: int = MAX_FIELDS) -> None:
        self.data, self.left, self.max_fields = data, max_fields, max_fields

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """The fields of the message in data[start:stop], in order; fixed-width runs as one.

        Raises WireError if the bytes are not a message, or the budget is exhausted.
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
                raise WireError(f"invalid field number {number}", at)
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
                raise WireError(f"field {number} has the unsupported wire type {wire_type}", at)
            if end > stop:
                raise WireError(f"field {number} ends {end - stop} bytes past the end", at, end - stop)
            yield Field(number, wire_type, at, payload, end, value, count)
            at = end

    def text(self, field: Field) -> str:
        """The payload of a field as a string, invalid UTF-8 replaced; WireError if it exceeds `MAX_NAME_BYTES`."""
        if field.stop - field.start > MAX_NAME_BYTES:
            raise WireError(f"a name of {field.stop - field.start} bytes", field.at)
        return str(self.data[field.start : field.stop], "utf-8", "replace")

    def _count_run(self, at: int, stop: int, stride: int) -> int:
        """The number of adjacent whole fields with this tag and stride; reads at most about twice what it finds."""
        most, found, step = (stop - at) // stride, 1, 64
        tag = bytes([self.data[at]])
        while found < most:
            reach = min(found + step, most)
            tags = bytes(self.data[at + found * stride : at + (reach - 1) * stride + 1 : stride])
            differing = len(tags.lstrip(tag))
            if differing:
                return reach - differing
            found, step = reach, min(step * 2, _MAX_STEP)
        return found


def read_varint(data: Buffer, at: int, stop: int) -> tuple[int, int]:
    """The varint at `at` (as 64 bits, unsigned), and the offset after it.

    Raises WireError if it runs past `stop` or exceeds ten bytes or 64 bits.
    """
    if at < stop and data[at] < 0x80:
        return data[at], at + 1
    value = shift = 0
    for position in range(at, min(at + _MAX_VARINT_BYTES, stop)):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                raise WireError("a number of more than 64 bits", at)
            return value, position + 1
        shift += 7
    if stop - at < _MAX_VARINT_BYTES:
        raise WireError("a number runs past the end", at, 1)
    raise WireError("a number is longer than ten bytes", at)


def to_signed(value: int) -> int:
    """The 64 bits of a varint as a signed number, as int32 and int64 fields are written."""
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
