"""Guard of `DenseCRF` against concurrent calls; the outputs and the statistics of an inference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from ...errors import CrfInputError
from . import _lattice
from .checks import FloatArray

P = ParamSpec("P")
R = TypeVar("R")

Output = Literal["marginals", "labels"]


def exclusive(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Refuse calls of `method` while another call on the same model runs: the core works without the GIL."""

    @wraps(method)
    def call(self: Any, /, *args: P.args, **options: P.kwargs) -> R:
        try:
            with self._field:
                return method(self, *args, **options)
        except _lattice.InUseError:
            raise CrfInputError(
                "this DenseCRF is in use by another thread: make one for each thread, or take turns with a lock"
            ) from None

    return call


def find_label_dtype(labels: int) -> np.dtype[Any]:
    """The dtype of an array of labels: uint8, uint16 for more than 256 labels."""
    return np.dtype(np.uint8 if labels <= 256 else np.uint16)


def choose_output(marginals: FloatArray, output: Output) -> npt.NDArray[Any]:
    """The marginals (L, *shape), or the first label of the highest (*shape)."""
    if output == "marginals":
        return marginals
    labels: npt.NDArray[Any] = marginals.argmax(axis=0).astype(find_label_dtype(len(marginals)))
    return labels


@dataclass(frozen=True)
class InferenceReport:
    """Statistics of one inference.

    Attributes:
        iterations: number of updates that ran.
        cancelled: whether its token stopped it.
        changed: fraction of labels that the last update changed; None if not counted.
        settled: fraction of pixels that `settle` froze.
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
