"""Converted bundles: every head and backend gives the same scores and labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atrous import runtime

from .bundles import make_image
from .converted import write_converted

pytest.importorskip("torch", reason="the converter needs torch")

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def bundles_by_head(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same net as three bundles, one per head."""
    return write_converted(tmp_path_factory.mktemp("converted"))


@pytest.mark.parametrize("size", [(33, 33), (1, 1), (40, 51)])
def test_heads_and_backends_agree(bundles_by_head: dict[str, Path], size: tuple[int, int]) -> None:
    image = make_image(*size)
    reference = runtime.load(bundles_by_head["scores"], threads=1)
    scores = reference.scores(image)
    bound = TOLERANCE * max(1.0, float(np.abs(scores).max()))
    for head, path in bundles_by_head.items():
        runtime.read_bundle(path).verify_files()
        for backend in ("onnxruntime", "torch"):
            segmenter = runtime.load(path, backend, threads=1)
            if head != "labels":
                np.testing.assert_allclose(segmenter.scores(image), scores, rtol=0, atol=bound)
            # Where labels differ, the two best scores are nearly equal.
            labels = segmenter(image).astype(np.intp)[None]
            chosen = np.take_along_axis(scores, labels, axis=0)[0]
            assert (scores.max(axis=0) - chosen).max() <= 2 * bound
