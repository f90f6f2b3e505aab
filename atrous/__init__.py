"""Caffe networks to PyTorch, ONNX, TensorRT and labels with a dense CRF.

`converter` turns Caffe files into a bundle, `runtime` turns a bundle and images into labels, `bundle` is the contract
between them. Each is imported at its first use, so that `import atrous` needs nothing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING

from .errors import AtrousError

if TYPE_CHECKING:
    from . import bundle, converter, runtime

__all__ = ["AtrousError", "__version__", "bundle", "converter", "runtime"]

try:
    __version__ = importlib.metadata.version("atrous")
except importlib.metadata.PackageNotFoundError:
    __version__ = "0.0.0+source"


def __getattr__(name: str) -> object:
    """Import a part at its first use."""
    if name in ("bundle", "converter", "runtime"):
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted({*globals(), *__all__})
