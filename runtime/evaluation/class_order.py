"""Detects label images whose classes are in another order than the bundle's, from the confusion counts.

Every IoU[t, l] that class t would have if label l stood for it is known from the counts. The one-to-one assignment with
the largest sum (found exactly, by the Hungarian algorithm) has the largest mean IoU any order could give. If it is more
than twice that of the bundle's own order and at least 10 points above, the order is very likely wrong.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .confusion import Counts, divide, mean_iou
from .datasets.class_maps import match_names
from .datasets.label_sets import LABEL_SETS

_MIN_GAIN = 0.1  # mean IoU, a fraction of 1
_MIN_CLASSES = 3  # of the truth: two classes may be confused by a net that knows their order
_MIN_SHARE = 0.6  # of the classes whose names agree with those of a built-in set
_SHOWN = 6  # classes named in a message


@dataclass(frozen=True)
class _Order:
    """The assignment that fits far better than the bundle's own order."""

    labels: npt.NDArray[np.intp]  # the best label of each class, (classes,)
    known: list[int]  # classes of the truth whose best label overlaps with them
    here: float  # mean IoU in the bundle's own order
    best: float  # mean IoU in the best order


def find_class_order(counts: Counts, classes: Sequence[str], first: int | None = None) -> list[str]:
    """Warn if another assignment of labels to classes fits far better.

    Args:
        counts: (classes, classes) confusion, whose rows are the truth.
        classes: names of the bundle's classes.
        first: number of the first class in the label images, to offer a map for `--map`; None for none.
    """
    order = _find_order(counts)
    if order is None:
        return []
    moved = [index for index in order.known if order.labels[index] != index]
    gain = f"the mean IoU would be {order.best:.1%} instead of {order.here:.1%}"
    offer = ""
    if first is not None:
        text = json.dumps(_make_map(order, classes, first), ensure_ascii=False)
        name = _find_set(order, classes, first)
        known = f"add --label-classes {name}, whose classes these seem to be, or " if name else ""
        offer = f". To evaluate in that order, {known}save this as map.json and add --map map.json: {text}"
    for step, what in ((1, "low"), (-1, "high")):
        if all((order.labels[index] - index - step) % len(classes) == 0 for index in moved):
            return [f"the label images seem to be one too {what}: shifted by {step:+d}, {gain}{offer}"]
    shown = ", ".join(f'{index} -> {order.labels[index]} "{classes[order.labels[index]]}"' for index in moved[:_SHOWN])
    more = f" and {len(moved) - _SHOWN} more" if len(moved) > _SHOWN else ""
    return [
        f"the classes of the label images seem to be in another order than the bundle's: with the best order, {gain} "
        f"(number in the label images -> class of the bundle: {shown}{more}){offer}"
    ]


def suggest_map(counts: Counts, classes: Sequence[str], first: int = 0) -> dict[str, str] | None:
    """The content of a file for `--map` that brings labels in another order to the bundle's; None if none is likely."""
    order = _find_order(counts)
    return None if order is None else _make_map(order, classes, first)


def _make_map(order: _Order, classes: Sequence[str], first: int) -> dict[str, str]:
    return {str(index + first): classes[order.labels[index]] for index in order.known}


def _find_set(order: _Order, classes: Sequence[str], first: int) -> str | None:
    """The built-in class set whose names are those of most classes in the best order."""
    best: tuple[float, str | None] = (_MIN_SHARE, None)
    for name, labels in LABEL_SETS.items():
        targets = match_names(labels.names, classes)
        numbers = [index + first - labels.first for index in order.known]
        pairs = zip(numbers, (order.labels[index] for index in order.known), strict=True)
        hits = sum(0 <= number < len(targets) and targets[number] == label for number, label in pairs)
        share = hits / len(numbers)
        best = max(best, (share, name), key=lambda entry: entry[0])
    return best[1]


def _find_order(counts: Counts) -> _Order | None:
    true, labeled = counts.sum(1), counts.sum(0)
    if (true > 0).sum() < _MIN_CLASSES:
        return None
    ious = np.nan_to_num(divide(counts, true[:, None] + labeled[None] - counts))
    order = assign_rows(ious)
    here, best = mean_iou(counts), mean_iou(counts[:, order])
    if not best > max(2 * here, here + _MIN_GAIN):
        return None
    known = [index for index in np.flatnonzero(true).tolist() if ious[index, order[index]] > 0]
    return _Order(order, known, here, best)


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
