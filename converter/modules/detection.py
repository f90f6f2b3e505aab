"""Decoding and non-maximum suppression of a detector's raw outputs. The number of detections depends on the data."""

from __future__ import annotations

import torch
from torch import nn

from .sorting import sort_as_cpp


def overlap(box: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Intersection over union of a box (4) with others (K, 4), corners x1 y1 x2 y2; inverted boxes have area 0."""
    size = (torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])).clamp(min=0).prod(1)
    areas = [(b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1) for b in (box, others)]
    return torch.where(size > 0, size / (areas[0] + areas[1] - size), 0.0)


def no_detections(batch: int, like: torch.Tensor) -> torch.Tensor:
    """Rows (batch, 7) for a batch without detections: the image's number, then -1."""
    rows = like.new_full((batch, 7), -1.0)
    rows[:, 0] = torch.arange(batch)
    return rows


class DetectionOutput(nn.Module):
    """SSD's detections: rows of (image, label, score, x1, y1, x2, y2), shape (1, 1, K, 7).

    Inputs: locations (N, priors * 4), or with a location for each class (N, priors * classes * 4); scores
    (N, priors * classes); priors (1, 2, priors * 4), boxes and variances. Rows are in order of image, label, score.
    Without detections there is one row per image: its number, then -1.

    Args:
        classes: number of classes, including the background.
        code: encoding of the locations relative to the priors: "corner", "center_size" or "corner_size".
        threshold: minimum score, exclusive; None keeps all.
        nms_threshold: a box is dropped if its overlap with a kept one of its class is larger.
        top_k: maximum number of boxes per class before suppression; -1: no limit.
        keep_top_k: maximum number of detections per image; -1: no limit.
        eta: if below 1, factor on nms_threshold after each kept box while the threshold is above 0.5.
        background: the class to skip; -1: no class.
        share_location: all classes use the same boxes.
        scale_by_variance: locations are in units of the variances.
        clip: clip decoded boxes to the image.
    """

    def __init__(
        self,
        classes: int,
        code: str,
        threshold: float | None,
        nms_threshold: float,
        top_k: int = -1,
        keep_top_k: int = -1,
        eta: float = 1.0,
        background: int = 0,
        share_location: bool = True,
        scale_by_variance: bool = True,
        clip: bool = False,
    ) -> None:
        super().__init__()
        self.classes, self.code, self.background, self.share_location = classes, code, background, share_location
        self.threshold, self.nms_threshold, self.eta = threshold, nms_threshold, eta
        self.top_k, self.keep_top_k = top_k, keep_top_k
        self.scale_by_variance, self.clip = scale_by_variance, clip

    def forward(
        self, locations: torch.Tensor, scores: torch.Tensor, priors: torch.Tensor, *_: torch.Tensor
    ) -> torch.Tensor:
        batch = locations.shape[0]
        anchors, variances = priors[0].float().reshape(2, -1, 1, 4)
        boxes = self.decode(anchors, variances, locations.float().reshape(batch, len(anchors), -1, 4))
        confidence = scores.float().reshape(batch, len(anchors), self.classes)
        rows = []
        for item in range(batch):
            found = []
            for label in range(self.classes):
                if label == self.background:
                    continue
                own = boxes[item, :, 0 if self.share_location else label]
                kept = self.suppress(own, confidence[item, :, label])
                head = own.new_tensor([item, label]).expand(len(kept), 2)
                found.append(torch.cat((head, confidence[item, kept, label, None], own[kept]), 1))
            rows.append(self.keep_best(torch.cat(found)))
        result = torch.cat(rows)
        if not len(result):
            result = no_detections(batch, locations)
        return result[None, None].to(scores.dtype)

    def decode(self, anchors: torch.Tensor, variances: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Boxes (N, K, sets, 4) from anchors and variances (K, 1, 4) and codes (N, K, sets, 4)."""
        shift = codes * variances if self.scale_by_variance else codes
        size = anchors[..., 2:] - anchors[..., :2]
        if self.code == "corner":
            boxes = anchors + shift
        elif self.code == "corner_size":
            boxes = anchors + shift * torch.cat((size, size), -1)
        else:
            center = (anchors[..., :2] + anchors[..., 2:]) / 2 + shift[..., :2] * size
            half = shift[..., 2:].exp() * size / 2
            boxes = torch.cat((center - half, center + half), -1)
        return boxes.clamp(0, 1) if self.clip else boxes

    def suppress(self, boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Indices of the boxes (K, 4) to keep, best first."""
        candidates = torch.arange(len(scores), device=scores.device)
        if self.threshold is not None:
            candidates = candidates[scores > self.threshold]
        candidates = candidates[scores[candidates].argsort(descending=True, stable=True)]
        if self.top_k > -1:
            candidates = candidates[: self.top_k]
        kept: list[int] = []
        limit = self.nms_threshold
        for candidate in candidates.tolist():
            # a NaN overlap, from infinite boxes, drops the candidate too
            if kept and not (overlap(boxes[candidate], boxes[kept]) <= limit).all():
                continue
            kept.append(candidate)
            if self.eta < 1 and limit > 0.5:
                limit *= self.eta
        return torch.tensor(kept, dtype=torch.long, device=boxes.device)

    def keep_best(self, rows: torch.Tensor) -> torch.Tensor:
        """The keep_top_k rows of an image with the highest scores, by label and score."""
        if not -1 < self.keep_top_k < len(rows):
            return rows
        rows = rows[sort_as_cpp(rows[:, 2].tolist())[: self.keep_top_k]]
        return rows[rows[:, 1].argsort(stable=True)]


class Yolov3DetectionOutput(nn.Module):
    """Detections of the YOLOv3 ports: rows of (0, label, score, x1, y1, x2, y2), shape (1, 1, K, 7).

    Inputs: one map (N, boxes * (5 + classes), side, side) for each scale. A box's center is (cell + sigmoid) / side,
    its size exp(code) * anchor / (side * stride), a class's score sigmoid(object) * sigmoid(class). Labels start at 1.
    Suppression runs over all classes and all images together. Without detections there is one row per image: its
    number, then -1.

    Args:
        classes: number of classes.
        threshold: minimum score, exclusive.
        nms_threshold: a box is dropped if its overlap with a better one is at least this.
        anchors: for each scale, the (width, height) of its boxes in pixels.
        strides: for each scale, the size of a cell in pixels; 1 for anchors in cells.
        one_label: YOLO v2: of each box only the best class counts, by softmax, and the threshold is inclusive.
    """

    def __init__(
        self,
        classes: int,
        threshold: float,
        nms_threshold: float,
        anchors: tuple[tuple[tuple[float, float], ...], ...],
        strides: tuple[int, ...],
        one_label: bool = False,
    ) -> None:
        super().__init__()
        self.classes, self.threshold, self.nms_threshold = classes, threshold, nms_threshold
        self.anchors, self.strides, self.one_label = anchors, strides, one_label

    def forward(self, *maps: torch.Tensor) -> torch.Tensor:
        scales = zip(maps, self.anchors, self.strides, strict=True)
        rows = torch.cat([self.decode(codes.float(), anchors, stride) for codes, anchors, stride in scales])
        rows = rows[sort_as_cpp(rows[:, 2].tolist())]
        kept = []
        while len(rows):
            kept.append(rows[0])
            rows = rows[1:][~(overlap(rows[0, 3:], rows[1:, 3:]) >= self.nms_threshold)]
        result = torch.stack(kept) if kept else no_detections(len(maps[0]), maps[0])
        return result[None, None].to(maps[0].dtype)

    def decode(self, codes: torch.Tensor, anchors: tuple[tuple[float, float], ...], stride: int) -> torch.Tensor:
        """Rows above the threshold, by image, cell, box and class."""
        side = codes.shape[3]
        # (N, cells, boxes, 5 + classes)
        cells = codes.reshape(len(codes), len(anchors), 5 + self.classes, -1).permute(0, 3, 1, 2)
        number = torch.arange(cells.shape[1], device=codes.device)
        corner = torch.stack((number % side, torch.div(number, side, rounding_mode="floor")), 1)[:, None]
        center = (corner + cells[..., :2].sigmoid()) / side
        half = cells[..., 2:4].exp() * codes.new_tensor(anchors) / (side * stride) / 2
        if self.one_label:
            best, number = cells[..., 5:].softmax(-1).max(-1)
            scores = cells[..., 4].sigmoid() * best
            image, cell, box = (scores >= self.threshold).nonzero(as_tuple=True)
            label, score = number[image, cell, box], scores[image, cell, box]
        else:
            scores = cells[..., 4:5].sigmoid() * cells[..., 5:].sigmoid()
            image, cell, box, label = (scores > self.threshold).nonzero(as_tuple=True)
            score = scores[image, cell, box, label]
        corners = torch.cat((center - half, center + half), -1)[image, cell, box]
        return torch.cat((torch.stack((torch.zeros_like(score), label + 1, score), 1), corners), 1)
