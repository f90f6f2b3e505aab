"""Multiplication and addition along some of a blob's axes."""

from __future__ import annotations

import torch
from torch import nn


class Scale(nn.Module):
    """x * weight + bias; `shape` is that of both and ends in ones, so that they broadcast."""

    def __init__(self, shape: tuple[int, ...], bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * self.weight
        return y if self.bias is None else y + self.bias


class ScaleByBottom(nn.Module):
    """x * factor + bias; the factor gets `trailing` axes of size 1; no bias where `bias_shape` is None."""

    def __init__(self, trailing: int = 0, bias_shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.trailing = trailing
        self.bias = None if bias_shape is None else nn.Parameter(torch.zeros(bias_shape))

    def forward(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        y = x * factor.reshape(*factor.shape, *(1,) * self.trailing)
        return y if self.bias is None else y + self.bias


class Bias(nn.Module):
    """x + bias; `shape` is the bias's and ends in ones, so that it broadcasts."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.bias


class BiasByBottom(nn.Module):
    """x + addend; the addend gets `trailing` axes of size 1."""

    def __init__(self, trailing: int = 0) -> None:
        super().__init__()
        self.trailing = trailing

    def forward(self, x: torch.Tensor, addend: torch.Tensor) -> torch.Tensor:
        return x + addend.reshape(*addend.shape, *(1,) * self.trailing)
