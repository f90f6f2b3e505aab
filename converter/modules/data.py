"""Blobs without an input."""

from __future__ import annotations

import torch
from torch import nn


class Constant(nn.Module):
    """One constant blob for each shape and value."""

    def __init__(self, shapes: tuple[tuple[int, ...], ...], values: tuple[float, ...]) -> None:
        super().__init__()
        self.shapes = shapes
        self.register_buffer("values", torch.tensor(values), persistent=False)
        self.values: torch.Tensor

    def forward(self) -> torch.Tensor | tuple[torch.Tensor, ...]:
        blobs = tuple(value.expand(shape) for value, shape in zip(self.values, self.shapes, strict=True))
        return blobs if len(blobs) > 1 else blobs[0]


class Parameter(nn.Module):
    """A learned blob."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(shape))

    def forward(self) -> torch.Tensor:
        return self.value
