"""Random compatibilities, shared by the tests over random settings."""

from __future__ import annotations

import numpy as np


def draw_compatibility(random: np.random.Generator, labels: int, strength: float) -> object:
    """A number, a vector or a matrix that smooths, now and then one that sharpens."""
    sign = -1.0 if random.random() < 0.1 else 1.0
    match random.integers(0, 3):
        case 0:
            return sign * strength
        case 1:
            return (-strength * random.uniform(0.3, 1, labels)).astype(np.float32)
        case _:
            matrix = sign * strength * random.uniform(0, 1, (labels, labels))
            np.fill_diagonal(matrix, 0)
            return matrix.astype(np.float32)
