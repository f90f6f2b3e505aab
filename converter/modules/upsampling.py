"""Unpooling by a mask, by strides or by repeated pixels, and TensorFlow's bilinear resize."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class MaxUnpool(nn.Module):
    """Values at the pixels that the mask names, zeros elsewhere; on the CPU the later of two values for a pixel wins.

    The mask holds flat indices y * width + x into one output plane. The output has `size` (height, width), or the
    input's size times `scale` less `trim` rows and columns.
    """

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        scale: tuple[int, int] = (2, 2),
        trim: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.size, self.scale, self.trim = size, scale, trim

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, channels, rows, columns = x.shape
        grown = rows * self.scale[0] - self.trim[0], columns * self.scale[1] - self.trim[1]
        height, width = self.size or grown
        plane = x.new_zeros(batch, channels, height * width)
        return plane.scatter(2, mask.long().flatten(2), x.flatten(2)).reshape(batch, channels, height, width)


class StrideUnpool(nn.Module):
    """Values at every stride-th pixel of a plane of `size`, zeros elsewhere; positions are clamped to the edge."""

    def __init__(self, size: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.stride = size, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = self.size
        rows = (torch.arange(x.shape[2], device=x.device) * self.stride[0]).clamp(max=height - 1)
        columns = (torch.arange(x.shape[3], device=x.device) * self.stride[1]).clamp(max=width - 1)
        index = (rows[:, None] * width + columns).flatten().expand(*x.shape[:2], -1)
        plane = x.new_zeros(*x.shape[:2], height * width)
        return plane.scatter(2, index, x.flatten(2)).reshape(*x.shape[:2], height, width)


class SpreadUnpool(nn.Module):
    """Each value added to all pixels of its window, zeros elsewhere.

    Args:
        kernel: height and width of a window.
        stride: pixels between windows.
        averages: divide each value by the area of its window within the padded plane.
        size: height and width of the output; by default the windows' extent less the padding.
        pad: rows and columns by which the first window begins before the plane.
    """

    def __init__(
        self,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        averages: bool,
        size: tuple[int, int] | None = None,
        pad: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.averages, self.size, self.pad = kernel, stride, averages, size, pad

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole = [(x.shape[axis + 2] - 1) * self.stride[axis] + self.kernel[axis] for axis in (0, 1)]
        size = self.size or (whole[0] - 2 * self.pad[0], whole[1] - 2 * self.pad[1])
        if self.averages:
            for axis in (0, 1):
                starts = torch.arange(x.shape[axis + 2], device=x.device) * self.stride[axis]
                extent = (size[axis] + 2 * self.pad[axis] - starts).clamp(max=self.kernel[axis])
                x = x / extent.to(x.dtype).reshape(-1, *(1,) * (1 - axis))
        window = x.new_ones(x.shape[1], 1, *self.kernel)
        spread = F.conv_transpose2d(x, window, stride=self.stride, groups=x.shape[1])
        bottom, right = (size[axis] + self.pad[axis] - whole[axis] for axis in (0, 1))
        return F.pad(spread, (-self.pad[1], right, -self.pad[0], bottom))


class RepeatPixels(nn.Module):
    """Nearest-neighbor upsampling by whole factors `scale` (height, width)."""

    def __init__(self, scale: tuple[int, int]) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(self.scale[0], 2).repeat_interleave(self.scale[1], 3)


class RepeatToFit(nn.Module):
    """Repeats pixels until the plane covers the reference's, then crops to the center.

    If the excess of rows or columns is odd, one of them stays.
    """

    def forward(self, x: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        for axis in (2, 3):
            times = (reference.shape[axis] + x.shape[axis] - 1) // x.shape[axis]
            excess = times * x.shape[axis] - reference.shape[axis]
            x = x.repeat_interleave(times, axis)
            x = x.narrow(axis, excess // 2, reference.shape[axis] + excess % 2)
        return x


class ResizeFromOrigin(nn.Module):
    """Bilinear resize to `size` with output pixel i at i * in / out, TensorFlow 1's default."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for axis, out in enumerate(self.size, 2):
            last = x.shape[axis] - 1
            place = torch.arange(out, device=x.device) * (x.shape[axis] / out)
            before = place.floor().long()
            share = (place - before).to(x.dtype).reshape(-1, *(1,) * (3 - axis))
            first, second = x.index_select(axis, before), x.index_select(axis, (before + 1).clamp(max=last))
            x = first + (second - first) * share
        return x
