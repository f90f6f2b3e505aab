"""IoU in a band around borders: where a CRF earns its keep, and what a mean over all pixels hides.

After Kohli et al. (2009), Kraehenbuehl and Koltun (2011) and DeepLab (Chen et al. 2015, figure 5): only pixels in a
narrow band, the "trimap", are judged, and the metrics are those of `confusion`. The band of width w is the set of
judged pixels at a distance of at most w from the reference; the distance is the chessboard's (8 neighbours are at 1).
The reference is one of

``void``    the void pixels, which PASCAL VOC draws around objects; what the papers above use
``labels``  the borders in the truth itself: a pixel beside one of another class, above, below, left or right, is at 1;
            void makes no border. For data sets that draw no void there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from .confusion import VOID, Counts, LabelMap, count_confusion

Reference = Literal["void", "labels"]
WIDTHS = (2, 5, 10, 20)
"""Widths in pixels at which bands are reported; the papers draw 1 to 40, and show 2 and 10."""

MAX_WIDTH = 200


def measure_distance(truth: LabelMap, reference: Reference, limit: int) -> npt.NDArray[np.uint8]:
    """The distance of each pixel from the reference.

    Args:
        truth: H x W uint8, classes and `VOID`.
        reference: as above.
        limit: up to which distance, at most 200.

    Returns:
        H x W uint8; `limit` + 1 for what is further away.

    Raises:
        InputError: for another reference or limit.
    """
    if reference not in ("void", "labels") or not 1 <= limit <= MAX_WIDTH:
        raise InputError(f'bands are of "void" or "labels" and 1 to {MAX_WIDTH} wide, not {reference!r} and {limit}')
    distance = np.full(truth.shape, limit + 1, np.uint8)
    reached = truth == VOID if reference == "void" else _find_borders(truth)
    first = 0 if reference == "void" else 1
    distance[reached] = first
    for step in range(first + 1, limit + 1):
        grown = _dilate(reached)
        distance[grown & ~reached] = step
        reached = grown
    return distance


def count_bands(
    truth: LabelMap, labels: LabelMap, classes: int, widths: Sequence[int], distance: npt.NDArray[np.uint8]
) -> Counts:
    """Confusion in each band and everywhere.

    Args:
        truth: H x W uint8, classes and `VOID`.
        labels: H x W uint8.
        classes: how many there are.
        widths: rising.
        distance: from `measure_distance` up to the last width.

    Returns:
        (widths + 1, classes, classes) int64; the last is of the whole image.
    """
    if list(widths) != sorted(set(widths)):
        raise InputError(f"widths must rise, got {list(widths)}")
    rings = []
    ring_of = np.searchsorted(np.asarray(widths), np.arange(MAX_WIDTH + 2), side="left")
    ring = ring_of[distance]  # (H, W): the first band that holds the pixel
    for index in range(len(widths) + 1):
        inside = ring == index
        rings.append(count_confusion(truth[inside], labels[inside], classes))
    bands: Counts = np.cumsum(np.stack(rings), axis=0)
    return bands


def _find_borders(truth: LabelMap) -> npt.NDArray[np.bool_]:
    borders = np.zeros(truth.shape, np.bool_)
    for first, second in (((slice(None, -1),), (slice(1, None),)), ((..., slice(None, -1)), (..., slice(1, None)))):
        one, other = truth[first], truth[second]
        differ = (one != other) & (one != VOID) & (other != VOID)
        borders[first] |= differ
        borders[second] |= differ
    return borders


def _dilate(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Grow by one pixel in all eight directions."""
    wide = mask.copy()
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    grown: npt.NDArray[np.bool_] = wide.copy()
    grown[1:] |= wide[:-1]
    grown[:-1] |= wide[1:]
    return grown
