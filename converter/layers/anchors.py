"""PriorBox (SSD) and PriorBoxClustered (OpenVINO's training toolbox).

Each cell of bottom 0 has the same P boxes, centered on (cell + offset) * step and divided by the size of bottom 1, the
image. PriorBox: for each min_size its square, with a max_size the square of sqrt(min * max), then for each other aspect
ratio a the box min * sqrt(a) by min / sqrt(a). Sizes are truncated to whole pixels first. Aspect ratio 1 is implied,
repeated ratios count once, and `flip` (the default) adds 1 / a after each.
With fixed_size and density (FaceBoxes): a grid of density x density squares around the center.
PriorBoxClustered: one box for each width and height, not truncated.
Top: (1, 2, cells * P * 4), boxes and variances (one variance applies to all four coordinates; the default is 0.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.net import Shape
from .base import ModuleSpec, Operator, given, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value

#: (shift of the center in x, in y, width, height)
Box = tuple[float, float, float, float]
SAME_RATIO = 1e-6
#: limits on what a short file can ask for: boxes of one cell (SSD has 6, FaceBoxes 21), sizes in pixels
MAX_BOXES = 1000
MAX_SIZE = 1_000_000


class _Anchors(Operator):
    """The same boxes on every cell."""

    bottom_range = (2, 2)
    allows_in_place = False
    keep_outer = False

    def set_up(self) -> None:
        self.param = self.context.message.prior_box_param
        self.require_planes()
        # Caffe stores widths and heights as float32
        self.boxes = tuple((x, y, float(np.float32(w)), float(np.float32(h))) for x, y, w, h in self.find_boxes())
        self.variances = self._variances()
        self.step = self.read_pair(self.param, "step")
        self.image_size = self.read_pair(self.param, "img_size", "img")
        self.check_sizes("step and img_size", [*(self.step or ()), *(self.image_size or ())])

    def find_boxes(self) -> tuple[Box, ...]:
        """List the boxes of a cell."""
        raise NotImplementedError

    def check_sizes(self, names: str, values: Iterable[float]) -> None:
        """Refuse values that are not above 0, or so large that a box overflows float32."""
        if not all(0 < value <= MAX_SIZE for value in values):
            self.refuse(f"{names} must be above 0 and at most {MAX_SIZE:,}")

    def limit_boxes(self, boxes: int) -> None:
        """Refuse more than MAX_BOXES boxes, before they are listed."""
        if boxes > MAX_BOXES:
            self.refuse(f"has more than {MAX_BOXES:,} boxes a cell; give fewer sizes or ratios, or a lower density")

    def _variances(self) -> tuple[float, float, float, float]:
        variances = list(self.param.variance) or [0.1]
        if len(variances) not in (1, 4):
            self.refuse(f"takes one variance or four, not {len(variances)}")
        self.check_sizes("variances", variances)
        first, second, third, fourth = variances if len(variances) == 4 else variances * 4
        return first, second, third, fourth

    def top_shapes(self) -> tuple[Shape, ...]:
        rows, columns = self.bottoms[0].shape[2:]
        return ((1, 2, rows * columns * len(self.boxes) * 4),)

    def module_spec(self) -> ModuleSpec:
        arguments: dict[str, Any] = {"boxes": self.boxes, "variances": self.variances, "offset": self.param.offset}
        optional = given(step=self.step, image_size=self.image_size, clip=self.param.clip, keep_outer=self.keep_outer)
        return ModuleSpec("PriorBox", arguments | optional)

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        features, image = bottoms
        if not any(value.is_dynamic(axis) for value in bottoms for axis in (2, 3)):
            import torch

            priors = module(torch.empty(features.shape), torch.empty(image.shape))
            return [graph.add("Identity", [graph.constant(priors.numpy())])]
        cells = features.shape[2:]
        centers = [self._centers(graph, cells[axis], image, axis) for axis in (0, 1)]
        sizes = [self._image_pixels(graph, image, axis) for axis in (0, 1)]
        whole = graph.shape_tensor([cells[0], cells[1], len(self.boxes), 1])
        corners = []
        for sign, axis in ((-1, 1), (-1, 0), (1, 1), (1, 0)):
            reach = [box[1 - axis] + sign * box[3 - axis] / 2 for box in self.boxes]
            edge = graph.add("Div", [graph.add("Add", [centers[axis], graph.constant(reach)]), sizes[axis]])
            if self.keep_outer:
                edge = graph.add("Max" if sign < 0 else "Min", [edge, graph.constant(0.0 if sign < 0 else 1.0)])
            column = graph.add("Unsqueeze", [edge, graph.constant([3], "int64")])
            corners.append(graph.add("Expand", [column, whole]))
        priors = graph.add("Concat", corners, axis=3)
        if self.param.clip:
            priors = graph.add("Clip", [priors, graph.constant(0.0), graph.constant(1.0)])
        shape = graph.shape_tensor([cells[0], cells[1], len(self.boxes), 4])
        variances = graph.add("Expand", [graph.constant(list(self.variances)), shape])
        return [graph.add("Concat", [graph.reshape(part, [1, 1, -1]) for part in (priors, variances)], axis=1)]

    def _centers(self, graph: OnnxGraph, cells: int, image: Value, axis: int) -> str:
        """Centers along an axis in pixels, shaped to broadcast over (rows, columns, P)."""
        end = graph.add("Squeeze", [graph.size_tensor(cells)])
        numbers = graph.add("Range", [graph.constant(0, "int64"), end, graph.constant(1, "int64")])
        places = graph.add("Add", [graph.add("Cast", [numbers], to=1), graph.constant(self.param.offset)])
        if self.step is not None:
            step = graph.constant(self.step[axis])
        else:
            count = graph.add("Cast", [graph.size_tensor(cells)], to=1)
            step = graph.add("Div", [self._image_pixels(graph, image, axis), count])
        return graph.reshape(graph.add("Mul", [places, step]), [-1, 1, 1] if axis == 0 else [1, -1, 1])

    def _image_pixels(self, graph: OnnxGraph, image: Value, axis: int) -> str:
        if self.image_size is not None:
            return graph.constant([float(self.image_size[axis])])
        return graph.add("Cast", [graph.size_tensor(image.shape[axis + 2])], to=1)


@register_layer("PriorBox")
class PriorBox(_Anchors):
    """SSD's prior boxes."""

    def find_boxes(self) -> tuple[Box, ...]:
        param = self.param
        self.check_sizes("sizes and aspect ratios", chain(param.min_size, param.max_size, param.aspect_ratio))
        self.check_sizes("fixed_size and density", chain(param.fixed_size, param.density))
        if param.fixed_size:
            return self._dense_boxes()
        if not param.min_size:
            self.refuse("has no min_size")
        if param.max_size:
            self.require_same_count(min_size=param.min_size, max_size=param.max_size)
        ratios = self._aspect_ratios()
        self.limit_boxes(len(param.min_size) * (len(ratios) + bool(param.max_size)))
        boxes: list[Box] = []
        for index, least in enumerate(param.min_size):
            size = int(least)
            boxes.append((0.0, 0.0, float(size), float(size)))
            if param.max_size:
                if param.max_size[index] <= least:
                    self.refuse(f"max_size {param.max_size[index]:g} must be above min_size {least:g}")
                between = math.sqrt(size * int(param.max_size[index]))
                boxes.append((0.0, 0.0, between, between))
            boxes += [(0.0, 0.0, size * math.sqrt(a), size / math.sqrt(a)) for a in ratios[1:]]
        return tuple(boxes)

    def _aspect_ratios(self) -> list[float]:
        ratios = [1.0]
        for ratio in self.param.aspect_ratio:
            if all(abs(ratio - other) >= SAME_RATIO for other in ratios):
                ratios += [ratio, 1 / ratio] if self.param.flip else [ratio]
                self.limit_boxes(len(ratios))
        return ratios

    def _dense_boxes(self) -> tuple[Box, ...]:
        param = self.param
        self.keep_outer = True
        if param.min_size or param.max_size or param.aspect_ratio:
            self.refuse("has both fixed_size and min_size, max_size or aspect_ratio; keep one kind")
        self.require_same_count(fixed_size=param.fixed_size, density=param.density)
        densities = [int(density) for density in param.density]
        self.check_sizes("densities, truncated to whole numbers,", densities)
        self.limit_boxes(sum(density**2 for density in densities))
        boxes: list[Box] = []
        for fixed, times in zip(param.fixed_size, densities, strict=True):
            size = int(fixed)
            spacing = int(fixed / times)
            places = [-(size // 2) + spacing / 2 + number * spacing for number in range(times)]
            boxes += [(x, y, float(size), float(size)) for y in places for x in places]
        return tuple(boxes)


@register_layer("PriorBoxClustered")
class PriorBoxClustered(_Anchors):
    """Prior boxes with widths and heights from clustering."""

    def find_boxes(self) -> tuple[Box, ...]:
        widths, heights = list(self.param.width), list(self.param.height)
        if not widths:
            self.refuse("has no width")
        self.require_same_count(width=widths, height=heights)
        self.check_sizes("widths and heights", widths + heights)
        self.limit_boxes(len(widths))
        return tuple((0.0, 0.0, width, height) for width, height in zip(widths, heights, strict=True))
