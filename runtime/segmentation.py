"""The result of labeling an image, and the types of its arrays."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Segmentation:
    """The result for one image.

    Attributes:
        labels: H x W uint8.
        probabilities: L x H x W float32, after the CRF if it was on; None unless requested.
        timings_ms: milliseconds of each stage that ran: "prepare", "network", "scores", "crf", "labels".
    """

    labels: Labels
    probabilities: Scores | None
    timings_ms: Mapping[str, float]


@contextmanager
def measure(name: str, timings_ms: dict[str, float]) -> Iterator[None]:
    """Add the milliseconds of a stage."""
    start_s = time.perf_counter()
    yield
    timings_ms[name] = timings_ms.get(name, 0.0) + (time.perf_counter() - start_s) * 1000
