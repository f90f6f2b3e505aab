"""ROIPooling (Fast R-CNN), PSROIPooling (R-FCN) and Proposal (Faster R-CNN).

ROIPooling: region corners times spatial_scale, rounded; the region, both ends included, is split into pooled_h x
pooled_w cells, each from floor to ceil; the top is the maximum of a cell, 0 if it is empty. In ONNX it is MaxRoiPool.
PSROIPooling: corners rounded first, the far ones plus 1, times spatial_scale; cell (i, j) of channel c averages channel
(c * group_size + i) * group_size + j. It has no ONNX form.
Proposal (the C++ layer of PVANet and mini-caffe): see the torch module; the number of boxes depends on the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..graph.net import Shape
from .anchors import MAX_BOXES, MAX_SIZE
from .base import ModuleSpec, Operator, count, given, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value


class _Pooling(Operator):
    """A layer that reads features and regions."""

    bottom_range = (2, 2)
    allows_in_place = False

    def check_bottoms(self) -> None:
        """Refuse features that are not 4-D and regions that are not (R, 5)."""
        features, regions = (blob.shape for blob in self.bottoms)
        if len(features) != 4:
            self.refuse(f"needs features (N, C, H, W), has {features}")
        if not regions or count(regions[1:]) != 5:
            self.refuse(f"needs regions (R, 5), rows of (item, x1, y1, x2, y2), has {regions}")


@register_layer("ROIPooling")
class ROIPooling(_Pooling):
    """Maximum over each cell of every region."""

    def set_up(self) -> None:
        self.param = self.context.message.roi_pooling_param
        self.check_bottoms()
        self.size = self.param.pooled_h, self.param.pooled_w
        self.require_positive(pooled_h=self.size[0], pooled_w=self.size[1])

    def top_shapes(self) -> tuple[Shape, ...]:
        return ((self.bottoms[1].shape[0], self.bottoms[0].shape[1], *self.size),)

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("ROIPool", {"size": self.size, "scale": self.param.spatial_scale})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        features, regions = bottoms
        rows = regions.name if len(regions.shape) == 2 else graph.reshape(regions.name, [-1, 5])
        attributes = {"pooled_shape": list(self.size), "spatial_scale": self.param.spatial_scale}
        return [graph.add_multiple("MaxRoiPool", [features.name, rows], 1, **attributes)[0]]


@register_layer("PSROIPooling")
class PSROIPooling(_Pooling):
    """Position-sensitive average over each cell of every region."""

    def set_up(self) -> None:
        self.param = self.context.message.psroi_pooling_param
        self.check_bottoms()
        channels, grid = self.param.output_dim, self.param.group_size
        self.require_positive(output_dim=channels, group_size=grid, spatial_scale=self.param.spatial_scale)
        if self.bottoms[0].shape[1] != channels * grid * grid:
            self.refuse(f"needs features of {channels} * {grid}^2 channels, has {self.bottoms[0].shape[1]}")

    def top_shapes(self) -> tuple[Shape, ...]:
        grid = self.param.group_size
        return ((self.bottoms[1].shape[0], self.param.output_dim, grid, grid),)

    def module_spec(self) -> ModuleSpec:
        param = self.param
        arguments = {"channels": param.output_dim, "grid": param.group_size, "scale": param.spatial_scale}
        return ModuleSpec("PositionSensitiveROIPool", arguments)


@register_layer("Proposal")
class Proposal(Operator):
    """Boxes that are likely to contain an object."""

    bottom_range = (3, 3)
    top_range = (1, 2)
    allows_in_place = False

    def set_up(self) -> None:
        param = self.param = self.context.message.proposal_param
        self.anchors = self._anchors()
        scores, codes, im_info = (blob.shape for blob in self.bottoms)
        if len(scores) != 4 or scores[0] != 1:
            self.refuse(f"needs scores of one image (1, 2 A, H, W), has {scores}")
        if scores[1] != 2 * len(self.anchors) or codes != (1, 4 * len(self.anchors), *scores[2:]):
            self.refuse(f"has {len(self.anchors)} anchors, which do not match scores {scores} and boxes {codes}")
        if count(im_info) < 3:
            self.refuse(f"needs im_info (height, width, scale), has shape {im_info}")
        for field in ("feat_stride", "pre_nms_topn", "post_nms_topn"):
            self.require_positive(**{field: getattr(param, field)})

    def _anchors(self) -> tuple[tuple[float, float, float, float], ...]:
        param = self.param
        if not param.ratio or not param.scale or not all(0 < v <= MAX_SIZE for v in (*param.ratio, *param.scale)):
            self.refuse(f"needs a ratio and a scale, all above 0 and at most {MAX_SIZE:,}")
        if len(param.ratio) * len(param.scale) > MAX_BOXES:
            self.refuse(f"has more than {MAX_BOXES:,} anchors; give fewer ratios or scales")
        center = 0.5 * (param.base_size - 1)
        anchors = []
        for ratio in param.ratio:
            width = math.floor(math.sqrt(param.base_size**2 / ratio) + 0.5)
            height = math.floor(width * ratio + 0.5)
            for scale in param.scale:
                half = 0.5 * (width * scale - 1), 0.5 * (height * scale - 1)
                anchors.append((center - half[0], center - half[1], center + half[0], center + half[1]))
        return tuple(anchors)

    def top_shapes(self) -> tuple[Shape, ...]:
        rows = self.param.post_nms_topn
        return ((rows, 5), (rows,))[: len(self.context.top_names)]

    def module_spec(self) -> ModuleSpec:
        param = self.param
        arguments = {
            "anchors": self.anchors,
            "stride": param.feat_stride,
            "min_size": param.min_size,
            "before": param.pre_nms_topn,
            "after": param.post_nms_topn,
            "nms_threshold": param.nms_thresh,
        }
        return ModuleSpec("Proposal", arguments | given(with_scores=len(self.context.top_names) == 2))
