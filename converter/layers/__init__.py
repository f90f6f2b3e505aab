"""One file per family of Caffe layers; importing the package registers them all."""

from . import convolution as convolution
from . import pooling as pooling
from . import resize as resize
from .base import (
    LayerContext,
    ModuleSpec,
    Operator,
    Window,
    count,
    find_operator,
    register_layer,
    registered_types,
)

__all__ = [
    "LayerContext",
    "ModuleSpec",
    "Operator",
    "Window",
    "count",
    "find_operator",
    "register_layer",
    "registered_types",
]
