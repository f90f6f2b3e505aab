"""PriorBox (SSD) and PriorBoxClustered (OpenVINO's training toolbox).

Around the centre (cell + offset) * step of every cell of bottom 0 lie P boxes, the same everywhere, divided by the size
of bottom 1 (the image). PriorBox: for each min_size its square, with a max_size the square of sqrt(min * max), then for
each other aspect ratio a the box min * sqrt(a) by min / sqrt(a). Sizes are cut to whole pixels first. Aspect ratio 1 is
always among them, a ratio given twice counts once, and `flip` (the default) adds 1 / a after each.
With fixed_size and density (FaceBoxes): density x density squares in a grid about the centre.
PriorBoxClustered: one box for each width and height, not cut.
Top: (1, 2, cells * P * 4), boxes and variances (one value stands for four; none for 0.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.net import Shape
from .base import ModuleSpec, Operator, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value

#: (shift of the centre in x, in y, width, height)
Box = tuple[float, float, float, float]
SAME_RATIO = 1e-6


class _Anchors(Operator):
    """Boxes on every cell; subclasses say which."""

    bottom_range = (2, 2)
    allows_in_place = False
    keep_outer = False

    def set_up(self) -> None:
        self.param = self.context.message.prior_box_param
        for blob in self.bottoms:
            if len(blob.shape) != 4:
                self.refuse(f'needs 4-D bottoms (N, C, H, W), "{blob.name}" is {blob.shape}')
        # Caffe keeps widths and heights as floats
        self.boxes = tuple((x, y, float(np.float32(w)), float(np.float32(h))) for x, y, w, h in self.find_boxes())
        self.variances = self._variances()
        self.step = self._pair("step")
        self.image_size = self._pair("img_size", "img")

    def find_boxes(self) -> tuple[Box, ...]:
        """The boxes of a cell."""
        raise NotImplementedError

    def _variances(self) -> tuple[float, float, float, float]:
        given = list(self.param.variance) or [0.1]
        if len(given) not in (1, 4) or min(given) <= 0:
            self.refuse(f"takes one variance or four, all above 0, not {given}")
        first, second, third, fourth = given if len(given) == 4 else given * 4
        return first, second, third, fourth

    def _pair(self, field: str, prefix: str = "") -> tuple[Any, Any] | None:
        """(height, width) from `field`, or from `prefix`_h and `prefix`_w; None where not given."""
        names = [f"{prefix or field}_{side}" for side in "hw"]
        has_both, has_one = any(self.param.HasField(name) for name in names), self.param.HasField(field)
        if has_both and has_one:
            self.refuse(f"give either {field}, or {names[0]} and {names[1]}, not both")
        if not has_both and not has_one:
            return None
        height, width = [getattr(self.param, name) for name in names] if has_both else [getattr(self.param, field)] * 2
        if min(height, width) <= 0:
            self.refuse(f"{field} must be above 0")
        return height, width

    def top_shapes(self) -> tuple[Shape, ...]:
        rows, columns = self.bottoms[0].shape[2:]
        return ((1, 2, rows * columns * len(self.boxes) * 4),)

    def module_spec(self) -> ModuleSpec:
        arguments: dict[str, Any] = {"boxes": self.boxes, "variances": self.variances, "offset": self.param.offset}
        optional = {"step": self.step, "image_size": self.image_size, "clip": bool(self.param.clip) or None}
        arguments |= {name: value for name, value in optional.items() if value is not None}
        if self.keep_outer:
            arguments["keep_outer"] = True
        return ModuleSpec("PriorBox", arguments)

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        features, image = bottoms
        if not any(value.is_dynamic(axis) for value in bottoms for axis in (2, 3)):
            import torch

            priors = module(torch.empty(features.shape), torch.empty(image.shape))
            return [graph.add("Identity", [graph.constant(priors.numpy())])]
        cells = features.shape[2:]
        centres = [self._centres(graph, cells[axis], image, axis) for axis in (0, 1)]
        sizes = [self._image_pixels(graph, image, axis) for axis in (0, 1)]
        whole = graph.shape_tensor([cells[0], cells[1], len(self.boxes), 1])
        corners = []
        for sign, axis in ((-1, 1), (-1, 0), (1, 1), (1, 0)):
            reach = [box[1 - axis] + sign * box[3 - axis] / 2 for box in self.boxes]
            edge = graph.add("Div", [graph.add("Add", [centres[axis], graph.constant(reach)]), sizes[axis]])
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

    def _centres(self, graph: OnnxGraph, cells: int, image: Value, axis: int) -> str:
        """Centres along an axis in pixels, shaped to broadcast over (rows, columns, P)."""
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
        if min([*param.min_size, *param.max_size, *param.fixed_size, *param.density], default=1) <= 0:
            self.refuse("sizes and densities must be above 0")
        if param.fixed_size:
            return self._dense_boxes()
        if not param.min_size:
            self.refuse("has no min_size")
        if param.max_size and len(param.max_size) != len(param.min_size):
            self.refuse(f"has {len(param.min_size)} min_size and {len(param.max_size)} max_size; give as many of each")
        boxes: list[Box] = []
        for index, least in enumerate(param.min_size):
            size = int(least)
            boxes.append((0.0, 0.0, float(size), float(size)))
            if param.max_size:
                if param.max_size[index] <= least:
                    self.refuse(f"max_size {param.max_size[index]:g} must be above min_size {least:g}")
                between = math.sqrt(size * int(param.max_size[index]))
                boxes.append((0.0, 0.0, between, between))
            boxes += [(0.0, 0.0, size * math.sqrt(a), size / math.sqrt(a)) for a in self._aspect_ratios()[1:]]
        return tuple(boxes)

    def _aspect_ratios(self) -> list[float]:
        ratios = [1.0]
        for ratio in self.param.aspect_ratio:
            if ratio <= 0:
                self.refuse(f"aspect_ratio {ratio:g} must be above 0")
            if any(abs(ratio - other) < SAME_RATIO for other in ratios):
                continue
            ratios += [ratio, 1 / ratio] if self.param.flip else [ratio]
        return ratios

    def _dense_boxes(self) -> tuple[Box, ...]:
        param = self.param
        self.keep_outer = True
        if param.min_size or param.max_size or param.aspect_ratio:
            self.refuse("gives fixed_size together with min_size, max_size or aspect_ratio; keep one kind")
        if len(param.density) != len(param.fixed_size):
            self.refuse(
                f"has {len(param.fixed_size)} fixed_size and {len(param.density)} density; give as many of each"
            )
        boxes: list[Box] = []
        for fixed, density in zip(param.fixed_size, param.density, strict=True):
            size, times = int(fixed), int(density)
            spacing = int(fixed / times)
            places = [-(size // 2) + spacing / 2 + number * spacing for number in range(times)]
            boxes += [(x, y, float(size), float(size)) for y in places for x in places]
        return tuple(boxes)


@register_layer("PriorBoxClustered")
class PriorBoxClustered(_Anchors):
    """Prior boxes of widths and heights found by clustering."""

    def find_boxes(self) -> tuple[Box, ...]:
        widths, heights = list(self.param.width), list(self.param.height)
        if not widths or len(widths) != len(heights):
            self.refuse(f"has {len(widths)} widths and {len(heights)} heights; give as many of each, at least one")
        if min(*widths, *heights) <= 0:
            self.refuse("widths and heights must be above 0")
        return tuple((0.0, 0.0, width, height) for width, height in zip(widths, heights, strict=True))
