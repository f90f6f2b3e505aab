"""Convolutions that torch has no direct form of: axes folded into the batch, sides padded differently."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class SidePaddedConv2d(nn.Conv2d):
    """A convolution whose four sides are padded by themselves; sides = (top, left, bottom, right)."""

    def __init__(self, sides: tuple[int, int, int, int], **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        self.sides = sides

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        top, left, bottom, right = self.sides
        return super().forward(F.pad(x, (left, right, top, bottom)))


class FoldedConv1d(nn.Conv1d):
    """Conv1d whose channel axis is `axis`; the axes before it are folded into the batch."""

    def __init__(self, axis: int, **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        self.axis = axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x.reshape(-1, *x.shape[self.axis :]))
        return y.reshape(*x.shape[: self.axis], *y.shape[1:])


class FoldedConv2d(nn.Conv2d):
    """Conv2d whose channel axis is `axis`; the axes before it are folded into the batch."""

    def __init__(self, axis: int, **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        self.axis = axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x.reshape(-1, *x.shape[self.axis :]))
        return y.reshape(*x.shape[: self.axis], *y.shape[1:])


class FoldedConv3d(nn.Conv3d):
    """Conv3d whose channel axis is `axis`; the axes before it are folded into the batch."""

    def __init__(self, axis: int, **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        self.axis = axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x.reshape(-1, *x.shape[self.axis :]))
        return y.reshape(*x.shape[: self.axis], *y.shape[1:])


class FoldedConvTranspose1d(nn.ConvTranspose1d):
    """ConvTranspose1d whose channel axis is `axis`; the axes before it are folded into the batch."""

    def __init__(self, axis: int, **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        self.axis = axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        y = super().forward(x.reshape(-1, *x.shape[self.axis :]))
        return y.reshape(*x.shape[: self.axis], *y.shape[1:])


class FoldedConvTranspose2d(nn.ConvTranspose2d):
    """ConvTranspose2d whose channel axis is `axis`; the axes before it are folded into the batch."""

    def __init__(self, axis: int, **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        self.axis = axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        y = super().forward(x.reshape(-1, *x.shape[self.axis :]))
        return y.reshape(*x.shape[: self.axis], *y.shape[1:])


class FoldedConvTranspose3d(nn.ConvTranspose3d):
    """ConvTranspose3d whose channel axis is `axis`; the axes before it are folded into the batch."""

    def __init__(self, axis: int, **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        self.axis = axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        y = super().forward(x.reshape(-1, *x.shape[self.axis :]))
        return y.reshape(*x.shape[: self.axis], *y.shape[1:])
