"""Caffe's pooling where torch's own differs: windows past the far edge, wide padding, masks, the divisor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class MaxPool2d(nn.Module):
    """Maximum over windows of a plane padded by pad_begin and pad_end (height, width), rounding down."""

    def __init__(
        self,
        kernel_size: tuple[int, int],
        stride: tuple[int, int],
        pad_begin: tuple[int, int],
        pad_end: tuple[int, int],
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.pad_begin, self.pad_end = kernel_size, stride, pad_begin, pad_end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (top, left), (bottom, right) = self.pad_begin, self.pad_end
        padded = F.pad(x, (left, right, top, bottom), value=torch.finfo(x.dtype).min)
        return F.max_pool2d(padded, self.kernel_size, self.stride)


class MaxPoolWithMask2d(nn.Module):
    """Maximum pooling that also gives Caffe's mask: the flat index y * W + x in the unpadded plane.

    The mask is float32 whatever x is: half precision cannot hold an index above 2048. A kernel_size of None is the
    whole plane. The first of equal values wins; a window outside the plane has index -1.
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

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (top, left), (bottom, right) = self.pad_begin, self.pad_end
        height, width = x.shape[2:]
        padded = F.pad(x, (left, right, top, bottom), value=torch.finfo(x.dtype).min)
        kernel = (height, width) if self.kernel_size is None else self.kernel_size
        pooled, flat = F.max_pool2d(padded, kernel, self.stride, return_indices=True)
        row = torch.div(flat, width + left + right, rounding_mode="floor") - top
        column = flat % (width + left + right) - left
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        mask = torch.where(inside, row * width + column, -1)
        return pooled, mask.float()


class AveragePool2d(nn.Module):
    """Average over windows with Caffe's divisor.

    The divisor is the window's extent up to the end of the symmetric padding (`count_padding`), or up to the plane
    itself without it; values beyond the plane are zero. Padding at the far side reaches pad_end. A window that begins
    where the plane ends is 0 / 0, not a number; one beyond is 0.
    """

    def __init__(
        self,
        kernel_size: tuple[int, int],
        stride: tuple[int, int],
        pad_begin: tuple[int, int],
        pad_end: tuple[int, int],
        count_padding: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.pad_begin, self.pad_end = kernel_size, stride, pad_begin, pad_end
        self.count_padding = count_padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (top, left), (bottom, right) = self.pad_begin, self.pad_end
        total = F.avg_pool2d(F.pad(x, (left, right, top, bottom)), self.kernel_size, self.stride, divisor_override=1)
        extents = []
        for axis in (0, 1):
            k, s, p, size = self.kernel_size[axis], self.stride[axis], self.pad_begin[axis], x.shape[2 + axis]
            start = torch.arange(total.shape[2 + axis], device=x.device) * s - p
            first, last = (start, size + p) if self.count_padding else (start.clamp(min=0), size)
            extents.append((start + k).clamp(max=last) - first)
        return total / (extents[0][:, None] * extents[1][None, :]).to(x.dtype)
