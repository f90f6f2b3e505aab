"""Caffe's pointwise functions for which torch has no class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class AbsVal(nn.Module):
    """|x|."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.abs()


class ReLUWithMask(nn.Module):
    """Leaky ReLU with a second output: 1 where x > 0, else 0."""

    def __init__(self, negative_slope: float = 0.0) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return F.leaky_relu(x, self.negative_slope), (x > 0).to(x.dtype)


class Power(nn.Module):
    """(shift + scale x) ^ power."""

    def __init__(self, power: float = 1.0, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.power, self.scale, self.shift = power, scale, shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.power * self.scale == 0:
            # the input does not matter, even where it is infinite
            return torch.full_like(x, self.shift).pow(self.power)
        y = x * self.scale if self.scale != 1 else x
        y = y + self.shift if self.shift != 0 else y
        return y.pow(self.power) if self.power != 1 else y


class Exp(nn.Module):
    """exp(inner x) outer: base ^ (shift + scale x) with the constants folded."""

    def __init__(self, inner: float = 1.0, outer: float = 1.0) -> None:
        super().__init__()
        self.inner, self.outer = inner, outer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.exp(x * self.inner) * self.outer


class Log(nn.Module):
    """log(shift + scale x) outer, where outer = 1 / log(base)."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0, outer: float = 1.0) -> None:
        super().__init__()
        self.scale, self.shift, self.outer = scale, shift, outer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(x * self.scale + self.shift) * self.outer


class Threshold(nn.Module):
    """1 where x > threshold, else 0."""

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x > self.threshold).to(x.dtype)


class Swish(nn.Module):
    """x sigmoid(beta x)."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x * self.beta)


class Clip(nn.Module):
    """max(minimum, min(x, maximum))."""

    def __init__(self, minimum: float, maximum: float) -> None:
        super().__init__()
        self.minimum, self.maximum = minimum, maximum

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(self.minimum, self.maximum)


class LeakyReLU6(nn.Module):
    """min(max(x, 0) + negative_slope min(x, 0), 6)."""

    def __init__(self, negative_slope: float) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(x, self.negative_slope).clamp(max=6)


class SampledDropout(nn.Module):
    """Dropout that stays random in eval mode (Bayesian SegNet's `sample_weights_test`).

    Average several forward passes; `torch.manual_seed` makes them reproducible.
    """

    def __init__(self, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, self.ratio, training=True)
