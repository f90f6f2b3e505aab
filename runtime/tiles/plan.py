"""Whether an image is labeled whole or in tiles, and the tiles.

An image is labeled whole if its estimate fits the limit. Otherwise the network runs on tiles that overlap by its reach,
so that what it cannot see beyond a tile has no effect; then the CRF runs on the whole if that fits, else on tiles too,
which overlap by twice the width of its largest position kernel. Where tiles overlap, their scores or marginals are
blended linearly. The tiles are the largest that fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .memory import MemoryModel

if TYPE_CHECKING:
    from ...bundle.crf_parameters import CrfParameters
    from ...bundle.section import Sides

_LEAST_SIDE = 256  # of a tile
_SHRINK = 0.9  # from one tried size of tiles to the next
_RAMP = 32  # pixels over which two tiles are blended
_CRF_SIGMAS = 2  # overlap of the CRF in standard deviations of its largest position kernel


@dataclass(frozen=True)
class Part:
    """A part of a tile along an axis: pixels `start` to `stop`, alone or blended with the neighboring tile.

    `weights` are of the pixels in the blend, float32; None where this tile alone counts.
    """

    start: int
    stop: int
    weights: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Span:
    """A tile along an axis: pixels `start` to `stop` are computed, and those of its `parts` count."""

    start: int
    stop: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class TilePlan:
    """Tiles: every row span with every column span.

    Attributes:
        rows, columns: the spans; neighbors share a blended part, or touch.
        network_in_tiles: whether the network runs on each tile; else its output for the whole image is cut.
        crf_in_tiles: whether the CRF runs on each tile; else on the whole image, if it runs.
        reach: pixels around a tile that the network gets too.
        step: tiles of the network begin at multiples of it.
        is_exact: whether the network's scores are those of the whole image.
    """

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    network_in_tiles: bool
    crf_in_tiles: bool
    reach: int
    step: int
    is_exact: bool

    def describe(self) -> str:
        """The plan as a phrase."""
        sides = (max(span.stop - span.start for span in spans) for spans in (self.rows, self.columns))
        what = "network" if self.network_in_tiles else ""
        what += (" and " if what else "") + "CRF" if self.crf_in_tiles else ""
        count = len(self.rows) * len(self.columns)
        return f"{what or 'scores'} in {count} tiles of {'x'.join(map(str, sides))} pixels (height x width)"


@dataclass(frozen=True)
class ImagePlan:
    """The plan of one image.

    Attributes:
        bytes: estimate of the memory it needs.
        whole_bytes: the same without tiles.
        tiles: None if it is labeled whole.
        fits: whether `bytes` are within the limit.
    """

    bytes: int
    whole_bytes: int
    tiles: TilePlan | None
    fits: bool


def plan_image(
    size: Sides,
    network_size: Sides,
    model: MemoryModel,
    limit: int,
    *,
    crf: CrfParameters | None = None,
    multiple: int = 1,
    probabilities: bool = False,
    can_blend: bool = True,
    can_tile_network: bool = True,
) -> ImagePlan:
    """Plan one image.

    Args:
        size: (height, width) of the image.
        network_size: (height, width) that the network runs at; it runs in tiles only if that is the image's.
        model: the memory model.
        limit: bytes that may be used.
        crf: the CRF's parameters, or None if it is off.
        multiple: of the bundle's size rule.
        probabilities: whether probabilities of the whole image are kept.
        can_blend: whether the network gives scores; labels cannot be blended.
        can_tile_network: whether the backend takes parts of an image.
    """
    pixels, network_pixels = math.prod(size), math.prod(network_size)
    has_crf = crf is not None
    held = pixels * model.held(probabilities=probabilities)
    whole = held + network_pixels * model.network + pixels * model.finish(crf=has_crf)
    if whole <= limit:
        return ImagePlan(int(whole), int(whole), None, fits=True)
    in_tiles = can_tile_network and network_size == size and model.network_on_host
    if not in_tiles and not can_blend:
        return ImagePlan(int(whole), int(whole), None, fits=False)
    best: ImagePlan | None = None
    for crf_in_tiles in (False, True) if has_crf else (False,):
        fixed = held + (0 if in_tiles else network_pixels * model.network)
        if has_crf and not crf_in_tiles:
            fixed += pixels * model.finish(crf=True)
        side = float(max(size))
        while side >= _LEAST_SIDE:
            tiles = _make_tiles(size, int(side), model, crf if crf_in_tiles else None, multiple, in_tiles, can_blend)
            needed = fixed + _measure_tiles(size, tiles, model)
            plan = ImagePlan(int(needed), int(whole), tiles, fits=needed <= limit)
            if plan.fits:
                return plan
            if best is None or plan.bytes < best.bytes:
                best = plan
            side *= _SHRINK
    return best or ImagePlan(int(whole), int(whole), None, fits=False)


def _measure_tiles(size: Sides, tiles: TilePlan, model: MemoryModel) -> float:
    """Bytes of one tile and of the blended parts that wait for a neighbor."""
    height, width = (max(span.stop - span.start for span in spans) for spans in (tiles.rows, tiles.columns))
    needed = height * width * model.finish(crf=tiles.crf_in_tiles)
    if len(tiles.rows) + len(tiles.columns) > 2:
        needed += 4 * model.labels * _RAMP * (size[1] + height)
    if tiles.network_in_tiles:
        more = 2 * tiles.reach + tiles.step
        needed += min(height + more, size[0]) * min(width + more, size[1]) * model.network
    return needed


def _make_tiles(
    size: Sides,
    side: int,
    model: MemoryModel,
    crf: CrfParameters | None,
    multiple: int,
    network_in_tiles: bool,
    can_blend: bool,
) -> TilePlan:
    reach, is_exact, stride = 0, True, 1
    if network_in_tiles:
        reach, is_exact = _choose_reach(model, side)
        stride = model.footprint.stride if model.footprint is not None else 1
    margin = min(math.ceil(_CRF_SIGMAS * _find_width(crf)), side // 4) if crf is not None else 0
    ramp = min(_RAMP, side // 8) if can_blend and (crf is not None or not is_exact) else 0
    step = math.lcm(multiple, stride) if network_in_tiles else 1
    rows, columns = (split_axis(length, side, margin, ramp, step) for length in size)
    return TilePlan(rows, columns, network_in_tiles, crf is not None, reach, step, is_exact)


def _choose_reach(model: MemoryModel, side: int) -> tuple[int, bool]:
    """Pixels around a tile, and whether they make its scores exact: all of the reach, unless it dwarfs the tile."""
    if model.footprint is None:
        return side // 4, False
    known, effective = model.footprint.reach, model.footprint.effective_reach
    if known is not None and known <= max(side // 4, effective):
        return known, True
    return max(side // 4, min(effective, side // 2)), False


def _find_width(crf: CrfParameters) -> float:
    """The largest standard deviation of the CRF's kernels along an axis, in pixels."""
    sigmas = [term.sxy for term in crf.gaussian] + [term.sxy for term in crf.bilateral]
    return max((max(sigma) if isinstance(sigma, tuple) else sigma for sigma in sigmas), default=0.0)


def split_axis(length: int, side: int, margin: int, ramp: int, step: int) -> tuple[Span, ...]:
    """The fewest spans of at most `side` pixels, about equally long, that begin at multiples of `step`.

    Two neighbors overlap by at least 2 * margin + ramp: a margin at the end of each does not count, and between the
    margins the weight passes from one to the other along a ramp.
    """
    overlap = 2 * margin + ramp + step
    if side >= length:
        return (Span(0, length, (Part(0, length),)),)
    count = 1 + -(-(length - side) // max(side - overlap, step, 1))
    side = -(-(length + (count - 1) * overlap) // count)
    starts = [index * (length - side) // (count - 1) // step * step for index in range(count)]
    stops = [min(start + side + step - 1, length) for start in starts[:-1]] + [length]
    # a ramp lies in the middle of what two neighbors share
    ramps = [(stop + start - ramp) // 2 for stop, start in zip(stops, starts[1:], strict=False)]
    rising = (np.arange(ramp, dtype=np.float32) + 1) / np.float32(ramp + 1)
    spans = []
    for index, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        first, last, parts = 0, length, []
        if index > 0:
            first = ramps[index - 1] + ramp
            parts.append(Part(first - ramp, first, rising))
        if index + 1 < count:
            last = ramps[index]
            parts.append(Part(last, last + ramp, rising[::-1]))
        parts.append(Part(first, last))
        spans.append(Span(start, stop, tuple(part for part in parts if part.stop > part.start)))
    return tuple(spans)
