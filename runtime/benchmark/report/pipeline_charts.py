"""Charts of the pipeline: what its workers' time went to, and its throughput beside what bounds it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .scale import Scale, format_number
from .svg import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Drawing

#: what a worker's time goes to, in the order of the drawing
STATES = ("busy", "no input", "no core", "blocked")
_ROW = 30


@dataclass(frozen=True)
class Occupancy:
    """A stage: its workers, averaged over time, and the shares of their time in the order of `STATES`."""

    name: str
    workers: float
    shares: Sequence[float]


@dataclass(frozen=True)
class Rate:
    """A row of the chart of rates: images a second with an interval (NaN where there is none); a bound is hollow."""

    name: str
    per_s: float
    low: float = math.nan
    high: float = math.nan
    is_bound: bool = False


def draw_occupancy(stages: Sequence[Occupancy]) -> str:
    """A bar a stage, all of its workers' time, cut into what it went to."""
    height = TOP + BOTTOM + _ROW * max(len(stages), 1)
    described = "; ".join(f"{stage.name}: {_describe(stage)}" for stage in stages)
    drawing = Drawing(height, "What the workers' time went to", described)
    x = Scale(0, 100, LEFT + 30, WIDTH - RIGHT - 190)
    for tick in (0, 25, 50, 75, 100):
        drawing.line((x.place(tick), TOP), (x.place(tick), height - BOTTOM), "grid")
        drawing.text((x.place(tick), height - BOTTOM + 18), str(tick), "tick", "middle")
    drawing.text(((x.start + x.end) / 2, height - 8), "% of the workers' time", "axis-name", "middle")
    for row, stage in enumerate(stages):
        top = TOP + _ROW * row
        drawing.text((x.start - 10, top + _ROW / 2 + 4), stage.name, "label", "end")
        start = 0.0
        for state, share in enumerate(stage.shares):
            if share > 0:
                left, right = x.place(100 * start), x.place(100 * min(start + share, 1.0))
                tip = f"{stage.name}, {STATES[state]}: {share:.0%}"
                drawing.box(left, top + 6, right - left, _ROW - 12, "bar" if state == 0 else "bar idle", state, tip)
            start += share
        many = f"{stage.workers:.1f} worker{'' if stage.workers == 1 else 's'}"
        words = f"{stage.shares[0]:.0%} of {many}"
        drawing.text((WIDTH - RIGHT, top + _ROW / 2 + 4), words, "label", "end")
    return drawing.finish()


def draw_rates(rates: Sequence[Rate]) -> str:
    """Rates as bars below each other, bounds as hollow ones."""
    height = TOP + BOTTOM + _ROW * max(len(rates), 1)
    described = "; ".join(f"{rate.name} {format_number(rate.per_s)}/s" for rate in rates)
    drawing = Drawing(height, "Throughput and what bounds it", described)
    x = Scale(0, max([rate.per_s for rate in rates] + [1e-6]) * 1.05, LEFT + 150, WIDTH - RIGHT - 70)
    for tick in x.ticks(5):
        drawing.line((x.place(tick), TOP), (x.place(tick), height - BOTTOM), "grid")
        drawing.text((x.place(tick), height - BOTTOM + 18), format_number(tick), "tick", "middle")
    drawing.text(((x.start + x.end) / 2, height - 8), "images a second", "axis-name", "middle")
    for row, rate in enumerate(rates):
        top = TOP + _ROW * row
        middle = top + _ROW / 2
        tip = f"{rate.name}: {format_number(rate.per_s)} images a second"
        drawing.text((x.start - 10, middle + 4), rate.name, "label", "end")
        kind = "hollow" if rate.is_bound else "bar"
        drawing.box(x.start, top + 7, x.place(rate.per_s) - x.start, _ROW - 14, kind, 5 if rate.is_bound else 0, tip)
        if math.isfinite(rate.low) and math.isfinite(rate.high):
            drawing.line((x.place(rate.low), middle), (x.place(rate.high), middle), "whisker")
            for end in (rate.low, rate.high):
                drawing.line((x.place(end), middle - 4), (x.place(end), middle + 4), "whisker")
        drawing.text((WIDTH - RIGHT, middle + 4), f"{format_number(rate.per_s)}/s", "label", "end")
    return drawing.finish()


def _describe(stage: Occupancy) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in zip(STATES, stage.shares, strict=True))
