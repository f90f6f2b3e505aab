"""The stage view: images one after the other, each stage timed, subjects taking turns.

Several subjects are measured in rounds: every round gives the same image to each of them, and who begins changes from
round to round, so that whatever the machine is doing in a round it does to all. Before each turn the worker threads of
the one before have gone to sleep; before each round the canary is timed. No sample is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .canary import Canary
from .clocks import Clock
from .results import Stage, StageName, StageView, Warmup
from .sections import Series
from .statistics import describe_series
from .warmup import BOUND, warm_up

STAGES: tuple[StageName, ...] = (
    "decode",
    "prepare",
    "enqueue",
    "h2d",
    "compute",
    "d2h",
    "scores",
    "crf",
    "labels",
    "encode",
)
DEVICE_STAGES = ("h2d", "compute", "d2h")  # timed by events of the device, where it has them


class Runner(Protocol):
    """Something that takes an image's way once and tells how long each stage took."""

    @property
    def absent(self) -> Mapping[StageName, str]:
        """Stages it does not have, with the reason."""

    @property
    def has_device_events(self) -> bool:
        """Whether h2d, compute and d2h come from events of the device."""

    def run(self, item: int) -> Mapping[StageName, float]:
        """Process image number `item`; milliseconds by stage, without `end_to_end`."""


@dataclass(frozen=True)
class Amount:
    """How much to measure.

    Attributes:
        duration_s: measure at least so long, all subjects together.
        min_rounds: and at least so many rounds.
        max_rounds: but never more.
        warmup_s: give up waiting for stable times after so long, each subject.
        warmup_bound: what counts as stable.
    """

    duration_s: float = 5.0
    min_rounds: int = 10
    max_rounds: int = 100_000
    warmup_s: float = 10.0
    warmup_bound: float = BOUND


@dataclass
class _Samples:
    at_s: list[float] = field(default_factory=list)
    values_ms: list[float] = field(default_factory=list)

    def add(self, at_s: float, value_ms: float) -> None:
        self.at_s.append(at_s)
        self.values_ms.append(value_ms)

    def describe(self) -> Series:
        return describe_series(self.at_s, self.values_ms)


def measure_stages(
    runners: Sequence[Runner],
    items: int,
    *,
    clock: Clock,
    begin_ns: int,
    canary: Canary,
    amount: Amount,
    on_round: Callable[[int], None] = lambda rounds: None,
) -> list[StageView]:
    """Warm each runner up, then measure them in turns.

    Args:
        runners: one a subject.
        items: how many images there are; round r takes image r modulo that.
        clock: what times `end_to_end`.
        begin_ns: the moment that counts as 0.
        canary: sings before each round.
        amount: when to stop.
        on_round: is called with 1 after each round, outside of what is timed.

    Returns:
        One view a runner; sample i of each was taken in round i.
    """
    warmups = [_warm_up(runner, items, clock, amount) for runner in runners]
    samples: list[dict[StageName, _Samples]] = [{} for _ in runners]
    limit_ns = clock.now_ns() + int(amount.duration_s * 1e9)
    rounds = 0
    while rounds < amount.max_rounds and (rounds < amount.min_rounds or clock.now_ns() < limit_ns):
        for index in canary.take_turns(rounds, len(runners)):
            start_ns = clock.now_ns()
            timings_ms = runners[index].run(rounds % items)
            end_ns = clock.now_ns()
            at_s = (start_ns - begin_ns) / 1e9
            for name, value_ms in timings_ms.items():
                samples[index].setdefault(name, _Samples()).add(at_s, value_ms)
            samples[index].setdefault("end_to_end", _Samples()).add(at_s, (end_ns - start_ns) / 1e6)
        rounds += 1
        on_round(1)
    return [_describe(*parts) for parts in zip(runners, warmups, samples, strict=True)]


def _warm_up(runner: Runner, items: int, clock: Clock, amount: Amount) -> Warmup:
    counter = iter(range(1 << 62))
    return warm_up(
        lambda: _discard(runner.run(next(counter) % items)),
        clock,
        max_duration_s=amount.warmup_s,
        bound=amount.warmup_bound,
    )


def _discard(_: object) -> None:
    """A warm-up's timings are its windows'."""


def _describe(runner: Runner, warmup: Warmup, samples: Mapping[StageName, _Samples]) -> StageView:
    stages = [
        Stage(
            name=name,
            clock="cuda-events" if runner.has_device_events and name in DEVICE_STAGES else "monotonic",
            series=samples[name].describe(),
        )
        for name in (*STAGES, "end_to_end")
        if name in samples
    ]
    whole_ms = np.asarray(samples["end_to_end"].values_ms)
    return StageView(
        warmup=warmup,
        stages=tuple(stages),
        absent=dict(runner.absent),
        images=whole_ms.size,
        throughput_per_s=round(1000 * whole_ms.size / max(float(whole_ms.sum()), 1e-9), 6),
    )
