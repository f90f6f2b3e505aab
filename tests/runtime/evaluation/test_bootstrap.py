from __future__ import annotations

import numpy as np
import pytest

from atrous.runtime import InputError
from atrous.runtime.evaluation import bootstrap_gain, bootstrap_mean_iou, count_confusion, mean_iou, take_parts
from atrous.runtime.evaluation.bootstrap import mean_iou_of_parts


def draw_counts(share: float, pictures: int = 12, seed: int = 0) -> list[np.ndarray]:
    """Confusions of `pictures` random pictures of two classes of which `share` of the pixels are labeled wrongly."""
    rng = np.random.default_rng(seed)
    counts = []
    for _ in range(pictures):
        truth = rng.integers(0, 2, (8, 8)).astype(np.uint8)
        labels = np.where(rng.random((8, 8)) < share, 1 - truth, truth).astype(np.uint8)
        counts.append(count_confusion(truth, labels, 2))
    return counts


def parts(counts: list[np.ndarray]) -> list[np.ndarray]:
    return [take_parts(picture) for picture in counts]


def test_brackets_the_gain() -> None:
    before, after = draw_counts(0.3), draw_counts(0.0)
    low, high = bootstrap_gain(parts(before), parts(after))
    gain = mean_iou(np.stack(after)) - mean_iou(np.stack(before))
    assert 0 < low < gain < high < 1
    assert bootstrap_gain(parts(before), parts(after)) == (low, high)


def test_is_what_drawing_picture_by_picture_gives() -> None:
    counts = draw_counts(0.3)
    rng = np.random.default_rng(5)
    means = [mean_iou(np.stack([counts[i] for i in rng.integers(12, size=12)])) for _ in range(300)]
    expected = (np.quantile(means, 0.025), np.quantile(means, 0.975))
    assert bootstrap_mean_iou(parts(counts), seed=5, draws=300) == pytest.approx(expected)


def test_narrows_with_more_pictures_and_holds_the_mean() -> None:
    few, many = draw_counts(0.3, 8), draw_counts(0.3, 128)
    widths = []
    for counts in (few, many):
        low, high = bootstrap_mean_iou(parts(counts))
        assert low < mean_iou(np.stack(counts)) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_parts_have_the_mean_iou_of_their_counts() -> None:
    counts = draw_counts(0.3)
    assert mean_iou_of_parts(np.stack(parts(counts))) == mean_iou(np.stack(counts))
    assert np.isnan(mean_iou_of_parts(np.zeros((3, 2, 4), np.int64)))


def test_one_picture_has_no_width() -> None:
    counts = draw_counts(0.3, 1)
    assert bootstrap_mean_iou(parts(counts)) == (mean_iou(counts[0]), mean_iou(counts[0]))


def test_needs_pictures_and_pairs() -> None:
    with pytest.raises(InputError, match="no image to draw from"):
        bootstrap_mean_iou([])
    with pytest.raises(InputError, match="not the same images"):
        bootstrap_gain(parts(draw_counts(0.1, 2)), parts(draw_counts(0.1, 3)))
