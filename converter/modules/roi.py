"""Regions of interest: proposing them, and pooling over them. Their number depends on the data."""

from __future__ import annotations

import torch
from torch import nn


def round_half_up(x: torch.Tensor) -> torch.Tensor:
    """To whole numbers, halves away from 0, as C's round."""
    return x.sign() * (x.abs() + 0.5).floor()


class ROIPool(nn.Module):
    """Maximum over each cell of a grid laid on every region; an empty cell gives 0.

    Inputs: features (N, C, H, W); regions (R, 5), rows of (item, x1, y1, x2, y2) in image pixels. Output (R, C, *size).
    """

    def __init__(self, size: tuple[int, int], scale: float) -> None:
        super().__init__()
        self.size, self.scale = size, scale

    def forward(self, x: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
        regions = regions.float().reshape(-1, 5)
        corners = round_half_up(regions[:, 1:] * self.scale)
        cells = []
        for axis, (bins, limit) in enumerate(zip(self.size, x.shape[2:], strict=True)):
            first, last = corners[:, 1 - axis], corners[:, 3 - axis]
            extent = (last - first + 1).clamp(min=1) / bins
            edges = torch.arange(bins + 1, device=x.device)
            start = (edges[:-1] * extent[:, None]).floor() + first[:, None]
            stop = (edges[1:] * extent[:, None]).ceil() + first[:, None]
            cells.append(torch.stack((start, stop), 2).clamp(0, limit).long().tolist())
        top = x.new_zeros(len(regions), x.shape[1], *self.size)
        for number, item in enumerate(regions[:, 0].long().tolist()):
            for row, (top_edge, bottom_edge) in enumerate(cells[0][number]):
                for column, (left_edge, right_edge) in enumerate(cells[1][number]):
                    if bottom_edge > top_edge and right_edge > left_edge:
                        window = x[item, :, top_edge:bottom_edge, left_edge:right_edge]
                        top[number, :, row, column] = window.amax((1, 2))
        return top


class PositionSensitiveROIPool(nn.Module):
    """Average over each cell of a grid, every cell from channels of its own; an empty cell gives 0.

    Inputs: features (N, channels * grid^2, H, W); regions (R, 5) as above. Output (R, channels, grid, grid).
    """

    def __init__(self, channels: int, grid: int, scale: float) -> None:
        super().__init__()
        self.channels, self.grid, self.scale = channels, grid, scale

    def forward(self, x: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
        regions = regions.float().reshape(-1, 5)
        starts = round_half_up(regions[:, 1:3]) * self.scale
        extent = ((round_half_up(regions[:, 3:]) + 1) * self.scale - starts).clamp(min=0.1) / self.grid
        edges = torch.arange(self.grid + 1, device=x.device)[:, None, None]
        limit = torch.tensor([x.shape[3], x.shape[2]], device=x.device)
        # (grid, R, 2): columns, rows
        first = (edges[:-1] * extent + starts).floor().long().clamp(min=0).minimum(limit).tolist()
        last = (edges[1:] * extent + starts).ceil().long().clamp(min=0).minimum(limit).tolist()
        maps = x.reshape(len(x), self.channels, self.grid, self.grid, *x.shape[2:])
        top = x.new_zeros(len(regions), self.channels, self.grid, self.grid)
        for number, item in enumerate(regions[:, 0].long().tolist()):
            for row in range(self.grid):
                for column in range(self.grid):
                    left, right = first[column][number][0], last[column][number][0]
                    upper, lower = first[row][number][1], last[row][number][1]
                    if lower > upper and right > left:
                        window = maps[item, :, row, column, upper:lower, left:right]
                        top[number, :, row, column] = window.mean((1, 2))
        return top


class Proposal(nn.Module):
    """Region proposals of Faster R-CNN: (R, 5), rows of (0, x1, y1, x2, y2), best first; with `with_scores` also (R).

    Inputs: scores (1, 2 A, H, W), background then foreground; box codes (1, 4 A, H, W); im_info, whose first three
    values are height, width and scale of the image. A box smaller than min_size * scale has its score set to 0. Boxes
    are pixels with both ends included.

    Args:
        anchors: A times (x1, y1, x2, y2) about the first cell.
        stride: pixels between cells.
        min_size: least width and height, in pixels of the image before scaling.
        before: at most so many boxes enter the suppression.
        after: at most so many come out.
        nms_threshold: a box is dropped if it overlaps a better one by more.
        with_scores: give the scores too.
    """

    def __init__(
        self,
        anchors: tuple[tuple[float, float, float, float], ...],
        stride: int,
        min_size: int,
        before: int,
        after: int,
        nms_threshold: float,
        with_scores: bool = False,
    ) -> None:
        super().__init__()
        self.anchors, self.stride, self.min_size = anchors, stride, min_size
        self.before, self.after, self.nms_threshold = before, after, nms_threshold
        self.with_scores = with_scores

    def forward(
        self, scores: torch.Tensor, codes: torch.Tensor, im_info: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        image_height, image_width, scale = im_info.flatten()[:3].float()
        rows, columns = scores.shape[2:]
        anchors = torch.tensor(self.anchors, dtype=torch.float32, device=scores.device)
        y, x = torch.meshgrid(
            torch.arange(rows, device=scores.device), torch.arange(columns, device=scores.device), indexing="ij"
        )
        # (H, W, A, 4)
        boxes = torch.stack((x, y, x, y), 2)[:, :, None] * self.stride + anchors
        code = codes[0].float().reshape(len(anchors), 4, rows, columns).permute(2, 3, 0, 1)
        size = boxes[..., 2:] - boxes[..., :2] + 1
        centre = boxes[..., :2] + size / 2 + code[..., :2] * size
        half = code[..., 2:].exp() * size / 2
        limit = torch.stack((image_width, image_height)) - 1
        low = (centre - half).minimum(limit).clamp(min=0)
        high = (centre + half).minimum(limit).clamp(min=0)
        is_large = (high - low + 1 >= self.min_size * scale).all(-1)
        score = (scores[0, len(anchors) :].float().permute(1, 2, 0) * is_large).flatten()
        order = score.argsort(descending=True, stable=True)[: self.before]
        kept = order[self.suppress(torch.cat((low, high), -1).reshape(-1, 4)[order])]
        found = torch.cat((low, high), -1).reshape(-1, 4)[kept]
        regions = torch.cat((torch.zeros_like(found[:, :1]), found), 1).to(scores.dtype)
        return (regions, score[kept].to(scores.dtype)) if self.with_scores else regions

    def suppress(self, boxes: torch.Tensor) -> torch.Tensor:
        """Indices of the boxes (K, 4) that are kept, in order."""
        area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1)
        remaining = torch.arange(len(boxes), device=boxes.device)
        kept: list[torch.Tensor] = []
        while len(remaining) and len(kept) < self.after:
            best, remaining = remaining[0], remaining[1:]
            kept.append(best)
            low = torch.maximum(boxes[best, :2], boxes[remaining, :2])
            high = torch.minimum(boxes[best, 2:], boxes[remaining, 2:])
            common = (high - low + 1).clamp(min=0).prod(1)
            overlap = common / (area[best] + area[remaining] - common)
            remaining = remaining[overlap <= self.nms_threshold]
        return torch.stack(kept)
