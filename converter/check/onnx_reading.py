"""Parses ONNX files of untrusted bundles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message

from ...errors import ConverterError


def parse_onnx(content: bytes, path: Path) -> onnx.ModelProto:
    """Parse an ONNX file; raises ConverterError if it is invalid, or a tensor's content is in another file.

    Such a tensor may name any file, and onnx, onnx_ir and ONNX Runtime before 1.24 follow names out of the bundle.
    """
    try:
        model = onnx.load_from_string(content)
    except DecodeError as error:
        raise ConverterError(f"{path}: is not an ONNX model ({error}); convert the net again") from error
    for tensor in _find_tensors(model):
        if tensor.external_data or tensor.data_location != onnx.TensorProto.DEFAULT:
            raise ConverterError(
                f'{path}: the tensor "{tensor.name}" lies in another file; a bundle\'s models must contain their '
                "weights: convert the net again"
            )
    return model


def _find_tensors(message: Message) -> Iterator[Any]:
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        for inner in [value] if isinstance(value, Message) else value:
            if isinstance(inner, onnx.TensorProto):
                yield inner
            else:
                yield from _find_tensors(inner)
