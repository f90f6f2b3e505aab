"""Reducing axes, and selecting along them, by Caffe's rules."""

from __future__ import annotations

import torch
from torch import nn


class Reduction(nn.Module):
    """coeff times the SUM, ASUM (of absolute values), SUMSQ (of squares) or MEAN of all axes from `axis` on."""

    def __init__(self, operation: str = "SUM", axis: int = 0, coeff: float = 1.0) -> None:
        super().__init__()
        self.operation, self.axis, self.coeff = operation, axis, coeff

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = x.flatten(self.axis)
        if self.operation == "ASUM":
            values = values.abs()
        elif self.operation == "SUMSQ":
            values = values * values
        reduced = values.mean(-1) if self.operation == "MEAN" else values.sum(-1)
        return reduced * self.coeff if self.coeff != 1 else reduced


class ArgMax(nn.Module):
    """The top_k largest values along an axis, or over all axes after the batch (axis None).

    Of equal values the larger index comes first, as in Caffe. `output` is "indices" (as floats), "values", or "both":
    the indices, then the values, along axis 1. With axis None the result is (N, 1 or 2, top_k), then axes of size 1 up
    to the input's number of axes.
    """

    def __init__(self, axis: int | None = None, top_k: int = 1, output: str = "indices") -> None:
        super().__init__()
        self.axis, self.top_k, self.output = axis, top_k, output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        axis = 2 if self.axis is None else self.axis
        candidates = x.reshape(x.shape[0], 1, -1) if self.axis is None else x
        # reversed, the first of equal values is the one with the larger index
        backwards = candidates.flip(axis)
        if self.top_k == 1:
            place = backwards.argmax(axis, keepdim=True)
        else:
            place = backwards.sort(stable=True, dim=axis, descending=True).indices.narrow(axis, 0, self.top_k)
        indices = (candidates.shape[axis] - 1 - place).to(x.dtype)
        if self.output == "indices":
            result = indices
        else:
            values = backwards.gather(axis, place)
            result = values if self.output == "values" else torch.cat([indices, values], 1)
        return result.reshape(result.shape + (1,) * (x.dim() - 3)) if self.axis is None else result


class BatchReindex(nn.Module):
    """The items of x selected by indices, which may repeat."""

    def forward(self, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return x.index_select(0, indices.long())


class Filter(nn.Module):
    """Keeps the items of each input whose value in the last input, the selector, is not 0."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        kept = inputs[-1].reshape(-1) != 0
        chosen = tuple(x[kept] for x in inputs[:-1])
        return chosen if len(chosen) > 1 else chosen[0]
