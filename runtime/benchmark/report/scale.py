"""Axes as numbers: where a value lies on an axis, and which ticks a person wants to read there."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Scale:
    """A monotone map from values to positions.

    Attributes:
        low: the value at `start`.
        high: the value at `end`; larger than `low`.
        start: position of `low`, in user units of the drawing.
        end: position of `high`.
        is_log: whether equal ratios, not equal differences, take equal room; then `low` is above 0.
        is_count: whether only whole numbers make sense as ticks.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False
    is_count: bool = False

    def place(self, value: float) -> float:
        """The position of a value; values beyond the axis lie beyond its ends."""
        if self.is_log:
            share = math.log(max(value, 1e-300) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values inside the axis, at most about `most` of them."""
        ticks = _log_ticks(self.low, self.high, most) if self.is_log else _linear_ticks(self.low, self.high, most)
        return [tick for tick in ticks if tick == round(tick)] if self.is_count else ticks


def make_scale(
    values: Iterable[float], start: float, end: float, *, is_log: bool = False, from_zero: bool = False
) -> Scale:
    """A scale that holds all values with a little room at the ends.

    Args:
        values: what must fit; those that are not finite, and on a log scale those of 0 or less, are left out.
        start: position of the low end.
        end: position of the high end.
        is_log: see `Scale`.
        from_zero: begin a linear scale at 0.
    """
    kept = [value for value in values if math.isfinite(value) and (value > 0 or not is_log)]
    if not kept:
        return Scale(0.1 if is_log else 0.0, 1.0, start, end, is_log)
    low, high = min(kept), max(kept)
    if is_log:
        room = max((high / low) ** 0.04, 1.05)
        return Scale(low / room, high * room, start, end, True)
    room = (high - low) * 0.05 or abs(high) * 0.05 or 0.5
    return Scale(min(low, 0.0) if from_zero else low - room, high + room, start, end)


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    raw = (high - low) / max(most, 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in _STEPS if factor * magnitude >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= most:
            break
    if len(inside) > most:  # many decades: every second or third of them
        inside = inside[:: -(-len(inside) // most)]
    return inside if len(inside) >= 2 else _linear_ticks(low, high, most)


def format_number(value: float) -> str:
    """A number as a person reads it: three significant digits, k, M, G and T above 10,000."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    size = abs(value)
    if size >= 1e4:
        for unit, letter in _PREFIXES:
            if size >= unit:
                return f"{_trim(value / unit)} {letter}"
    if size < 1e-3:
        return f"{value:.1e}"
    return _trim(value)


def _trim(value: float) -> str:
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
