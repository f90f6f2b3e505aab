"""Small random problems shared by the tests of the CRF."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest


def make_problem(
    height: int, width: int, labels: int, seed: int = 0, sharpness: float = 2.0
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """An image of soft blobs with noise, and probabilities (L, H, W) of the given sharpness."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = np.zeros((height, width, 3), np.float32)
    for _ in range(4):
        center = random.uniform(0, 1, 2) * (height, width)
        size = 1 + random.uniform(0.1, 0.5) * max(height, width)
        blob = np.exp(-((y - center[0]) ** 2 + (x - center[1]) ** 2) / (2 * size**2))
        image += blob[..., None] * random.uniform(0, 255, 3)
    image = np.clip(image + random.normal(0, 6, image.shape), 0, 255)
    scores = random.normal(0, sharpness, (labels, height, width))
    exponentials = np.exp(scores - scores.max(axis=0))
    return image.astype(np.uint8), (exponentials / exponentials.sum(axis=0)).astype(np.float32)


@pytest.fixture
def problem() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """19 x 26 pixels, 5 labels."""
    return make_problem(19, 26, 5)
