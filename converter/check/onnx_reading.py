"""Parses ONNX files of untrusted bundles."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import onnx
from google.protobuf.message import DecodeError, Message

from ...errors import ConverterError

_P = ParamSpec("_P")
_R = TypeVar("_R")


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
    with refuse_invalid(path):
        onnx.checker.check_model(model)
    return model


@contextmanager
def refuse_invalid(path: Path) -> Iterator[None]:
    """Raise ConverterError in place of the libraries' exceptions about the graph in `path`."""
    import onnx_ir

    foreign: tuple[type[Exception], ...] = (
        *list_runtime_errors(),
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        onnx_ir.serde.SerdeError,
        UnicodeDecodeError,  # a name in the graph that is not UTF-8
    )
    try:
        yield
    except foreign as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConverterError(f"{path}: the network cannot run: {reason}; convert the net again") from error


def refuses_invalid(function: Callable[Concatenate[Path, _P], _R]) -> Callable[Concatenate[Path, _P], _R]:
    """Decorate a function of a bundle's folder: its graphs are refused as by `refuse_invalid`."""

    @functools.wraps(function)
    def guarded(bundle: Path, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with refuse_invalid(bundle):
            return function(bundle, *args, **kwargs)

    return guarded


def list_runtime_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that ONNX Runtime raises; they share no base class of their own."""
    try:
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError:
        return ()
    return tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))


def _find_tensors(message: Message) -> Iterator[Any]:
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        for inner in [value] if isinstance(value, Message) else value:
            if isinstance(inner, onnx.TensorProto):
                yield inner
            else:
                yield from _find_tensors(inner)
