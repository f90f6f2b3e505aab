"""From a bundle to labels: backends, the dense CRF, image files in and pictures out.

Needs NumPy, Pillow and pydantic; each backend needs its own library. Never imports the converter; imports heavy modules
at their first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ..errors import (
    AtrousError,
    BackendError,
    BundleError,
    CrfInputError,
    DatasetError,
    ImageError,
    InputError,
    MemoryLimitError,
    MissingDependencyError,
    OutputError,
)

if TYPE_CHECKING:
    from ..bundle import palettes
    from ..bundle.folder import Bundle, read_bundle
    from ..bundle.manifest import Manifest
    from . import backends, batch, crf, evaluation, pictures
    from .backends.preprocessed import PixelRule
    from .images import read_image
    from .loading import load
    from .run_outputs import RunResult
    from .runner import Runner, load_runner
    from .segmentation import Segmentation
    from .segmenter import Segmenter

__all__ = [
    "AtrousError",
    "BackendError",
    "Bundle",
    "BundleError",
    "CrfInputError",
    "DatasetError",
    "ImageError",
    "InputError",
    "Manifest",
    "MemoryLimitError",
    "MissingDependencyError",
    "OutputError",
    "PixelRule",
    "RunResult",
    "Runner",
    "Segmentation",
    "Segmenter",
    "backends",
    "batch",
    "crf",
    "evaluation",
    "load",
    "load_runner",
    "palettes",
    "pictures",
    "read_bundle",
    "read_image",
]

_MODULES = {
    "backends": ".backends",
    "batch": ".batch",
    "crf": ".crf",
    "evaluation": ".evaluation",
    "palettes": "..bundle.palettes",
    "pictures": ".pictures",
}
_HOMES = {
    "Bundle": "..bundle.folder",
    "read_bundle": "..bundle.folder",
    "Manifest": "..bundle.manifest",
    "read_image": ".images",
    "Segmentation": ".segmentation",
    "Segmenter": ".segmenter",
    "load": ".loading",
    "PixelRule": ".backends.preprocessed",
    "load_runner": ".runner",
    "Runner": ".runner",
    "RunResult": ".run_outputs",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name in _MODULES:
        value: object = importlib.import_module(_MODULES[name], __name__)
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
