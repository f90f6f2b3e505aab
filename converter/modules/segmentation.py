"""DeepLab v2's edge-aware filter."""

from __future__ import annotations

import math

import torch
from torch import nn


class DomainTransform(nn.Module):
    """Recursive edge-aware smoothing (Gastal and Oliveira, 2011, section 5.1).

    Inputs: x (N, C, H, W); reference gradient (N, 1, H, W); data_dim (N, 1, 1, 2), each item's height and width; x is
    unchanged outside of it. Every iteration runs left to right, right to left, down and up; the weight between two
    neighbors is that of the later one in reading order.
    """

    def __init__(self, iterations: int, spatial_sigma: float, range_sigma: float, least_weight: float = 0.0) -> None:
        super().__init__()
        self.iterations, self.spatial_sigma, self.range_sigma = iterations, spatial_sigma, range_sigma
        self.least_weight = least_weight

    def forward(self, x: torch.Tensor, gradient: torch.Tensor, data_dim: torch.Tensor) -> torch.Tensor:
        top = x.clone()
        for item in range(x.shape[0]):
            height, width = (int(size) for size in data_dim[item].flatten()[:2])
            if height > x.shape[2] or width > x.shape[3]:
                raise ValueError(f"data_dim {height} x {width} is larger than the plane {tuple(x.shape[2:])}")
            edges = gradient[item, 0, :height, :width]
            for iteration in range(self.iterations):
                weight = self.weigh(edges, iteration)
                smooth_rows(top[item, :, :height, :width], weight)
                smooth_rows(top[item, :, :height, :width].transpose(1, 2), weight.T)
        return top

    def weigh(self, gradient: torch.Tensor, iteration: int) -> torch.Tensor:
        """Weight (H, W) of each pixel's neighbor; the sigma halves with every iteration."""
        halving = 2.0 ** (self.iterations - 1 - iteration) / math.sqrt(4.0**self.iterations - 1)
        sigma = self.spatial_sigma * math.sqrt(3) * halving
        distance = 1 + gradient * (self.spatial_sigma / self.range_sigma)
        return (distance * (-math.sqrt(2) / sigma)).exp().clamp(self.least_weight, 1)


def smooth_rows(y: torch.Tensor, weight: torch.Tensor) -> None:
    """Filter (C, H, W) in place along the last axis, forward and backward, with the weights (H, W)."""
    width = y.shape[2]
    for column in range(1, width):
        y[:, :, column] += weight[:, column] * (y[:, :, column - 1] - y[:, :, column])
    for column in range(width - 2, -1, -1):
        y[:, :, column] += weight[:, column + 1] * (y[:, :, column + 1] - y[:, :, column])
