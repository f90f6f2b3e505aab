"""Caffe's pooling where torch's differs: windows past the far edge, wide padding, masks, the divisor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class PaddedPool2d(nn.Module):
    """Base of pooling over a plane padded by pad_begin and pad_end (height, width), rounding down.

    A kernel_size of None is the whole plane.
    """

    def __init__(
        self,
        kernel_size: tuple[int, int] | None,
        stride: tuple[int, int],
        pad_begin: tuple[int, int],
        pad_end: tuple[int, int],
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.pad_begin, self.pad_end = kernel_size, stride, pad_begin, pad_end

    def pad(self, x: torch.Tensor, value: float) -> torch.Tensor:
        (top, left), (bottom, right) = self.pad_begin, self.pad_end
        return F.pad(x, (left, right, top, bottom), value=value)


class MaxPool2d(PaddedPool2d):
    """Maximum over each window."""

    def __init__(
        self, kernel_size: tuple[int, int], dilation: tuple[int, int] = (1, 1), **window: tuple[int, int]
    ) -> None:
        super().__init__(kernel_size, **window)
        self.dilation = dilation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = self.pad(x, torch.finfo(x.dtype).min)
        return F.max_pool2d(padded, self.kernel_size or x.shape[2:], self.stride, dilation=self.dilation)


class MaxPoolWithMask2d(PaddedPool2d):
    """Maximum pooling that also returns Caffe's mask: the flat index y * W + x in the unpadded plane.

    The mask is always float32, because half precision cannot hold indices above 2048. The first of equal values wins;
    a window outside the plane has index -1.
    """

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (top, left), (_, right) = self.pad_begin, self.pad_end
        height, width = x.shape[2:]
        padded = self.pad(x, torch.finfo(x.dtype).min)
        pooled, flat = F.max_pool2d(padded, self.kernel_size or (height, width), self.stride, return_indices=True)
        row = torch.div(flat, width + left + right, rounding_mode="floor") - top
        column = flat % (width + left + right) - left
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        mask = torch.where(inside, row * width + column, -1)
        return pooled, mask.float()


class AveragePool2d(PaddedPool2d):
    """Average over windows with Caffe's divisor.

    The divisor is the window's extent within the plane and its symmetric padding (pad_begin on both sides), or within
    the plane alone without `count_padding`. A window that begins at the plane's end gives NaN (0 / 0), one beyond it 0.
    """

    def __init__(self, kernel_size: tuple[int, int], count_padding: bool = True, **window: tuple[int, int]) -> None:
        super().__init__(kernel_size, **window)
        self.count_padding = count_padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel = self.kernel_size or x.shape[2:]
        total = F.avg_pool2d(self.pad(x, 0.0), kernel, self.stride, divisor_override=1)
        extents = []
        for axis in (0, 1):
            k, s, p, size = kernel[axis], self.stride[axis], self.pad_begin[axis], x.shape[2 + axis]
            start = torch.arange(total.shape[2 + axis], device=x.device) * s - p
            first, last = (start, size + p) if self.count_padding else (start.clamp(min=0), size)
            extents.append((start + k).clamp(max=last) - first)
        return total / (extents[0][:, None] * extents[1][None, :]).to(x.dtype)
