"""What every part of the result file is made of: strict sections, series of raw samples, quantiles, noise."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A part of the file: frozen, every field known and of its own type, no NaN."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Quantile(Section):
    """A quantile of a series with its bootstrap interval.

    Attributes:
        q: as a fraction, 0.999 for p99.9.
        value_ms: of the samples; None where no sample lies beyond it, so that it would be the maximum renamed.
        low_ms, high_ms: ends of the interval; None where there are too few samples for one.
        reason: why something is missing, else None.
    """

    q: Share
    value_ms: float | None
    low_ms: float | None
    high_ms: float | None
    reason: str | None = None

    @property
    def name(self) -> str:
        """As people write it: "p99.9"."""
        return f"p{self.q * 100:g}"


class Series(Section):
    """Raw samples of one duration, in the order they were taken.

    Attributes:
        at_s: when each began, in seconds since the run began (under load: when it was scheduled).
        values_ms: how long each took.
        mean_ms, min_ms, max_ms: of all of them.
        quantiles: p50, p90, p99 and p99.9.
        confidence: of every interval, 0.95.
    """

    at_s: tuple[float, ...]
    values_ms: tuple[float, ...]
    mean_ms: float
    min_ms: float
    max_ms: float
    quantiles: tuple[Quantile, ...]
    confidence: Share = 0.95

    @property
    def typical_ms(self) -> float:
        """The median, or the mean where there are too few samples for one."""
        median_ms = self.quantiles[0].value_ms
        return self.mean_ms if median_ms is None else median_ms


class NoiseCheck(Section):
    """One rule about the machine while it was measured: `value` must not exceed `bound`.

    Attributes:
        name: such as "canary", "drift", "other-load", "throttling", "warm-up".
        value: what was found; None where it cannot be seen on this machine.
        bound: the limit.
        passed: whether the rule holds (a rule that cannot be seen does not fail).
        text: one sentence for people.
    """

    name: str
    value: float | None
    bound: float
    passed: bool
    text: str


class Noise(Section):
    """Whether the machine was quiet enough to conclude anything; `conclusive` is the rules' conjunction."""

    conclusive: bool
    checks: tuple[NoiseCheck, ...]

    @property
    def failed(self) -> tuple[NoiseCheck, ...]:
        """The rules that do not hold."""
        return tuple(check for check in self.checks if not check.passed)
