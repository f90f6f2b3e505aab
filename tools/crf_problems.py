"""Images and unaries for measuring the dense CRF: drawn scenes, and scores of a given sharpness.

Results depend on both: color noise determines the number of lattice vertices, sharpness the number of relevant labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atrous.runtime.upsampling import softmax, upsample_scores

from .scenes import draw_scene


@dataclass(frozen=True)
class Problem:
    """One image H x W x 3 uint8 RGB, probabilities (L, H, W) float32 and their energies -log(clip(p)), (L, N)."""

    image: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]
    unary: npt.NDArray[np.float32]

    @property
    def mean_confidence(self) -> float:
        """The mean over the pixels of the largest probability."""
        return float(self.probabilities.max(axis=0).mean())


def draw_problem(height: int, width: int, labels: int, *, seed: int = 0, sharpness: float = 2.0) -> Problem:
    """A scene, and the softmax of random scores on a grid of stride 8, upsampled as DeepLab does.

    Args:
        height: rows.
        width: columns.
        labels: number of labels.
        seed: random seed of scene and scores.
        sharpness: standard deviation of the scores.
    """
    random = np.random.default_rng(seed)
    coarse = random.normal(0, sharpness, (labels, -(-height // 8) + 1, -(-width // 8) + 1)).astype(np.float32)
    probabilities = np.ascontiguousarray(softmax(upsample_scores(coarse, (height, width), (height, width))))
    scene = draw_scene(seed, max(height, 32), max(width, 32))  # a scene has at least 32 pixels a side
    unary = -np.log(np.clip(probabilities, 1e-5, 1.0)).reshape(labels, -1)
    return Problem(np.ascontiguousarray(scene.image[:height, :width]), probabilities, unary)
