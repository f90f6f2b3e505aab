"""How well two label maps of the same images agree, and whether it matters where they do not.

A net decides most pixels by a wide margin and some by a hair. Where it was a hair, any rounding may turn it, and nobody
is the worse for it; so beside the plain agreement stands that of the clear pixels: those where the float32 scores of
the best and the second class differ by at least 1 % of the span of all scores of that image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...bundle.manifest import Head

Array = NDArray[Any]
Labels = NDArray[np.uint8]

#: L x h x w low-resolution scores and the image's (height, width) -> L x H x W
Complete = Callable[[Array, tuple[int, int]], Array]
#: pairs of truth and labels, both H x W uint8 -> mean IoU as a fraction of 1
Score = Callable[[Sequence[tuple[Labels, Labels]]], float]
CLEAR_MARGIN = 0.01


def read_head(
    output: Array, head: Head, size: tuple[int, int], complete: Complete | None
) -> tuple[Labels, Array | None]:
    """Labels H x W uint8 and scores L x H x W (None for a head of labels) of one image's output.

    Args:
        output: 1 x L x h x w scores, or 1 x H x W labels.
        head: what the output is.
        size: (height, width) of the image.
        complete: upsamples the scores of a `lowres` head; None labels them as they are.
    """
    if head == "labels":
        return np.asarray(output[0], np.uint8), None
    scores = output[0] if head == "scores" or complete is None else complete(output[0], size)
    return scores.argmax(axis=0).astype(np.uint8), scores


def find_clear(scores: Array) -> NDArray[np.bool_]:
    """The pixels (H, W) that L x H x W scores decide clearly."""
    if scores.shape[0] < 2:
        return np.ones(scores.shape[1:], np.bool_)
    best = np.partition(scores, -2, axis=0)[-2:]  # (2, H, W)
    clear: NDArray[np.bool_] = best[1] - best[0] >= CLEAR_MARGIN * float(scores.max() - scores.min())
    return clear


@dataclass
class Agreement:
    """Counts pixels over images.

    Attributes:
        pixels, agreed: of all.
        clear, clear_agreed: of those that the reference decides clearly; both 0 for a head of labels.
        worst: the least agreement of one image.
        images: how many.
    """

    pixels: int = 0
    agreed: int = 0
    clear: int = 0
    clear_agreed: int = 0
    worst: float = 1.0
    images: int = 0
    _pairs: list[tuple[Labels, Labels, Labels]] = field(default_factory=list, repr=False)

    def add(self, reference: Labels, labels: Labels, scores: Array | None, truth: Labels | None = None) -> None:
        """Take in one image: H x W labels of both, the reference's scores, and the truth where there is one."""
        same = reference == labels
        self.images += 1
        self.pixels += same.size
        self.agreed += int(same.sum())
        self.worst = min(self.worst, float(same.mean()))
        if scores is not None:
            clear = find_clear(scores)
            self.clear += int(clear.sum())
            self.clear_agreed += int((same & clear).sum())
        if truth is not None:
            self._pairs.append((truth, reference, labels))

    @property
    def share(self) -> float:
        """Of all pixels, those that agree."""
        return self.agreed / max(self.pixels, 1)

    @property
    def clear_share(self) -> float | None:
        """Of the clear pixels, those that agree; None where none is known to be clear."""
        return self.clear_agreed / self.clear if self.clear else None

    def score(self, score: Score) -> tuple[float, float] | None:
        """Mean IoU of the reference and of the variant, or None without labelled images."""
        if not self._pairs:
            return None
        reference = score([(truth, labels) for truth, labels, _ in self._pairs])
        return reference, score([(truth, labels) for truth, _, labels in self._pairs])

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {
            "images": self.images,
            "label_agreement": self.share,
            "worst_image_agreement": self.worst,
            "clear_agreement": self.clear_share,
            "clear_pixels": self.clear / max(self.pixels, 1),
        }
