"""Joining, splitting and reshaping axes by Caffe's rules, with sizes from the input at run time."""

from __future__ import annotations

import torch
from torch import nn


class Concat(nn.Module):
    """Concatenation along an axis."""

    def __init__(self, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat(inputs, self.axis)


class Slice(nn.Module):
    """The parts of an axis between `points`, or `parts` equal ones."""

    def __init__(self, axis: int = 1, points: tuple[int, ...] = (), parts: int = 0) -> None:
        super().__init__()
        self.axis, self.points, self.parts = axis, points, parts

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        size = x.shape[self.axis]
        points = self.points or [size // self.parts * part for part in range(1, self.parts)]
        starts, ends = [0, *points], [*points, size]
        return tuple(x.narrow(self.axis, start, end - start) for start, end in zip(starts, ends, strict=True))


class Split(nn.Module):
    """One blob as several outputs."""

    def __init__(self, copies: int) -> None:
        super().__init__()
        self.copies = copies

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (x,) * self.copies


class Reshape(nn.Module):
    """Replaces `num_axes` axes from `axis` on (-1: all to the end) by `dims`.

    A dim of 0 copies the size of the input's axis at that position, one of -1 is inferred.
    """

    def __init__(self, dims: tuple[int, ...], axis: int = 0, num_axes: int = -1) -> None:
        super().__init__()
        self.dims, self.axis, self.num_axes = dims, axis, num_axes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        end = x.dim() if self.num_axes == -1 else self.axis + self.num_axes
        dims = [x.shape[self.axis + index] if dim == 0 else dim for index, dim in enumerate(self.dims)]
        return x.reshape([*x.shape[: self.axis], *dims, *x.shape[end:]])


class Squeeze(nn.Module):
    """Removes these axes, which must have size 1."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape([size for axis, size in enumerate(x.shape) if axis not in self.axes])


class Permute(nn.Module):
    """Axis i of the result is axis order[i] of the input."""

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(self.order)


class Tile(nn.Module):
    """Repeats the input along an axis."""

    def __init__(self, axis: int, tiles: int) -> None:
        super().__init__()
        self.axis, self.tiles = axis, tiles

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat([self.tiles if axis == self.axis else 1 for axis in range(x.dim())])
