"""Interp: DeepLab's corner-aligned bilinear resize (forks deeplab_v1, deeplab_v2, pspnet and their descendants).

Output size from in' = in + pad_beg + pad_end (both pads <= 0: they crop):
1. shrink_factor s alone:  (in' - 1) // s + 1
2. zoom_factor z alone:    (in' - 1) z + 1
3. height and width
4. both factors:           t = (in' - 1) // s + 1, then (t - 1) z + 1
A field is given if it is present in the text. DeepLab v1 needs exactly one of forms 1 to 3; v2 uses the first that
applies in the order 1, 2, 3, 4, so zoom_factor takes precedence over height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ..graph.geometry import AxisMap, PlaneMap
from ..graph.net import Shape
from ..graph.sizes import Size
from .base import ModuleSpec, Operator, Window, count, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value


@register_layer("Interp")
class Interp(Operator):
    """Bilinear resize of (N, C, H, W) with aligned corners."""

    allows_in_place = False

    def set_up(self) -> None:
        param = self.context.message.interp_param
        self.require_planes()
        self.pad_begin, self.pad_end = param.pad_beg, param.pad_end
        if self.pad_begin > 0 or self.pad_end > 0:
            self.refuse(f"pad_beg and pad_end crop and must not be above 0, not {self.pad_begin} and {self.pad_end}")
        shrink = param.shrink_factor if param.HasField("shrink_factor") else None
        zoom = param.zoom_factor if param.HasField("zoom_factor") else None
        size = (param.height, param.width) if param.HasField("height") and param.HasField("width") else None
        given = [form for form in (shrink, zoom, size) if form is not None]
        if not given:
            self.refuse("has no output size; give zoom_factor, shrink_factor, or height and width")
        if self.context.dialect.one_interp_form and len(given) > 1:
            self.refuse("has more than one of zoom_factor, shrink_factor, and height with width; keep one")
        self.shrink, self.zoom = 1, 1
        self.size: tuple[int, int] | None = None
        if shrink is not None and zoom is None:
            self.shrink = shrink
        elif zoom is not None and shrink is None:
            self.zoom = zoom
        elif size is not None:
            self.size = size
        elif shrink is not None and zoom is not None:
            self.shrink, self.zoom = shrink, zoom
        if self.shrink < 1 or self.zoom < 1 or (self.size is not None and min(self.size) < 1):
            self.refuse("zoom_factor, shrink_factor, height and width must be at least 1")
        if any(size < 1 for size in self._cropped()):
            self.refuse(f"pad_beg and pad_end crop all of a {self.bottoms[0].shape[2:]} plane")

    def _cropped(self, shape: Shape | None = None) -> tuple[int, int]:
        """Height and width of the bottom, or of a blob of this shape, without what is cropped."""
        height, width = (shape or self.bottoms[0].shape)[2:]
        return height + self.pad_begin + self.pad_end, width + self.pad_begin + self.pad_end

    def top_shapes(self) -> tuple[Shape, ...]:
        sizes = self.size or tuple(((size - 1) // self.shrink) * self.zoom + 1 for size in self._cropped())
        return ((*self.bottoms[0].shape[:2], *sizes),)

    def multiply_adds(self) -> int:
        return 4 * count(self.top_shapes()[0])

    def window(self) -> Window:
        factor = self.zoom if self.zoom > 1 else self.shrink
        return Window((2, 2), (factor, factor), (0, 0), upsampling=self.zoom > 1)

    def coordinate_map(self) -> PlaneMap:
        maps = []
        for size, out in zip(self._cropped(), self.top_shapes()[0][2:], strict=True):
            # corners map to corners; a single row or column does not define a scale
            scale = Fraction(self.zoom)
            if self.shrink > 1 or self.size is not None:  # int() fixes the size: the scale holds for it alone
                scale = Fraction(int(out) - 1, int(size) - 1) if size > 1 and out > 1 else Fraction(1)
            maps.append(AxisMap(scale, self.pad_begin * scale))
        return maps[0], maps[1]

    def module_spec(self) -> ModuleSpec:
        crop = (-self.pad_begin, -self.pad_end)
        arguments = {
            "shrink": (self.shrink, 1),
            "zoom": (self.zoom, 1),
            "size": (self.size, None),
            "crop": (crop, (0, 0)),
        }
        return ModuleSpec("Interp", {name: value for name, (value, default) in arguments.items() if value != default})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0]
        name = x.name
        if self.pad_begin or self.pad_end:
            for axis in (2, 3):
                name = graph.slice(name, axis, -self.pad_begin, x.shape[axis] + self.pad_end)
        return [emit_bilinear(graph, name, self._cropped(x.shape), graph.top_shapes[0])]


def emit_bilinear(graph: OnnxGraph, x: str, plane: Sequence[int], sizes: Shape) -> str:
    """A corner-aligned bilinear Resize of a plane of these (H, W) to the four sizes (N, C, H, W).

    OpenCV 5 reads outside a plane of one row or column, so such an axis is repeated first.
    """
    single = [not isinstance(size, Size) and size == 1 for size in plane]
    if all(single):
        return graph.add("Expand", [x, graph.shape_tensor(sizes)])
    if any(single):
        x = graph.add("Expand", [x, graph.constant([1, 1, *(1 + one for one in single)], "int64")])
    return graph.add(
        "Resize",
        [x, "", "", graph.shape_tensor(sizes)],
        mode="linear",
        coordinate_transformation_mode="align_corners",
    )
