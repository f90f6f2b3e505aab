"""Rebuild noise on outputs whose disagreement is computed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from atrous.errors import InputError
from atrous.runtime.backends.tensorrt.noise import measure_rebuild_noise

FEEDS: list[dict[str, Any]] = [{"image": np.zeros((1, 4, 5, 3), np.uint8)}, {"image": np.ones((1, 4, 5, 3), np.uint8)}]


def make_run(wrong_pixels: int, *, offset: float = 0.0) -> Any:
    """A build whose scores are `offset` higher for both labels, and that labels some pixels differently on image 1."""

    def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
        scores = np.zeros((1, 2, 4, 5), np.float32) + np.float32(offset)
        scores[:, 1] -= 1
        if feeds["image"].any():
            scores[0, 1].reshape(-1)[:wrong_pixels] += 2
        return {"scores": scores, "labels": scores.argmax(axis=1).astype(np.uint8)}

    return run


def test_the_same_build_thrice() -> None:
    noise = measure_rebuild_noise([make_run(0)] * 3, FEEDS, "scores")
    assert (noise.builds, noise.images, noise.pixels, noise.identical_pairs) == (3, 2, 40, 3)
    assert (noise.mean_disagreement, noise.worst_disagreement) == (0.0, 0.0)


@pytest.mark.parametrize("output", ["scores", "labels"])
def test_shares_by_hand(output: str) -> None:
    noise = measure_rebuild_noise([make_run(0), make_run(2), make_run(4)], FEEDS, output)
    assert noise.mean_disagreement == pytest.approx((2 + 4 + 2) / 40 / 3)
    assert noise.worst_disagreement == pytest.approx(4 / 40)
    assert noise.identical_pairs == 0


def test_bits_that_change_no_label() -> None:
    noise = measure_rebuild_noise([make_run(0), make_run(0, offset=0.25)], FEEDS, "scores")
    assert (noise.worst_disagreement, noise.identical_pairs) == (0.0, 0)


@pytest.mark.parametrize(("runs", "feeds"), [([make_run(0)], FEEDS), ([make_run(0)] * 2, [])])
def test_nothing_to_compare(runs: Any, feeds: Any) -> None:
    with pytest.raises(InputError, match="cannot be compared"):
        measure_rebuild_noise(runs, feeds, "scores")
