"""Confusion counts in bands around borders: they show the effect of a CRF, which a mean over all pixels hides.

After Kohli et al. (2009), Kraehenbuehl and Koltun (2011) and DeepLab (Chen et al. 2015, figure 5): only pixels in a
narrow band, the "trimap", are evaluated, with the figures of `confusion`. The band of width w holds the pixels, void
excluded, at a chessboard distance of at most w from the reference (the 8 neighbors are at 1), which is one of

``void``    the void pixels, which PASCAL VOC draws around objects; used by the papers above
``labels``  the borders in the truth itself: a pixel beside one of another class, above, below, left or right, is at 1;
            void has no border. For datasets without void borders.
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
"""Widths in pixels of the reported bands; the papers plot 1 to 40, and show 2 and 10."""

MAX_WIDTH = 200


def measure_distance(truth: LabelMap, reference: Reference, limit: int) -> npt.NDArray[np.uint8]:
    """Distance of H x W truth from the reference, H x W uint8; `limit` (1 to 200) + 1 for pixels further away."""
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
    """Count confusion in each band and in the whole image: (widths + 1, classes, classes) int64, the whole image last.

    Widths ascend; `distance` is from `measure_distance` with the last one as limit. See `count_confusion` for the rest.
    """
    if list(widths) != sorted(set(widths)):
        raise InputError(f"widths must ascend, got {list(widths)}")
    ring_of = np.searchsorted(np.asarray(widths), np.arange(MAX_WIDTH + 2), side="left")
    ring = ring_of[distance]  # (H, W): the narrowest band of each pixel
    insides = [ring == index for index in range(len(widths) + 1)]
    rings = [count_confusion(truth[inside], labels[inside], classes) for inside in insides]
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
    """Grow a mask by one pixel in all eight directions."""
    wide = mask.copy()
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    grown: npt.NDArray[np.bool_] = wide.copy()
    grown[1:] |= wide[:-1]
    grown[:-1] |= wide[1:]
    return grown
