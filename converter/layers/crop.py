"""Crop (BVLC's and that of the older forks), AutoCrop and MergeCrop.

BVLC: from `axis` (default 2) on, the top is bottom 0 from `offset` (absent: 0; one value: for all axes; or one for each
axis) with the sizes of bottom 1.
The older forks (longjon's "future" branch: FCN, HED, CRF-RNN, DeconvNet) have no parameters: the offset follows from
the graph. Both bottoms are traced back to their common ancestor through each layer's coordinate map; the offset aligns
the two planes. RCF calls this layer AutoCrop.
`converter.graph.crop_rule` decides between the two for a Crop without crop_param.
MergeCrop (naibaf7's fork): bottom 0, then the center of bottom 1 in bottom 0's size, along the channels (STACK); or
their sum (ADD).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ...errors import CropOffsetError
from ..graph.crop_rule import CropRule
from ..graph.geometry import AlignmentError, AxisMap, PlaneMap, align_blobs
from ..graph.net import Shape
from .base import ModuleSpec, Operator, given, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value


@register_layer("Crop", "AutoCrop")
class Crop(Operator):
    """The part of bottom 0 that has the sizes of bottom 1."""

    bottom_range = (2, 2)
    allows_in_place = False

    def set_up(self) -> None:
        message = self.context.message
        no_offset = not message.HasField("crop_param")
        by_rule = no_offset and self.context.crop_rule is not CropRule.ZERO
        self.is_automatic = self.context.type == "AutoCrop" or by_rule
        if self.is_automatic:
            self.axis, self.offsets = 2, self._aligned_offsets()
        else:
            self.axis = self.bottom_axis(message.crop_param.axis)
            self.offsets = self._given_offsets(list(message.crop_param.offset))
        self._check_fit()

    def _given_offsets(self, given: list[int]) -> tuple[int, ...]:
        axes = len(self.bottoms[0].shape) - self.axis
        if len(given) not in (0, 1, axes):
            self.refuse(f"has {len(given)} offsets for {axes} axes; give one, or one for each axis")
        return tuple(given) if len(given) == axes else (given[0] if given else 0,) * axes

    def _aligned_offsets(self) -> tuple[int, ...]:
        self.require_planes()
        try:
            maps = align_blobs(*self.bottoms)
        except AlignmentError as error:
            self.refuse(f"cannot compute its offset: {error}; give crop_param {{ axis: 2 offset: ... }}")
        offsets = []
        for axis in maps:
            problem = ""
            if axis.scale != 1:
                problem = f"one pixel of its first bottom is {float(axis.scale):g} pixels of its second"
            elif axis.shift > 0 or axis.shift.denominator != 1:
                problem = f"the layers between give the offset {float(-axis.shift):g}, not a whole number of at least 0"
            if problem:
                raise CropOffsetError(
                    f"{self.context.type}: {problem}; give crop_param {{ axis: 2 offset: ... }}",
                    layer=self.context.name,
                    line=self.context.line,
                )
            offsets.append(int(-axis.shift))
        return tuple(offsets)

    def _check_fit(self) -> None:
        whole, reference = self.bottoms[0].shape, self.bottoms[1].shape
        if len(reference) != len(whole):
            self.refuse(f"its bottoms have {len(whole)} and {len(reference)} axes; the numbers must be equal")
        for axis, offset in enumerate(self.offsets, self.axis):
            if offset + reference[axis] > whole[axis]:
                self.refuse(
                    f"needs {offset} + {reference[axis]} values along axis {axis}, "
                    f"but the first bottom has only {whole[axis]}"
                )

    def notes(self) -> tuple[str, ...]:
        if not self.is_automatic or self.context.crop_rule is not CropRule.GRAPH_ASSUMED or not any(self.offsets):
            return ()
        return (
            f"has no crop_param, so its offset {self.offsets} follows from the graph, as in the Caffe of FCN, HED and "
            "CRF-RNN; for BVLC Caffe's offset of 0 set the dialect to bvlc",
        )

    def top_shapes(self) -> tuple[Shape, ...]:
        return ((*self.bottoms[0].shape[: self.axis], *self.bottoms[1].shape[self.axis :]),)

    def coordinate_map(self) -> PlaneMap | None:
        if len(self.bottoms[0].shape) != 4:
            return None
        height, width = (
            AxisMap(shift=Fraction(-self.offsets[axis - self.axis] if axis >= self.axis else 0)) for axis in (2, 3)
        )
        return height, width

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("Crop", {"axis": self.axis, "offsets": self.offsets})

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        axes = range(self.axis, self.axis + len(self.offsets))
        ends = [bottoms[1].shape[axis] + offset for axis, offset in zip(axes, self.offsets, strict=True)]
        starts = graph.constant(list(self.offsets), "int64")
        return [
            graph.add("Slice", [bottoms[0].name, starts, graph.shape_tensor(ends), graph.constant(list(axes), "int64")])
        ]


@register_layer("MergeCrop")
class MergeCrop(Operator):
    """Skip connection of a U-Net: the larger bottom is center-cropped, and concatenated or added."""

    bottom_range = (2, 2)
    allows_in_place = False

    def set_up(self) -> None:
        small, large = self.bottoms[0].shape, self.bottoms[1].shape
        param = self.context.message.mergecrop_param
        self.adds = bool(param.operation)
        if list(param.forward).count(False):
            self.refuse("has `forward: false`, which only training uses; remove it")
        equal = 2 if self.adds else 1
        if len(small) < 3 or len(small) != len(large) or small[:equal] != large[:equal]:
            what = "batch and channels" if self.adds else "batch"
            self.refuse(f"needs bottoms with equal {what}, has {small} and {large}")
        if any(a > b for a, b in zip(small[2:], large[2:], strict=True)):
            self.refuse(f"its second bottom {large} must be at least as large as the first {small}")

    def top_shapes(self) -> tuple[Shape, ...]:
        batch, channels, *plane = self.bottoms[0].shape
        return ((batch, channels if self.adds else channels + self.bottoms[1].shape[1], *plane),)

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("MergeCrop", given(adds=self.adds))

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        small, large = bottoms
        axes = range(2, len(small.shape))
        starts = [(large.shape[axis] - small.shape[axis]) // 2 for axis in axes]
        ends = [start + small.shape[axis] for start, axis in zip(starts, axes, strict=True)]
        bounds = [graph.shape_tensor(starts), graph.shape_tensor(ends), graph.constant(list(axes), "int64")]
        parts = [small.name, graph.add("Slice", [large.name, *bounds])]
        return [graph.add("Add", parts) if self.adds else graph.add("Concat", parts, axis=1)]
