"""Summary of a net's layers: shapes, parameters, multiply-adds, receptive field and stride.

The receptive field r and the stride j (in input pixels, separately for height and width) grow along each path:
a window of extent k and stride s gives r + (k - 1) j and j s; a transposed one gives r + (ceil(k / s) - 1) j and j / s.
Where paths meet, the largest field and the smallest stride count.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from ..layers import count
from .geometry import Window
from .net import Layer, Net, Shape


@dataclass(frozen=True)
class ReceptiveField:
    """Receptive field and stride of one blob, in input pixels as (height, width)."""

    size: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1))
    stride: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1))

    def through(self, window: Window | None) -> ReceptiveField:
        """The receptive field after a sliding window."""
        if window is None:
            return self
        size, stride = [], []
        for r, j, k, s in zip(self.size, self.stride, window.kernel, window.stride, strict=True):
            if window.upsampling:
                size.append(r + (-(-k // s) - 1) * j)
                stride.append(j / s)
            else:
                size.append(r + (k - 1) * j)
                stride.append(j * s)
        return ReceptiveField((size[0], size[1]), (stride[0], stride[1]))


@dataclass(frozen=True)
class LayerSummary:
    """One row of a net's summary."""

    name: str  # layer name
    type: str  # its type
    line: int | None  # its line in the prototxt
    shapes: tuple[Shape, ...]  # the shape of each top
    parameters: int  # number of its own parameters; shared blobs count at their owner
    multiply_adds: int  # of one forward pass
    receptive_field: tuple[Fraction, Fraction]  # (height, width) in input pixels
    stride: tuple[Fraction, Fraction]  # (height, width) in input pixels

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        field, stride = map(float, self.receptive_field), map(float, self.stride)
        shapes = [list(shape) for shape in self.shapes]
        return {**asdict(self), "shapes": shapes, "receptive_field": list(field), "stride": list(stride)}


def summarize_layers(net: Net) -> tuple[LayerSummary, ...]:
    """One row per layer, in execution order."""
    fields = {blob: ReceptiveField() for blob in net.inputs}
    rows = []
    for layer in net.layers:
        receptive = _merge([fields[blob] for blob in layer.bottoms]).through(layer.operator.window())
        fields.update(dict.fromkeys(layer.tops, receptive))
        rows.append(
            LayerSummary(
                layer.name,
                layer.type,
                layer.line,
                tuple(top.shape for top in layer.tops),
                _own_parameters(layer),
                layer.operator.multiply_adds(),
                receptive.size,
                receptive.stride,
            )
        )
    return tuple(rows)


def _merge(fields: list[ReceptiveField]) -> ReceptiveField:
    if not fields:
        return ReceptiveField()
    return ReceptiveField(
        (max(field.size[0] for field in fields), max(field.size[1] for field in fields)),
        (min(field.stride[0] for field in fields), min(field.stride[1] for field in fields)),
    )


def _own_parameters(layer: Layer) -> int:
    return sum(
        count(shape)
        for key, shape in zip(layer.parameters, layer.operator.weight_shapes(), strict=True)
        if key.attribute == layer.attribute
    )
