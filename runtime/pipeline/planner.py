"""How many workers each stage needs, from how long its calls take.

At r items a second, a stage whose calls take t seconds an item is at work in r t calls at once (Little's law) and holds
r t c cores, where c is what one call holds. So the largest possible rate is the smallest of

* cores / sum(t c) over all stages: no core has a pause;
* most workers / t, of each stage: no worker of it has a pause.

Whoever gives the smallest is the limit. Every stage then gets the workers that this rate asks for, and a quarter more,
so that a slow item does not hold up those behind it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HEADROOM = 1.25
CORES = "cores"  # the name of the limit that is no stage
_PATIENCE = 3  # plans in a row that must ask for fewer workers before they are taken away


@dataclass(frozen=True)
class StageLoad:
    """What a stage costs: seconds an item, the cores that a call holds, and how many calls may run at once."""

    name: str
    item_s: float
    cores: int
    max_workers: int


@dataclass(frozen=True)
class Plan:
    """The largest possible rate, what limits it (a stage's name or "cores"), and the workers that reach it."""

    rate_per_s: float
    limit: str
    workers: Mapping[str, int]


def plan_workers(loads: Sequence[StageLoad], cores: int) -> Plan:
    """Find the limit and the worker counts; see this module's docstring."""
    core_s = sum(load.item_s * load.cores for load in loads)
    bounds = [(load.max_workers / load.item_s if load.item_s > 0 else math.inf, load.name) for load in loads]
    bounds.append((cores / core_s if core_s > 0 else math.inf, CORES))
    rate, limit = min(bounds, key=lambda bound: bound[0])
    workers = {}
    for load in loads:
        wanted = 1.0 if math.isinf(rate) else rate * load.item_s * HEADROOM
        workers[load.name] = min(load.max_workers, max(1, math.ceil(wanted - 1e-9)))
    return Plan(rate, limit, workers)


class Controller:
    """Follows the plans: more workers at once, fewer only when three plans in a row say so."""

    def __init__(self, workers: Mapping[str, int], fixed: Mapping[str, int]) -> None:
        """Start with `workers`; the counts in `fixed` never change."""
        self.workers = {**workers, **fixed}
        self._fixed = dict(fixed)
        self._fewer = dict.fromkeys(self.workers, 0)

    def update(self, loads: Sequence[StageLoad], cores: int) -> dict[str, int]:
        """Plan with fresh measurements; returns the counts of now. Waits until every stage has been measured."""
        if any(load.item_s <= 0 for load in loads):
            return dict(self.workers)
        for name, wanted in plan_workers(loads, cores).workers.items():
            if name in self._fixed:
                continue
            self._fewer[name] = self._fewer[name] + 1 if wanted < self.workers[name] else 0
            if wanted > self.workers[name] or self._fewer[name] >= _PATIENCE:
                self.workers[name] = wanted
                self._fewer[name] = 0
        return dict(self.workers)
