"""Prior boxes of single-shot detectors."""

from __future__ import annotations

import torch
from torch import nn


class PriorBox(nn.Module):
    """Boxes around the center of every feature cell, as fractions of the image, and their variances: (1, 2, cells P 4).

    Inputs: feature map (N, C, h, w) and image (N, C, H, W); only their sizes are used.

    Args:
        boxes: P tuples (shift of the center in x, in y, width, height), in pixels.
        variances: of the four coordinates.
        step: pixels between cells (height, width); None: size of the image / size of the feature map.
        image_size: height and width that replace the image's.
        offset: position of the first center, in cells.
        clip: clip all corners to the image.
        keep_outer: clip left and top corners at 0 only, right and bottom corners at 1 only.
    """

    def __init__(
        self,
        boxes: tuple[tuple[float, float, float, float], ...],
        variances: tuple[float, float, float, float],
        step: tuple[float, float] | None = None,
        image_size: tuple[int, int] | None = None,
        offset: float = 0.5,
        clip: bool = False,
        keep_outer: bool = False,
    ) -> None:
        super().__init__()
        self.boxes, self.variances, self.step, self.image_size = boxes, variances, step, image_size
        self.offset, self.clip, self.keep_outer = offset, clip, keep_outer

    def forward(self, features: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        height, width = self.image_size or image.shape[2:]
        rows, columns = features.shape[2:]
        step = self.step or (height / rows, width / columns)
        shift_x, shift_y, box_width, box_height = torch.tensor(self.boxes, device=features.device).unbind(1)
        row, column = (torch.arange(cells, dtype=torch.float32, device=features.device) for cells in (rows, columns))
        center_y = ((row + self.offset) * step[0])[:, None, None] + shift_y
        center_x = ((column + self.offset) * step[1])[None, :, None] + shift_x
        corners = [
            (center_x - box_width / 2) / width,
            (center_y - box_height / 2) / height,
            (center_x + box_width / 2) / width,
            (center_y + box_height / 2) / height,
        ]
        if self.keep_outer:
            corners = [corner.clamp(min=0) for corner in corners[:2]] + [corner.clamp(max=1) for corner in corners[2:]]
        # rows x columns x P x 4
        priors = torch.stack([corner.expand(rows, columns, -1) for corner in corners], 3).reshape(-1, 4)
        if self.clip:
            priors = priors.clamp(0, 1)
        variances = torch.tensor(self.variances, device=features.device).expand_as(priors)
        return torch.stack((priors, variances)).reshape(1, 2, -1).to(features.dtype)
