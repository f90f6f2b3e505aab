"""The boxes that a single-shot detector starts from."""

from __future__ import annotations

import torch
from torch import nn


class PriorBox(nn.Module):
    """Boxes around the centre of every feature cell, as fractions of the image, and their variances: (1, 2, cells P 4).

    Inputs: feature map (N, C, h, w), of which only the size counts; image (N, C, H, W), likewise.

    Args:
        boxes: P times (shift of the centre in x, in y, width, height), pixels.
        variances: of the four coordinates.
        step: pixels between cells (height, width); None is image / feature map.
        image_size: height and width in place of the image's.
        offset: the first centre, in cells.
        clip: keep all corners within the image.
        keep_outer: keep the left and top corners from below 0, the right and bottom ones from above 1.
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
        centre_y = ((row + self.offset) * step[0])[:, None, None] + shift_y
        centre_x = ((column + self.offset) * step[1])[None, :, None] + shift_x
        corners = [
            (centre_x - box_width / 2) / width,
            (centre_y - box_height / 2) / height,
            (centre_x + box_width / 2) / width,
            (centre_y + box_height / 2) / height,
        ]
        if self.keep_outer:
            corners = [corner.clamp(min=0) for corner in corners[:2]] + [corner.clamp(max=1) for corner in corners[2:]]
        # rows x columns x P x 4
        priors = torch.stack([corner.expand(rows, columns, -1) for corner in corners], 3).reshape(-1, 4)
        if self.clip:
            priors = priors.clamp(0, 1)
        variances = torch.tensor(self.variances, device=features.device).expand_as(priors)
        return torch.stack((priors, variances)).reshape(1, 2, -1).to(features.dtype)
