"""Pixel geometry: sliding windows, and affine maps from a pixel of one blob to the pixel of another.

The maps serve Crop layers that compute their offset from the graph (crop.py). Fractions are exact, so that testing for
a whole-number offset needs no tolerance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .net import Blob, Layer


@dataclass(frozen=True)
class Window:
    """A sliding window along (height, width)."""

    kernel: tuple[int, int]  # its extent, dilation included
    stride: tuple[int, int]  # its step in the bottom; in the top where `upsampling`
    pad: tuple[int, int]  # zeros added on each side
    upsampling: bool = False  # the window is transposed


@dataclass(frozen=True)
class AxisMap:
    """to = scale * from + shift along one axis, in pixels; the center of the first pixel is 0."""

    scale: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)

    def after(self, first: AxisMap) -> AxisMap:
        """The map that applies `first`, then this one."""
        return AxisMap(self.scale * first.scale, self.scale * first.shift + self.shift)

    def inverse(self) -> AxisMap:
        """The inverse map."""
        return AxisMap(1 / self.scale, -self.shift / self.scale)


#: maps along (height, width)
PlaneMap = tuple[AxisMap, AxisMap]
IDENTITY: PlaneMap = (AxisMap(), AxisMap())


def map_window(window: Window) -> PlaneMap:
    """The map from a bottom's pixel to the top's pixel of a sliding window.

    Window o is centered at stride * o + (kernel - 1) / 2 - pad; a transposed window exchanges bottom and top.
    """
    maps = [
        AxisMap(Fraction(stride), Fraction(kernel - 1, 2) - pad)
        for kernel, stride, pad in zip(window.kernel, window.stride, window.pad, strict=True)
    ]
    height, width = maps if window.upsampling else [axis.inverse() for axis in maps]
    return height, width


def compose(last: PlaneMap, first: PlaneMap) -> PlaneMap:
    """The map that applies `first`, then `last`."""
    return last[0].after(first[0]), last[1].after(first[1])


class AlignmentError(Exception):
    """Two blobs cannot be aligned; the message is a clause with the reason."""


def align_blobs(source: Blob, target: Blob) -> PlaneMap:
    """The map from a pixel of one blob to the pixel of another, through their nearest common ancestor.

    Only the first bottom of each layer is followed, as in the forks with the automatic Crop. Raises AlignmentError if
    there is no common ancestor, or a layer on the path has no affine map.
    """
    down = list(_walk_back(source))
    above_source = {blob for blob, _ in down}
    up = list(_walk_back(target))
    meeting = next((blob for blob, _ in up if blob in above_source), None)
    if meeting is None:
        raise AlignmentError(f'no blob leads to both "{source.name}" and "{target.name}"')
    to_source, to_target = _map_from(meeting, down), _map_from(meeting, up)
    return compose(to_target, (to_source[0].inverse(), to_source[1].inverse()))


def _walk_back(blob: Blob) -> Iterator[tuple[Blob, Layer | None]]:
    """A blob and its ancestors by first bottoms, each with its producer."""
    while True:
        yield blob, blob.producer
        if blob.producer is None or not blob.producer.bottoms:
            return
        blob = blob.producer.bottoms[0]


def _map_from(start: Blob, path: list[tuple[Blob, Layer | None]]) -> PlaneMap:
    """The map from `start` down to the first blob of a path."""
    total = IDENTITY
    for blob, layer in path:
        if blob is start:
            break
        assert layer is not None, "only the last blob of a path has no producer"
        step = layer.operator.coordinate_map()
        if step is None:
            raise AlignmentError(f'layer "{layer.name}" of type {layer.type} does not keep pixels in place')
        total = compose(total, step)
    return total
