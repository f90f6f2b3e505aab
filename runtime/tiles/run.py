"""An image labeled in tiles by a plan; see `plan`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..segmentation import Image, Labels, Scores, Segmentation, measure
from .plan import TilePlan

if TYPE_CHECKING:
    from ..backends import Array
    from ..crf import CancelToken
    from ..crf_step import RunCrf
    from ..segmenter import Segmenter

_ROWS = 64  # of labels at a time: argmax makes 64-bit numbers of them
Window = tuple[int, int, int, int]  # first row, end of the rows, first column, end of the columns


class TileReader:
    """The scores of parts of an image, L x h x w float32: of the network on each part, or cut from the whole output.

    Args:
        segmenter: the loaded bundle.
        image: H x W x 3 uint8 RGB.
        raw: the head's output for the whole image, or None to run the network on each part.
        plan: the tiles.
        timings_ms: gets the time of the stages.
    """

    def __init__(
        self, segmenter: Segmenter, image: Image, raw: Array | None, plan: TilePlan, timings_ms: dict[str, float]
    ) -> None:
        self._segmenter, self._image, self._raw, self._plan = segmenter, image, raw, plan
        self._size = (image.shape[0], image.shape[1])
        self._timings_ms = timings_ms

    def read(self, window: Window) -> Array:
        """The scores (or labels) of a part."""
        segmenter, size = self._segmenter, self._size
        network_size = segmenter.sizing.find_size(*size)
        raw, origin = self._raw, (0, 0)
        if raw is None:
            top, bottom = self._widen(window[0], window[1], size[0])
            left, right = self._widen(window[2], window[3], size[1])
            with measure("network", self._timings_ms):
                feed = np.ascontiguousarray(self._image[top:bottom, left:right])[None]  # (1, h, w, 3)
                raw = segmenter.run_network({segmenter.bundle.deploy.input: feed})
            size = network_size = (bottom - top, right - left)
            origin = (top, left)
        inner = (window[0] - origin[0], window[1] - origin[0], window[2] - origin[1], window[3] - origin[1])
        if segmenter.head == "labels":
            return raw[inner[0] : inner[1], inner[2] : inner[3]]
        with measure("scores", self._timings_ms):
            return segmenter.cut_scores(raw, size, network_size, inner)

    def _widen(self, start: int, stop: int, length: int) -> tuple[int, int]:
        """The part of an axis that the network gets for pixels `start` to `stop`."""
        first = max(start - self._plan.reach, 0) // self._plan.step * self._plan.step
        return first, min(stop + self._plan.reach, length)


def label_in_tiles(
    segmenter: Segmenter,
    image: Image,
    raw: Array | None,
    plan: TilePlan,
    *,
    crf: bool = True,
    probabilities: bool = False,
    threads: int | None = None,
    run_crf: RunCrf | None = None,
    token: CancelToken | None = None,
) -> Segmentation:
    """Label an image in tiles.

    Args:
        segmenter: the loaded bundle.
        image: H x W x 3 uint8 RGB.
        raw: the head's output for the whole image, or None to run the network in tiles too.
        plan: the tiles.
        crf: whether the CRF runs, if it is on.
        probabilities: whether to return the probabilities too.
        threads: threads of the CRF.
        run_crf: what to call instead of `crf.dense_crf` if the CRF runs on the whole image.
        token: stops the CRF after its current update when another thread cancels it.
    """
    timings_ms: dict[str, float] = {}
    reader = TileReader(segmenter, image, raw, plan, timings_ms)
    size = (image.shape[0], image.shape[1])
    labels = np.empty(size, np.uint8)
    if segmenter.head == "labels":
        for rows, columns in ((rows, columns) for rows in plan.rows for columns in plan.columns):
            window = (rows.start, rows.stop, columns.start, columns.stop)
            labels[rows.start : rows.stop, columns.start : columns.stop] = reader.read(window)
        return Segmentation(labels, None, timings_ms)
    has_crf = crf and segmenter.crf is not None
    refines_whole = has_crf and not plan.crf_in_tiles
    kept: Scores | None = None
    if probabilities or refines_whole:
        kept = np.empty((len(segmenter.bundle.manifest.classes), *size), np.float32)

    def compute(window: Window) -> Scores:
        belief = reader.read(window)
        if has_crf or probabilities:
            with measure("scores", timings_ms):
                belief = segmenter.to_probabilities(belief)
        if has_crf and plan.crf_in_tiles:
            with measure("crf", timings_ms):
                part = image[window[0] : window[1], window[2] : window[3]]
                belief = np.ascontiguousarray(belief)
                belief = segmenter.refine(part, belief, threads=threads, origin=(window[0], window[2]), token=token)
        return belief

    for (top, bottom, left, right), belief in blend_tiles(plan, compute):
        if kept is not None:
            kept[:, top:bottom, left:right] = belief
        if not refines_whole:
            with measure("labels", timings_ms):
                take_labels(belief, labels[top:bottom, left:right])
    if refines_whole and kept is not None:
        with measure("crf", timings_ms):
            kept = segmenter.refine(image, kept, threads=threads, run_crf=run_crf, token=token)
        with measure("labels", timings_ms):
            take_labels(kept, labels)
    return Segmentation(labels, kept if probabilities else None, timings_ms)


def score_in_tiles(segmenter: Segmenter, image: Image, plan: TilePlan) -> Scores:
    """The network's scores for a whole image, L x H x W float32, computed in tiles."""
    reader = TileReader(segmenter, image, None, plan, {})
    scores = np.empty((len(segmenter.bundle.manifest.classes), *image.shape[:2]), np.float32)
    for (top, bottom, left, right), part in blend_tiles(plan, reader.read):
        scores[:, top:bottom, left:right] = part
    return scores


def blend_tiles(plan: TilePlan, compute: Callable[[Window], Scores]) -> Iterator[tuple[Window, Scores]]:
    """Compute all tiles; yields each part of the image once, L x h x w, after the last tile that it depends on.

    Parts that two or four tiles share are held until then.
    """
    waiting: dict[Window, tuple[Scores, int]] = {}  # the weighted sum of a shared part, and how many tiles are missing
    for rows, columns in itertools.product(plan.rows, plan.columns):
        belief = compute((rows.start, rows.stop, columns.start, columns.stop))
        for row, column in itertools.product(rows.parts, columns.parts):
            window = (row.start, row.stop, column.start, column.stop)
            part = belief[:, row.start - rows.start : row.stop - rows.start]
            part = part[:, :, column.start - columns.start : column.stop - columns.start]  # (L, h, w)
            tiles = (1 if row.weights is None else 2) * (1 if column.weights is None else 2)
            if tiles == 1:
                yield window, part
                continue
            for weights, shape in ((row.weights, (-1, 1)), (column.weights, (1, -1))):
                part = part if weights is None else part * weights.reshape(shape)
            so_far, missing = waiting.pop(window, (np.float32(0), tiles))
            whole = part + so_far
            if missing == 1:
                yield window, whole
            else:
                waiting[window] = (whole, missing - 1)
        del belief


def take_labels(belief: Scores, labels: Labels) -> None:
    """Write the argmax of L x h x W into h x W; ties go to the lowest label."""
    for first in range(0, len(labels), _ROWS):
        labels[first : first + _ROWS] = belief[:, first : first + _ROWS].argmax(axis=0)
