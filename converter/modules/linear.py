"""Caffe's layers with a weight matrix: inner products over several axes, and table lookup."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class InnerProduct(nn.Module):
    """Matrix product with all axes from `axis` on, flattened.

    The weight has Caffe's shape, (out, in), or (in, out) with `transpose`. The result has the axes before `axis`, then
    out_features, then `trailing_axes` axes of size 1. The parameters are uninitialized until loaded.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        axis: int = 1,
        transpose: bool = False,
        trailing_axes: int = 0,
    ) -> None:
        super().__init__()
        self.axis, self.transpose, self.trailing_axes = axis, transpose, trailing_axes
        shape = (in_features, out_features) if transpose else (out_features, in_features)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.t() if self.transpose else self.weight
        y = F.linear(x.flatten(self.axis), weight, self.bias)
        return y.reshape(y.shape + (1,) * self.trailing_axes)


class Embed(nn.Module):
    """Row int(x) of a table, plus a bias, as a new last axis; the parameters are uninitialized until loaded."""

    def __init__(self, input_dim: int, num_output: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(input_dim, num_output))
        self.bias = nn.Parameter(torch.empty(num_output)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = F.embedding(x.long(), self.weight)
        return rows if self.bias is None else rows + self.bias
