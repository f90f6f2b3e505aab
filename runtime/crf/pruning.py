"""Selects the labels that may be dropped: those whose energy no message can compensate.

With E(l) the energy of a label above a pixel's best, and messages m between `lowest` and `highest`, label l loses to
the best label b in every iteration if -E(l) + highest < lowest. A Potts term of weight w sends messages in
[0, w max F(1)], since F is linear and not negative, and the marginals of a pixel sum to 1; normalized after filtering,
F(1) = 1. The mass dropped at a pixel is at most the sum over dropped l of exp(highest - lowest - E(l)).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from .checks import check_fraction
from .term_list import Term
from .unary import Gaps

_ROUNDING = 1.001  # float32 sums may exceed their bound by this factor


def lossless_margin(terms: Iterable[Term], threads: int) -> float:
    """The largest difference of the messages to two labels of one pixel, over all terms."""
    margin = 0.0
    for term in terms:
        axes, values = term.compatibility
        # A number w sends +w F, a vector or matrix W sends -W F; each entry of F and their sum are at most the peak.
        messages = values if axes == 0 else -values
        highest, lowest = max(0.0, float(messages.max())), min(0.0, float(messages.min()))
        margin += (highest - lowest) * term.lattice.peak(threads)
    return margin * _ROUNDING


def labels_to_keep(gaps: Gaps, terms: Iterable[Term], threads: int, below: float | None) -> list[int]:
    """The labels that may win at some pixel, or reach `below` of the best label's probability there; at least one."""
    margin = lossless_margin(terms, threads) if below is None else -math.log(check_fraction(below, "below"))
    kept = [label for label, gap in enumerate(gaps.tolist()) if gap <= margin]
    return kept or [int(gaps.argmin())]
