"""What a net is made of, for people and programs: shapes, parameters, multiply-adds, receptive field and stride.

The receptive field r and the stride j (both in input pixels, height and width apart) grow along each path:
a window of extent k and stride s gives r + (k - 1) j and j s; a transposed one gives r + (ceil(k / s) - 1) j and j / s.
Where paths meet the largest field and the smallest stride hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..layers import count
from .geometry import Window
from .net import Layer, Net, Shape


@dataclass(frozen=True)
class Reach:
    """Receptive field and stride of one blob, in input pixels as (height, width)."""

    field: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1))
    stride: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1))

    def through(self, window: Window | None) -> Reach:
        """The reach after a sliding window."""
        if window is None:
            return self
        field, stride = [], []
        for r, j, k, s in zip(self.field, self.stride, window.kernel, window.stride, strict=True):
            if window.upsampling:
                field.append(r + (-(-k // s) - 1) * j)
                stride.append(j / s)
            else:
                field.append(r + (k - 1) * j)
                stride.append(j * s)
        return Reach((field[0], field[1]), (stride[0], stride[1]))


@dataclass(frozen=True)
class LayerSummary:
    """One row of the inspection.

    Attributes:
        name: layer name.
        type: its type.
        line: its line in the prototxt.
        shapes: the shape of each top.
        parameters: number of parameters of its own (blobs shared from another layer count there).
        multiply_adds: of one forward pass.
        receptive_field: (height, width) in input pixels.
        stride: (height, width) in input pixels.
    """

    name: str
    type: str
    line: int | None
    shapes: tuple[Shape, ...]
    parameters: int
    multiply_adds: int
    receptive_field: tuple[Fraction, Fraction]
    stride: tuple[Fraction, Fraction]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name,
            "type": self.type,
            "line": self.line,
            "shapes": [list(shape) for shape in self.shapes],
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "receptive_field": [float(r) for r in self.receptive_field],
            "stride": [float(j) for j in self.stride],
        }


def summarize_layers(net: Net) -> tuple[LayerSummary, ...]:
    """One row a layer, in execution order."""
    reaches: dict[int, Reach] = {id(blob): Reach() for blob in net.inputs}
    rows = []
    for layer in net.layers:
        reach = _merge([reaches[id(blob)] for blob in layer.bottoms]).through(layer.operator.window())
        reaches.update((id(top), reach) for top in layer.tops)
        rows.append(
            LayerSummary(
                layer.name,
                layer.type,
                layer.line,
                tuple(top.shape for top in layer.tops),
                _own_parameters(layer),
                layer.operator.multiply_adds(),
                reach.field,
                reach.stride,
            )
        )
    return tuple(rows)


def _merge(reaches: list[Reach]) -> Reach:
    if not reaches:
        return Reach()
    return Reach(
        (max(r.field[0] for r in reaches), max(r.field[1] for r in reaches)),
        (min(r.stride[0] for r in reaches), min(r.stride[1] for r in reaches)),
    )


def _own_parameters(layer: Layer) -> int:
    return sum(
        count(shape)
        for key, shape in zip(layer.parameters, layer.operator.weight_shapes(), strict=True)
        if key.attribute == layer.attribute
    )
