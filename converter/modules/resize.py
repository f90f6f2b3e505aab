"""DeepLab's bilinear resize."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Interp(nn.Module):
    """Corner-aligned bilinear resize to `size`, or to ((in - 1) // shrink) * zoom + 1, after cropping.

    `crop`: rows and columns removed at the beginning and at the end.
    """

    def __init__(
        self, shrink: int = 1, zoom: int = 1, size: tuple[int, int] | None = None, crop: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__()
        self.shrink, self.zoom, self.size, self.crop = shrink, zoom, size, crop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        begin, end = self.crop
        x = x[:, :, begin : x.shape[2] - end, begin : x.shape[3] - end]
        height, width = ((size - 1) // self.shrink * self.zoom + 1 for size in x.shape[2:])
        return F.interpolate(x, self.size or (height, width), mode="bilinear", align_corners=True)
