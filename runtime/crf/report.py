"""What one inference did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InferenceReport:
    """What one inference did.

    Attributes:
        iterations: how many updates ran.
        cancelled: it was stopped by its token.
        changed: fraction of labels the last update changed; None where nothing counted them.
        settled: fraction of the pixels that `settle` left as they were after one update.
        start_s, splat_s, blur_s, slice_s: wall seconds by phase.
    """

    iterations: int
    cancelled: bool
    changed: float | None
    settled: float
    start_s: float
    splat_s: float
    blur_s: float
    slice_s: float
