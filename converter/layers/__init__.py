"""One file per family of Caffe layers; importing the package registers them all."""

from importlib import import_module
from pkgutil import iter_modules

from .base import (
    LayerContext,
    ModuleSpec,
    Operator,
    Window,
    count,
    find_operator,
    register_layer,
    registered_name,
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
    "registered_name",
    "registered_types",
]

for _file in iter_modules(__path__):
    import_module(f".{_file.name}", __name__)
