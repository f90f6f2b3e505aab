"""Writes tiny ONNX models without the onnx library, for checks and measurements on a machine that only serves.

A protobuf message is a list of (field, wire type, payload); the numbers are the field numbers of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Sequence


def write_model(graph: bytes) -> bytes:
    """A whole model of one graph: IR version 8, opset 17."""
    return write_integer(1, 8) + write_message(7, graph) + write_message(8, write_text(1, "") + write_integer(2, 17))


def write_float_value(name: str, shape: Sequence[int]) -> bytes:
    """An input or output of float32."""
    sides = b"".join(write_message(1, write_integer(1, side)) for side in shape)
    return write_text(1, name) + write_message(2, write_message(1, write_integer(1, 1) + write_message(2, sides)))


def write_integer(field: int, value: int) -> bytes:
    """A field that is a number from 0 up."""
    return _varint(field << 3) + _varint(value)


def write_integers(field: int, values: Sequence[int]) -> bytes:
    """A repeated field of numbers, one after the other."""
    return b"".join(write_integer(field, value) for value in values)


def write_message(field: int, payload: bytes) -> bytes:
    """A field with a length: a message, or bytes."""
    return _varint(field << 3 | 2) + _varint(len(payload)) + payload


def write_text(field: int, value: str) -> bytes:
    """A field of text."""
    return write_message(field, value.encode())


def _varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes((*groups, value))
