"""Detection of classes in another order, on counts of nets that are right, wrong and untrained."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from atrous.bundle.palettes import CAMVID_CLASSES, CITYSCAPES_CLASSES, VOC_CLASSES
from atrous.runtime.evaluation.class_order import assign_rows, find_class_order, suggest_map
from atrous.runtime.evaluation.datasets.class_maps import match_names


def make_counts(seed: int, accuracy: float, classes: int = 21) -> np.ndarray:
    """Confusion of a net that finds a share of each class and labels the rest at random; the first class is large."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1_000, 10_000, classes)
    pixels[0] = 200_000
    counts = np.stack([rng.multinomial(round(n * (1 - accuracy)), np.full(classes, 1 / classes)) for n in pixels])
    return counts + np.diag(np.round(pixels * accuracy).astype(int))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_assignment_against_all_permutations(size: int) -> None:
    rng = np.random.default_rng(size)
    for draw in range(40):
        values = rng.random((size, size)) if draw % 2 else rng.integers(0, 3, (size, size)).astype(float)
        columns = assign_rows(values)
        assert sorted(columns) == list(range(size))
        best = max(values[range(size), list(order)].sum() for order in itertools.permutations(range(size)))
        assert values[range(size), columns].sum() == pytest.approx(best)


@pytest.mark.parametrize("seed", range(5))
def test_any_other_order_is_found(seed: int) -> None:
    counts = make_counts(seed, 0.7)
    order = np.random.default_rng(seed + 100).permutation(21)
    (warning,) = find_class_order(counts[:, order], VOC_CLASSES)
    moved = int(np.flatnonzero(order != np.arange(21))[0])
    label = int(np.flatnonzero(order == moved)[0])  # the label that the true class got
    assert "another order than the bundle's" in warning
    assert f'{moved} -> {label} "{VOC_CLASSES[label]}"' in warning
    assert "more)" in warning


@pytest.mark.parametrize(("step", "words"), [(1, "one too low: shifted by +1"), (-1, "one too high: shifted by -1")])
def test_a_shift_is_named_as_such(step: int, words: str) -> None:
    (warning,) = find_class_order(np.roll(make_counts(0, 0.7), step, axis=1), VOC_CLASSES)
    assert words in warning


@pytest.mark.parametrize("accuracy", [0.0, 0.02, 0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_good_and_bad_nets_in_the_right_order_are_not_suspected(seed: int, accuracy: float) -> None:
    assert find_class_order(make_counts(seed, accuracy), VOC_CLASSES) == []


def test_a_class_taken_for_another_is_not_an_order() -> None:
    counts = make_counts(0, 0.7)
    counts[:, [8, 12]] = counts[:, [12, 8]]  # cats and dogs
    assert find_class_order(counts, VOC_CLASSES) == []
    assert find_class_order(np.array([[0, 9], [9, 0]]), ("a", "b")) == []
    assert find_class_order(np.zeros((4, 4), np.int64), tuple("abcd")) == []


def test_the_offered_map_restores_the_order() -> None:
    order = np.random.default_rng(3).permutation(21)
    counts = make_counts(3, 0.7)[:, order]
    (warning,) = find_class_order(counts, VOC_CLASSES, 1)
    offered = json.loads(warning[warning.index("{") :])
    assert offered == suggest_map(counts, VOC_CLASSES, 1)
    assert offered == {str(int(order[label]) + 1): VOC_CLASSES[label] for label in range(21)}
    assert "--map map.json" in warning
    assert "--label-classes" not in warning
    assert suggest_map(make_counts(3, 0.7), VOC_CLASSES) is None


def test_a_built_in_set_is_recognized() -> None:
    targets = match_names(CAMVID_CLASSES, CITYSCAPES_CLASSES)
    counts = np.zeros((19, 19), np.int64)
    counts[range(11), targets] = 1000
    (warning,) = find_class_order(counts, CITYSCAPES_CLASSES, 0)
    assert "add --label-classes camvid, whose classes these seem to be" in warning
