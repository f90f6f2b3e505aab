"""The output of a network's head, turned into scores of the image's size, or into labels without the CRF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bundle.choices import Head
from ..bundle.manifest import Deploy
from .backends import Array
from .resizing import Sizing
from .segmentation import Labels, Scores, measure
from .upsampling import softmax, upsample_scores

_ROWS = 32  # of the scores, enlarged at a time


@dataclass(frozen=True)
class HeadScores:
    """Reads the head's output.

    Attributes:
        deploy: the manifest's section of the graph.
        head: the network's output: "scores" at full size, "lowres" scores, or "labels".
        sizing: the size that the network runs at.
    """

    deploy: Deploy
    head: Head
    sizing: Sizing

    def complete(self, raw: Array, size: tuple[int, int]) -> Scores:
        """See `Segmenter.complete_scores`."""
        return self.cut(raw, size, self.sizing.find_size(*size), (0, size[0], 0, size[1]))

    def cut(
        self, raw: Array, size: tuple[int, int], network_size: tuple[int, int], window: tuple[int, int, int, int]
    ) -> Scores:
        """See `Segmenter.cut_scores`."""
        upsampling, (top, bottom, left, right) = self.deploy.upsampling, window
        origin, part, align_corners = (top, left), (bottom - top, right - left), False
        padded = size
        if self.head == "lowres" and upsampling is not None:
            align_corners, padded = upsampling.align_corners, upsampling.padded.padded_size(*network_size)
            if network_size != size:
                raw = upsample_scores(raw, padded, network_size, align_corners=align_corners)
                align_corners, padded = False, size
        elif network_size == size:
            return raw[:, top:bottom, left:right]
        return upsample_scores(raw, padded, part, align_corners=align_corners, origin=origin)

    def label(self, raw: Array, size: tuple[int, int], timings_ms: dict[str, float]) -> Labels:
        """The argmax of `complete`, some rows at a time if they are enlarged, so that they stay in the cache."""
        network_size, labels = self.sizing.find_size(*size), np.empty(size, np.uint8)
        is_enlarged = (self.head == "lowres") != (network_size != size)  # one step; two need the whole image between
        step = _ROWS if is_enlarged else size[0]
        for top in range(0, size[0], step):
            bottom = min(top + step, size[0])
            with measure("scores", timings_ms):
                scores = self.cut(raw, size, network_size, (top, bottom, 0, size[1]))
            with measure("labels", timings_ms):
                labels[top:bottom] = scores.argmax(axis=0)  # ties go to the lowest label
        return labels

    def to_probabilities(self, scores: Scores) -> Scores:
        """The softmax of scores, unless the network ends in one: L x H x W float32."""
        return scores if self.deploy.scores_are == "probabilities" else softmax(scores)

    def describe_to_crf(self, size: tuple[int, int]) -> dict[str, Any] | None:
        """Arguments with which the CRF's own upsampling of the scores equals `complete`.

        None where it does not: without aligned corners, or for resized images.
        """
        upsampling = self.deploy.upsampling
        if (
            self.head == "lowres"
            and upsampling is not None
            and upsampling.align_corners
            and self.sizing.find_size(*size) == size
            and self.deploy.scores_are == "logits"
        ):
            padded = upsampling.padded.padded_size(*size)
            return {} if padded == size else {"padded": padded}
        return None
