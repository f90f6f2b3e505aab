"""Regions of interest: proposals, and pooling over regions. Their number depends on the data."""

from __future__ import annotations

import torch
from torch import nn


def round_half_up(x: torch.Tensor) -> torch.Tensor:
    """Round to whole numbers, halves away from 0, like C's round."""
    return x.sign() * (x.abs() + 0.5).floor()


def list_cells(
    regions: torch.Tensor, cells: list[list[list[list[int]]]]
) -> list[tuple[int, int, int, int, slice, slice]]:
    """(region, item, row, column, rows, columns) of all cells that are not empty.

    `cells`: the (first, last + 1) rows of each region's cells, then the same for columns.
    """
    return [
        (number, item, row, column, slice(top, bottom), slice(left, right))
        for number, item in enumerate(regions[:, 0].long().tolist())
        for row, (top, bottom) in enumerate(cells[0][number])
        for column, (left, right) in enumerate(cells[1][number])
        if bottom > top and right > left
    ]


class ROIPool(nn.Module):
    """Maximum over each cell of a grid on every region; an empty cell gives 0.

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
        for number, item, row, column, rows, columns in list_cells(regions, cells):
            top[number, :, row, column] = x[item, :, rows, columns].amax((1, 2))
        return top


class PositionSensitiveROIPool(nn.Module):
    """Average over each cell of a grid on every region, each cell from its own channels; an empty cell gives 0.

    Inputs: features (N, channels * grid^2, H, W); regions (R, 5), rows of (item, x1, y1, x2, y2) in image pixels.
    Output (R, channels, grid, grid).
    """

    def __init__(self, channels: int, grid: int, scale: float) -> None:
        super().__init__()
        self.channels, self.grid, self.scale = channels, grid, scale

    def forward(self, x: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
        regions = regions.float().reshape(-1, 5)
        starts = round_half_up(regions[:, 1:3]) * self.scale
        extent = ((round_half_up(regions[:, 3:]) + 1) * self.scale - starts).clamp(min=0.1) / self.grid
        edges = torch.arange(self.grid + 1, device=x.device)[:, None]
        limit = torch.tensor([x.shape[3], x.shape[2]], device=x.device)
        # (R, grid, 2): columns, rows
        first = (edges[:-1] * extent[:, None] + starts[:, None]).floor().long().clamp(min=0).minimum(limit)
        last = (edges[1:] * extent[:, None] + starts[:, None]).ceil().long().clamp(min=0).minimum(limit)
        cells = [torch.stack((first[..., axis], last[..., axis]), 2).tolist() for axis in (1, 0)]
        maps = x.reshape(len(x), self.channels, self.grid, self.grid, *x.shape[2:])
        top = x.new_zeros(len(regions), self.channels, self.grid, self.grid)
        for number, item, row, column, rows, columns in list_cells(regions, cells):
            top[number, :, row, column] = maps[item, :, row, column, rows, columns].mean((1, 2))
        return top


class Proposal(nn.Module):
    """Region proposals of Faster R-CNN: (R, 5), rows of (0, x1, y1, x2, y2), best first.

    Inputs: scores (1, 2 A, H, W), background then foreground; box codes (1, 4 A, H, W); im_info, whose first three
    values are height, width and scale of the image. Boxes smaller than min_size * scale get a score of 0. Boxes are in
    pixels, both ends included.

    Args:
        anchors: A boxes (x1, y1, x2, y2) around the first cell.
        stride: pixels between cells.
        min_size: minimum width and height, in pixels of the image before scaling.
        before: maximum number of boxes before suppression.
        after: maximum number of boxes after suppression.
        nms_threshold: a box is dropped if its overlap with a better one is larger.
        with_scores: also return the scores (R).
        drops_small: leave out small boxes instead.
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
        drops_small: bool = False,
    ) -> None:
        super().__init__()
        self.anchors, self.stride, self.min_size = anchors, stride, min_size
        self.before, self.after, self.nms_threshold = before, after, nms_threshold
        self.with_scores, self.drops_small = with_scores, drops_small

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
        center = boxes[..., :2] + size / 2 + code[..., :2] * size
        half = code[..., 2:].exp() * size / 2
        limit = torch.stack((image_width, image_height)) - 1
        low = (center - half).minimum(limit).clamp(min=0)
        high = (center + half).minimum(limit).clamp(min=0)
        is_large = (high - low + 1 >= self.min_size * scale).all(-1)
        score = (scores[0, len(anchors) :].float().permute(1, 2, 0) * is_large).flatten()
        order = score.argsort(descending=True, stable=True)
        if self.drops_small:
            order = order[is_large.flatten()[order]]
        order = order[: self.before]
        kept = order[self.suppress(torch.cat((low, high), -1).reshape(-1, 4)[order])]
        found = torch.cat((low, high), -1).reshape(-1, 4)[kept]
        regions = torch.cat((torch.zeros_like(found[:, :1]), found), 1).to(scores.dtype)
        return (regions, score[kept].to(scores.dtype)) if self.with_scores else regions

    def suppress(self, boxes: torch.Tensor) -> torch.Tensor:
        """Indices of the boxes (K, 4) to keep, in order."""
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
        return torch.stack(kept) if kept else remaining
