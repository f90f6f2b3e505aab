"""Normalizations with Caffe's arithmetic; statistics in float32 or wider, because squares overflow half precision."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def normalize_batch(x: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(x - mean) / sqrt(variance + eps), mean and biased variance of the batch, per channel (axis 1).

    Caffe computes the variance as E[x^2] - E[x]^2, which rounding can make negative; here it is E[(x - E[x])^2].
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    axes = [axis for axis in range(x.dim()) if axis != 1]
    mean = wide.mean(axes, keepdim=True)
    centered = wide - mean
    variance = (centered * centered).mean(axes, keepdim=True)
    return (centered / (variance + eps).sqrt()).to(x.dtype), mean.to(x.dtype), variance.to(x.dtype)


class BatchStatisticsNorm(nn.Module):
    """Batch normalization with statistics of the batch in every mode."""

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return normalize_batch(x, self.eps)[0]


class SegNetBN(nn.Module):
    """SegNet's BN in mode LEARN and PSPNet's in training: statistics of the batch, then scale and shift.

    `statistics` 1 adds the batch's mean as an output of shape (1, C, 1, 1), 2 the mean and the variance.
    """

    def __init__(self, channels: int, statistics: int = 0, eps: float = 1e-9) -> None:
        super().__init__()
        self.statistics, self.eps = statistics, eps
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        normal, *statistics = normalize_batch(x, self.eps)
        y = normal * self.scale + self.shift
        return (y, *statistics[: self.statistics]) if self.statistics else y


class LRNAcrossChannels(nn.LocalResponseNorm):
    """Torch's LocalResponseNorm with squares in float32 or wider."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.to(torch.promote_types(input.dtype, torch.float32))).to(input.dtype)


class LRNWithinChannel(nn.Module):
    """x * (1 + alpha * average of x^2 over a size x size window)^-beta; the window counts its zero padding."""

    def __init__(self, size: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.size, self.alpha, self.beta = size, alpha, beta

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        average = F.avg_pool2d(wide * wide, self.size, stride=1, padding=self.size // 2)
        return (wide * (1 + self.alpha * average).pow(-self.beta)).to(x.dtype)


class MVN(nn.Module):
    """(x - mean) / (standard deviation + eps) over the axes from `first_axis` on; with eps None, x - mean."""

    def __init__(self, first_axis: int, eps: float | None) -> None:
        super().__init__()
        self.first_axis, self.eps = first_axis, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(*x.shape[: self.first_axis], -1)
        centered = wide - wide.mean(-1, keepdim=True)
        if self.eps is not None:
            deviation = (centered * centered).mean(-1, keepdim=True).sqrt()
            centered = centered / (deviation + self.eps)
        return centered.reshape(x.shape).to(x.dtype)


class Normalize(nn.Module):
    """SSD's L2 normalization: x / sqrt(sum of x^2 + eps) * weight.

    The sum is over each item (`across_spatial`) or over the channels of each pixel; the weight has shape `shape`, one
    value or one per channel.
    """

    def __init__(self, across_spatial: bool, shape: tuple[int, ...], eps: float = 1e-10) -> None:
        super().__init__()
        self.across_spatial, self.eps = across_spatial, eps
        self.weight = nn.Parameter(torch.ones(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        axes = tuple(range(1, x.dim())) if self.across_spatial else (1,)
        norm = ((wide * wide).sum(axes, keepdim=True) + self.eps).sqrt()
        return (wide / norm).to(x.dtype) * self.weight
