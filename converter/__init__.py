"""Caffe files -> `Net` -> torch -> ONNX -> bundle.

The names in `__all__` are public. Each is imported at its first use: reading a net needs no torch, printing help needs
nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ..errors import (
    AtrousError,
    BundleError,
    CaffemodelError,
    ConverterError,
    ExportError,
    MissingDependencyError,
    NetError,
    OutputError,
    PrecisionError,
    PrototxtError,
    UnsupportedLayersError,
    VerificationError,
    VerificationInputError,
    WeightsError,
)

if TYPE_CHECKING:
    from . import precision
    from .check.compare import VerificationReport
    from .check.verify import verify_bundle
    from .export.bundle import BundleOptions, PreprocessingOptions, write_bundle
    from .export.onnx_export import export_onnx
    from .export.torch_module import run_blobs, to_torch
    from .files.caffemodel import read_caffemodel, read_mean
    from .files.prototxt import read_prototxt
    from .files.writer import write_caffemodel
    from .graph.build import reshape_net
    from .graph.definition import DroppedLayer
    from .graph.net import Blob, Layer, Net
    from .graph.select import filter_layers
    from .graph.summary import summarize_layers
    from .layers import ModuleSpec, Operator, register_layer
    from .read import read_net

__all__ = [
    "AtrousError",
    "Blob",
    "BundleError",
    "BundleOptions",
    "CaffemodelError",
    "ConverterError",
    "DroppedLayer",
    "ExportError",
    "Layer",
    "MissingDependencyError",
    "ModuleSpec",
    "Net",
    "NetError",
    "Operator",
    "OutputError",
    "PrecisionError",
    "PreprocessingOptions",
    "PrototxtError",
    "UnsupportedLayersError",
    "VerificationError",
    "VerificationInputError",
    "VerificationReport",
    "WeightsError",
    "export_onnx",
    "filter_layers",
    "precision",
    "read_caffemodel",
    "read_mean",
    "read_net",
    "read_prototxt",
    "register_layer",
    "reshape_net",
    "run_blobs",
    "summarize_layers",
    "to_torch",
    "verify_bundle",
    "write_bundle",
    "write_caffemodel",
]

_NAMES = {
    ".check.compare": ("VerificationReport",),
    ".check.verify": ("verify_bundle",),
    ".export.bundle": ("BundleOptions", "PreprocessingOptions", "write_bundle"),
    ".export.onnx_export": ("export_onnx",),
    ".export.torch_module": ("run_blobs", "to_torch"),
    ".files.caffemodel": ("read_caffemodel", "read_mean"),
    ".files.prototxt": ("read_prototxt",),
    ".files.writer": ("write_caffemodel",),
    ".graph.build": ("reshape_net",),
    ".graph.definition": ("DroppedLayer",),
    ".graph.net": ("Blob", "Layer", "Net"),
    ".graph.select": ("filter_layers",),
    ".graph.summary": ("summarize_layers",),
    ".layers": ("ModuleSpec", "Operator", "register_layer"),
    ".read": ("read_net",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name == "precision":
        value: object = importlib.import_module(".precision", __name__)
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
