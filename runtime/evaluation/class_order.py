"""Detects label images whose classes are in another order than the bundle's, from the confusion counts.

Every IoU[t, l] that class t would have if label l stood for it is known from the counts. The one-to-one assignment with
the largest sum (found exactly, by the Hungarian algorithm) has the largest mean IoU any order could give. If it is more
than twice that of the bundle's own order and at least 10 points above, the order is very likely wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .confusion import Counts, divide, mean_iou

_MIN_GAIN = 0.1  # mean IoU, a fraction of 1
_MIN_CLASSES = 3  # of the truth: two classes may be confused by a net that knows their order
_SHOWN = 6  # classes named in a message


def find_class_order(counts: Counts, classes: Sequence[str]) -> list[str]:
    """Warn if another assignment of labels to classes fits far better; (classes, classes) rows are the truth."""
    true, labeled = counts.sum(1), counts.sum(0)
    if (true > 0).sum() < _MIN_CLASSES:
        return []
    ious = np.nan_to_num(divide(counts, true[:, None] + labeled[None] - counts))
    order = assign_rows(ious)  # the best label of each class
    here, best = mean_iou(counts), mean_iou(counts[:, order])
    if not best > max(2 * here, here + _MIN_GAIN):
        return []
    moved = [
        index for index in np.flatnonzero(true).tolist() if order[index] != index and ious[index, order[index]] > 0
    ]
    gain = f"the mean IoU would be {best:.1%} instead of {here:.1%}"
    for step, what in ((1, "low"), (-1, "high")):
        if all((order[index] - index - step) % len(classes) == 0 for index in moved):
            return [f"the label images seem to be one too {what}: shifted by {step:+d}, {gain}"]
    shown = ", ".join(f'{index} -> {order[index]} "{classes[order[index]]}"' for index in moved[:_SHOWN])
    more = f" and {len(moved) - _SHOWN} more" if len(moved) > _SHOWN else ""
    return [
        f"the classes of the label images seem to be in another order than the bundle's: with the best order, {gain} "
        f"(number in the label images -> class of the bundle: {shown}{more})"
    ]


def assign_rows(values: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Assign each row of (n, n) `values` a column of its own so that the sum is largest: (n,) columns.

    The Hungarian algorithm with potentials, O(n^3): rows are added one by one, each along a shortest augmenting path.
    """
    size = len(values)
    row_of = np.full(size + 1, -1)  # by column; the last column is the one being added
    row_price, column_price = np.zeros(size), np.zeros(size + 1)
    for row in range(size):
        row_of[size], column = row, size
        distance, previous = np.full(size, np.inf), np.full(size, size)
        used = np.zeros(size + 1, np.bool_)
        while row_of[column] >= 0:
            used[column] = True
            at = row_of[column]
            slack = -values[at] - row_price[at] - column_price[:size]
            closer = ~used[:size] & (slack < distance)
            distance[closer], previous[closer] = slack[closer], column
            column = int(np.where(used[:size], np.inf, distance).argmin())
            step = distance[column]
            row_price[row_of[used]] += step
            column_price[used] -= step
            distance[~used[:size]] -= step
        while column != size:
            row_of[column] = row_of[previous[column]]
            column = int(previous[column])
    order = np.empty(size, np.intp)
    order[row_of[:size]] = np.arange(size)
    return order
