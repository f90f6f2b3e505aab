"""Torch modules with Caffe's arithmetic, for layers that torch has no class for.

The source of each class refers only to `torch`, `nn`, `F`, `math` and its own package, so that the readable `model.py`
can contain it verbatim. Files follow the families of `converter.layers`.
"""

from __future__ import annotations

import importlib
import pkgutil

from torch import nn

MODULE_CLASSES: dict[str, type[nn.Module]] = {}
"""Every torch module of this package by class name."""

for _file in pkgutil.iter_modules(__path__):
    for _value in vars(importlib.import_module(f".{_file.name}", __name__)).values():
        if isinstance(_value, type) and issubclass(_value, nn.Module) and _value.__module__.startswith(__name__):
            MODULE_CLASSES[_value.__name__] = _value
