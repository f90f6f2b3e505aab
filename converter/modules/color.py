"""Color spaces."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class LabOfBGR(nn.Module):
    """(N, 3, H, W), BGR from 0 to 255 -> CIE L*a*b*; white point D65, as the colorization forks round it."""

    xyz_of_bgr: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        matrix = torch.tensor(
            [[0.1804375, 0.3575761, 0.4124564], [0.0721750, 0.7151522, 0.2126729], [0.9503041, 0.1191920, 0.0193339]],
            dtype=torch.float64,
        )
        white = torch.tensor([[0.95074], [1.0], [1.08883]], dtype=torch.float64)
        self.register_buffer("xyz_of_bgr", (matrix / white).float()[:, :, None, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v = x / 255
        linear = torch.where(v > 0.04045, ((v + 0.055) / 1.055).clamp(min=0).pow(2.4), v / 12.92)
        xyz = F.conv2d(linear, self.xyz_of_bgr)
        f = torch.where(xyz > 0.008867, xyz.clamp(min=0).pow(1 / 3), (903.3 * xyz + 16) / 116)
        fx, fy, fz = torch.chunk(f, 3, dim=1)
        return torch.cat([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], dim=1)
