"""The demo where no network can be converted: the dense CRF on the network's stored scores of the shipped scenes."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...runtime import read_image
from ...runtime.crf import dense_crf
from ...runtime.upsampling import softmax, upsample_scores
from .settings import MiniatureFiles, Settings

Labels = NDArray[np.uint8]
STRIDE = 8


def refine_stored_scores(
    files: MiniatureFiles, settings: Settings, threads: int | None, advance: Callable[[int], None]
) -> dict[int, tuple[Labels, Labels, float]]:
    """For each shipped scene: (H, W) uint8 labels of the stored scores, those after the CRF, and its milliseconds."""
    refined = {}
    with np.load(files.scores, allow_pickle=False) as stored:
        for seed in settings.scenes:
            image = read_image(files.scene(seed)[0])
            low = stored[str(seed)].astype(np.float32)  # (classes, h, w)
            padded = ((low.shape[1] - 1) * STRIDE + 1, (low.shape[2] - 1) * STRIDE + 1)
            scores = upsample_scores(low, padded, (image.shape[0], image.shape[1]))
            start = time.perf_counter()
            marginals = dense_crf(image, softmax(scores), parameters=settings.crf, threads=threads)
            crf_ms = (time.perf_counter() - start) * 1e3
            refined[seed] = (scores.argmax(0).astype(np.uint8), marginals.argmax(0).astype(np.uint8), crf_ms)
            advance(1)
    return refined
