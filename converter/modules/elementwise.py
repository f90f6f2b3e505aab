"""Element-wise functions of several blobs."""

from __future__ import annotations

import torch
from torch import nn


class EltwiseSum(nn.Module):
    """Sum of the inputs, each times its coefficient (1 by default); a coefficient of 0 skips its input."""

    def __init__(self, coefficients: tuple[float, ...] | None = None) -> None:
        super().__init__()
        self.coefficients = coefficients

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        total = None
        for x, coefficient in zip(inputs, self.coefficients or (1.0,) * len(inputs), strict=True):
            if coefficient != 0:
                term = x if coefficient == 1 else x * coefficient
                total = term if total is None else total + term
        return torch.zeros_like(inputs[0]) if total is None else total


class EltwiseProduct(nn.Module):
    """Product of the inputs, which may broadcast."""

    def forward(self, first: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        product = first
        for x in others:
            product = product * x
        return product


class EltwiseMax(nn.Module):
    """Maximum of the inputs after the first `skip`."""

    def __init__(self, skip: int = 0) -> None:
        super().__init__()
        self.skip = skip

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        largest, *others = inputs[self.skip :]
        for x in others:
            largest = torch.maximum(largest, x)
        return largest


class Axpy(nn.Module):
    """a x + y; a has one value per item and channel."""

    def forward(self, a: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return a.reshape(a.shape[:2] + (1,) * (x.dim() - 2)) * x + y
