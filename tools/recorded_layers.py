"""Plug-ins for recorded nets with custom layers, written as a user would write them (docs/plugins.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atrous.converter import Operator, register_layer
from atrous.converter.layers import ModuleSpec


@register_layer("Python:spatial_dropout.SpatialDropoutLayer")
class SpatialDropout(Operator):
    """ENet's Python layer, an identity outside training."""

    def module_spec(self) -> ModuleSpec:
        """Identity."""
        return ModuleSpec("nn.Identity")

    def emit(self, graph: Any, module: Any, bottoms: Sequence[Any]) -> list[str]:
        """The bottom itself."""
        return [bottoms[0].name]
