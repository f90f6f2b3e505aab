"""Caffe files -> `Net` -> torch -> ONNX -> bundle.

The names below are the public ones; each is loaded when it is first used, so that reading a net needs no torch and
printing help needs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .export.bundle import BundleOptions, PreprocessingOptions, write_bundle
    from .export.onnx_export import export_onnx
    from .export.torch_module import run_blobs, to_torch
    from .graph.net import Blob, DroppedLayer, Layer, Net
    from .layers import Operator, register_layer
    from .read import read_net

_HOMES = {
    "Blob": "graph.net",
    "BundleOptions": "export.bundle",
    "DroppedLayer": "graph.net",
    "Layer": "graph.net",
    "Net": "graph.net",
    "Operator": "layers",
    "PreprocessingOptions": "export.bundle",
    "export_onnx": "export.onnx_export",
    "read_net": "read",
    "register_layer": "layers",
    "run_blobs": "export.torch_module",
    "to_torch": "export.torch_module",
    "write_bundle": "export.bundle",
}

__all__ = [
    "Blob",
    "BundleOptions",
    "DroppedLayer",
    "Layer",
    "Net",
    "Operator",
    "PreprocessingOptions",
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
    value = globals()[name] = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
