"""The order of equal values under GCC's std::sort, on which Caffe's results depend."""

from __future__ import annotations

SMALL_RANGE = 16


def sort_as_cpp(scores: list[float]) -> list[int]:
    """Indices of the scores, highest first, equal ones in the order of GCC's std::sort.

    GCC uses introsort: ranges of more than 16 are split around a median of three, then insertion sort finishes. It is
    not stable: a detector that keeps the best 200 of 400 boxes of score 1 keeps the first ones of this order.
    (Introsort's heap sort, for ranges that repeatedly split badly, is not implemented.)
    """
    order = list(range(len(scores)))
    ranges = [(0, len(order))]
    while ranges:
        first, last = ranges.pop()
        if last - first > SMALL_RANGE:
            cut = split_range(order, scores, first, last)
            ranges += [(first, cut), (cut, last)]
    for position, value in enumerate(list(order)):
        place = position
        while place > 0 and scores[value] > scores[order[place - 1]]:
            place -= 1
        order.insert(place, order.pop(position))
    return order


def split_range(order: list[int], scores: list[float], first: int, last: int) -> int:
    """Move the higher scores of a range to its front; return the start of the lower ones."""

    def goes_before(a: int, b: int) -> bool:
        return scores[order[a]] > scores[order[b]]

    a, b, c = first + 1, first + (last - first) // 2, last - 1
    if goes_before(a, b):
        median = b if goes_before(b, c) else c if goes_before(a, c) else a
    else:
        median = a if goes_before(a, c) else c if goes_before(b, c) else b
    order[first], order[median] = order[median], order[first]
    low, high = first + 1, last
    while True:
        while goes_before(low, first):
            low += 1
        high -= 1
        while goes_before(first, high):
            high -= 1
        if low >= high:
            return low
        order[low], order[high] = order[high], order[low]
        low += 1
