"""The result of labeling an image, and the types of its arrays."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..bundle.palettes import Color
from .pictures import encode_label_png

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
        classes: names by label; empty if unknown.
        palette: RGB by label, for the picture that notebooks show; empty for distinct colors.
    """

    labels: Labels
    probabilities: Scores | None
    timings_ms: Mapping[str, float]
    classes: Sequence[str] = ()
    palette: Sequence[Color] = ()

    def __repr__(self) -> str:
        """Size, largest classes and time."""
        height, width = self.labels.shape
        shares = np.bincount(self.labels.ravel(), minlength=256) / max(1, self.labels.size)
        names = [self.classes[index] if index < len(self.classes) else str(index) for index in range(256)]
        order = [index for index in np.argsort(-shares, kind="stable")[:3] if shares[index]]
        largest = [f"{names[index]} {shares[index]:.0%}" for index in order]
        return f"<Segmentation {width}x{height}: {', '.join(largest)}; {sum(self.timings_ms.values()):.0f} ms>"

    def _repr_png_(self) -> bytes:
        """The labels in their colors, for notebooks."""
        return encode_label_png(self.labels, self.palette)


@contextmanager
def measure(name: str, timings_ms: dict[str, float]) -> Iterator[None]:
    """Add the milliseconds of a stage."""
    start_s = time.perf_counter()
    yield
    timings_ms[name] = timings_ms.get(name, 0.0) + (time.perf_counter() - start_s) * 1000
