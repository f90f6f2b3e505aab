"""Cropping one blob to the size of another."""

from __future__ import annotations

import torch
from torch import nn


class Crop(nn.Module):
    """The part of x that starts at `offsets` and has the reference's sizes, for the axes from `axis` on."""

    def __init__(self, axis: int, offsets: tuple[int, ...]) -> None:
        super().__init__()
        self.axis, self.offsets = axis, offsets

    def forward(self, x: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        for axis, offset in enumerate(self.offsets, self.axis):
            x = x.narrow(axis, offset, reference.shape[axis])
        return x


class MergeCrop(nn.Module):
    """Channels of x, then those of y center-cropped to x's size; or, with `adds`, their sum."""

    def __init__(self, adds: bool = False) -> None:
        super().__init__()
        self.adds = adds

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        for axis in range(2, x.dim()):
            y = y.narrow(axis, (y.shape[axis] - x.shape[axis]) // 2, x.shape[axis])
        return x + y if self.adds else torch.cat((x, y), 1)
