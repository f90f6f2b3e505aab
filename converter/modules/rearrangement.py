"""Layers that move pixels between plane and channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Im2col(nn.Module):
    """Every window of the axes after `axis` as a column of channels: (..., C, H, W) -> (..., C kh kw, OH, OW)."""

    def __init__(
        self,
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        axis: int = 1,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.axis = axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        axis, rank = self.axis, len(self.kernel_size)
        columns = F.pad(x, [side for pad in reversed(self.padding) for side in (pad, pad)])
        for index, (kernel, stride, dilation) in enumerate(
            zip(self.kernel_size, self.stride, self.dilation, strict=True)
        ):
            windows = columns.unfold(axis + 1 + index, dilation * (kernel - 1) + 1, stride)
            columns = windows[..., ::dilation]
        # (.., C, o1, o2, k1, k2) -> (.., C, k1, k2, o1, o2)
        order = [*range(axis + 1), *range(axis + 1 + rank, axis + 1 + 2 * rank), *range(axis + 1, axis + 1 + rank)]
        return columns.permute(order).flatten(axis, axis + rank)


class SpatialPyramidPool(nn.Module):
    """Pools the plane into 1 x 1, 2 x 2, 4 x 4, ... bins: (N, C, H, W) -> (N, C sum(bins^2)).

    A bin is ceil(size / bins) pixels; the plane is centered in them, an odd pixel of padding comes first.
    A single level keeps its plane: (N, C, 1, 1).
    """

    def __init__(self, levels: int, method: str = "MAX") -> None:
        super().__init__()
        self.levels, self.method = levels, method

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = [self.pool(x, 2**level) for level in range(self.levels)]
        return pooled[0] if self.levels == 1 else torch.cat([level.flatten(1) for level in pooled], 1)

    def pool(self, x: torch.Tensor, bins: int) -> torch.Tensor:
        kernels, sides = [], []
        for size in x.shape[2:]:
            kernel = (size + bins - 1) // bins
            missing = kernel * bins - size
            kernels.append(kernel)
            sides.append(((missing + 1) // 2, missing // 2))
        fill = torch.finfo(x.dtype).min if self.method == "MAX" else 0.0
        padded = F.pad(x, (*sides[1], *sides[0]), value=fill)
        cells = padded.reshape(x.shape[0], x.shape[1], bins, kernels[0], bins, kernels[1])
        return cells.amax((3, 5)) if self.method == "MAX" else cells.mean((3, 5))


class Reorg(nn.Module):
    """Darknet's reorg layer, with its reinterpretation of the input.

    Without `reverse`, the input is read as C / stride^2 channels of (H stride) x (W stride) pixels; every stride-th
    pixel of those goes to its own channel, and the result is reshaped to (C stride^2, H / stride, W / stride).
    With `reverse`, channels move to pixels: (C / stride^2, H stride, W stride).
    """

    def __init__(self, stride: int, reverse: bool = False) -> None:
        super().__init__()
        self.stride, self.reverse = stride, reverse

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (batch, channels, height, width), s = x.shape, self.stride
        planes = channels // (s * s)
        if self.reverse:
            cells = x.reshape(batch, s, s, planes, height, width).permute(0, 3, 4, 1, 5, 2)
            return cells.reshape(batch, planes, height * s, width * s)
        cells = x.reshape(batch, planes, height, s, width, s).permute(0, 3, 5, 1, 2, 4)
        return cells.reshape(batch, channels * s * s, height // s, width // s)
