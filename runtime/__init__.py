"""From a bundle to labels: backends, the dense CRF, image files in and pictures out.

Needs NumPy, Pillow and pydantic; each backend needs its own library. Never imports the converter; imports heavy modules
at their first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .errors import (
    BackendError,
    BundleError,
    CrfInputError,
    DatasetError,
    ImageError,
    InferenceError,
    InputError,
    MissingDependencyError,
    OutputError,
)

if TYPE_CHECKING:
    from . import backends, crf, evaluation, palettes, pictures
    from .bundle import Bundle, read_bundle
    from .images import read_image
    from .manifest import Manifest
    from .segmenter import Segmentation, Segmenter, load

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "CrfInputError",
    "DatasetError",
    "ImageError",
    "InferenceError",
    "InputError",
    "Manifest",
    "MissingDependencyError",
    "OutputError",
    "Segmentation",
    "Segmenter",
    "backends",
    "crf",
    "evaluation",
    "load",
    "palettes",
    "pictures",
    "read_bundle",
    "read_image",
]

_MODULES = ("backends", "crf", "evaluation", "palettes", "pictures")
_HOMES = {
    "Bundle": "bundle",
    "read_bundle": "bundle",
    "read_image": "images",
    "Manifest": "manifest",
    "Segmentation": "segmenter",
    "Segmenter": "segmenter",
    "load": "segmenter",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _HOMES:
        value: object = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
