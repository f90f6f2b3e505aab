"""Convolutions that torch has no class for: axes folded into the batch, sides padded separately."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class SidePaddedConv2d(nn.Conv2d):
    """A convolution with separate padding for each side; sides = (top, left, bottom, right)."""

    def __init__(self, sides: tuple[int, int, int, int], **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        self.sides = sides

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        top, left, bottom, right = self.sides
        return super().forward(F.pad(x, (left, right, top, bottom)))


class FoldedAxes:
    """Mixin of a convolution whose channel axis is `axis`: folds the axes before it into the batch."""

    def __init__(self, axis: int, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.axis = axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = super().forward(x.reshape(-1, *x.shape[self.axis :]))  # type: ignore[misc]
        return y.reshape(*x.shape[: self.axis], *y.shape[1:])


class FoldedConv1d(FoldedAxes, nn.Conv1d):
    """Conv1d with folded axes."""


class FoldedConv2d(FoldedAxes, nn.Conv2d):
    """Conv2d with folded axes."""


class FoldedConv3d(FoldedAxes, nn.Conv3d):
    """Conv3d with folded axes."""


class FoldedConvTranspose1d(FoldedAxes, nn.ConvTranspose1d):  # type: ignore[misc]
    """ConvTranspose1d with folded axes."""


class FoldedConvTranspose2d(FoldedAxes, nn.ConvTranspose2d):  # type: ignore[misc]
    """ConvTranspose2d with folded axes."""


class FoldedConvTranspose3d(FoldedAxes, nn.ConvTranspose3d):  # type: ignore[misc]
    """ConvTranspose3d with folded axes."""
