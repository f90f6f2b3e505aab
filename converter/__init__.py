"""Caffe files -> `Net` -> torch -> ONNX -> bundle.

The names below are the public ones; each is loaded when it is first used, so that reading a net needs no torch and
printing help needs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bundle import BundleOptions, Preprocessing, write_bundle
    from .layers import Operator, register_layer
    from .net import Blob, DroppedLayer, Layer, Net
    from .onnx_export import export_onnx
    from .reading import read_net
    from .torch_module import run_blobs, to_torch

_HOMES = {
    "Blob": "net",
    "BundleOptions": "bundle",
    "DroppedLayer": "net",
    "Layer": "net",
    "Net": "net",
    "Operator": "layers",
    "Preprocessing": "bundle",
    "export_onnx": "onnx_export",
    "read_net": "reading",
    "register_layer": "layers",
    "run_blobs": "torch_module",
    "to_torch": "torch_module",
    "write_bundle": "bundle",
}

__all__ = [
    "Blob",
    "BundleOptions",
    "DroppedLayer",
    "Layer",
    "Net",
    "Operator",
    "Preprocessing",
    "export_onnx",
    "read_net",
    "register_layer",
    "run_blobs",
    "to_torch",
    "write_bundle",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
