"""Figures as words, the same everywhere in the report."""

from __future__ import annotations

from collections.abc import Mapping

from ..sections import Quantile, Series
from .scale import format_number

#: stands where there is no figure
MISSING = "-"


def write_ms(value: float | None) -> str:
    """Milliseconds, three digits; a dash where there is no figure."""
    return MISSING if value is None else f"{format_number(value)} ms"


def write_share(value: float | None, digits: int = 2) -> str:
    """A fraction of 1 in percent; a dash where there is no figure."""
    return MISSING if value is None else f"{100 * value:.{digits}f} %"


def write_rate(value: float | None) -> str:
    """Images or queries a second; a dash where there is no figure."""
    return MISSING if value is None else f"{format_number(value)}/s"


def write_interval(quantile: Quantile) -> str:
    """A quantile's interval, or why there is none."""
    if quantile.low_ms is None or quantile.high_ms is None:
        return quantile.reason or "no interval"
    return f"{format_number(quantile.low_ms)} to {format_number(quantile.high_ms)} ms"


def write_mapping(values: Mapping[str, object]) -> str:
    """Names and values in one line."""
    return ", ".join(f"{name} {_write_value(value)}" for name, value in values.items())


def find_quantile(series: Series, q: float) -> Quantile | None:
    """The quantile q of a series, or None."""
    return next((quantile for quantile in series.quantiles if abs(quantile.q - q) < 1e-9), None)


def read_ms(series: Series, q: float) -> float | None:
    """The value of the quantile q, or None where the samples do not give it."""
    quantile = find_quantile(series, q)
    return None if quantile is None else quantile.value_ms


def _write_value(value: object) -> str:
    return format_number(value) if isinstance(value, float) else str(value)
