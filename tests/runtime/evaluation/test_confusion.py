from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrous.runtime import InputError
from atrous.runtime.evaluation import ConfusionMatrix, Counts, class_ious, count_confusion, mean_iou

TRUTH = np.array([[0, 0, 1, 1, 255]], np.uint8)
LABELS = np.array([[0, 1, 1, 1, 0]], np.uint8)


def fill(counts: Counts) -> ConfusionMatrix:
    matrix = ConfusionMatrix(len(counts))
    matrix.add_counts(counts)
    return matrix


def test_one_pixel() -> None:
    assert count_confusion(np.array([[1]], np.uint8), np.array([[0]], np.uint8), 2).tolist() == [[0, 0], [1, 0]]


def test_a_case_by_hand() -> None:
    counts = count_confusion(TRUTH, LABELS, 3)
    assert counts.dtype == np.int64
    assert counts.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert class_ious(counts)[:2].tolist() == [1 / 2, 2 / 3]
    assert fill(counts).class_accuracies[:2].tolist() == [1 / 2, 1.0]
    assert np.isnan(class_ious(counts)[2])  # a class that does not occur
    assert mean_iou(counts) == pytest.approx(7 / 12)
    assert mean_iou(np.stack([counts, counts])) == pytest.approx(7 / 12)
    assert fill(counts).pixel_accuracy == 3 / 4
    assert fill(counts).mean_accuracy == 3 / 4
    assert fill(counts).frequency_weighted_iou == pytest.approx(0.5 * 1 / 2 + 0.5 * 2 / 3)


def test_a_class_labeled_but_nowhere_true_counts_as_zero() -> None:
    counts = count_confusion(np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 1]], np.uint8), 3)
    assert class_ious(counts)[:2].tolist() == [3 / 4, 0.0]
    assert mean_iou(counts) == 3 / 8
    assert fill(counts).mean_accuracy == 3 / 4  # over the classes that are true somewhere


def test_nothing_judged_gives_nan_everywhere() -> None:
    matrix = ConfusionMatrix(2)
    matrix.add(np.zeros((2, 3), np.uint8), np.full((2, 3), 255, np.uint8))
    figures = (matrix.mean_iou, matrix.mean_accuracy, matrix.pixel_accuracy, matrix.frequency_weighted_iou)
    assert np.isnan(figures).all()
    assert (matrix.images, matrix.ignored) == (1, 6)


def test_matrix_adds_up_pictures_of_any_size() -> None:
    matrix = ConfusionMatrix(3)
    own = matrix.add(LABELS, TRUTH)
    matrix.add(LABELS.T.copy(), TRUTH.T.copy())
    assert (matrix.counts == 2 * own).all()
    assert (matrix.images, matrix.ignored, matrix.classes) == (2, 2, 3)
    assert matrix.mean_iou == pytest.approx(7 / 12)
    assert matrix.class_ious[0] == matrix.class_accuracies[0] == 1 / 2


def test_labels_under_the_void_may_be_anything() -> None:
    assert count_confusion(np.array([255], np.uint8), np.array([99], np.uint8), 2).sum() == 0


def test_all_256_classes() -> None:
    both = np.arange(256, dtype=np.uint8)
    counts = count_confusion(both, both, 256, void=-1)
    assert (counts == np.eye(256, dtype=np.int64)).all()


@pytest.mark.parametrize(
    ("truth", "labels", "classes", "words"),
    [
        (TRUTH, LABELS[:, :3], 3, "same pixels"),
        (TRUTH, LABELS, 1, "the truth hold 1, beyond the 1 classes"),
        (TRUTH, LABELS + 7, 3, "the labels hold 8, beyond the 3 classes"),
        (TRUTH.astype(int), LABELS, 3, "must be uint8"),
        (TRUTH, LABELS, 257, "1 to 256 classes"),
    ],
)
def test_invalid_arguments(truth: np.ndarray, labels: np.ndarray, classes: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        count_confusion(truth, labels, classes)


def test_a_matrix_refuses_no_classes_and_counts_of_others() -> None:
    with pytest.raises(InputError, match="not 0"):
        ConfusionMatrix(0)
    with pytest.raises(InputError, match="do not fit 2 classes"):
        ConfusionMatrix(2).add_counts(np.zeros((3, 3), np.int64))


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_figures_as_sets_of_pixels_define_them(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, (5, 7)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.2] = 255
    labels = rng.integers(0, classes, (5, 7)).astype(np.uint8)
    judged = {p for p in itertools.product(range(5), range(7)) if truth[p] != 255}
    ious = []
    for index in range(classes):
        true = {p for p in judged if truth[p] == index}
        found = {p for p in judged if labels[p] == index}
        if true | found:
            ious.append(len(true & found) / len(true | found))
    counts = count_confusion(truth, labels, classes)
    assert mean_iou(counts) == pytest.approx(np.mean(ious) if ious else np.nan, nan_ok=True)
    assert counts.sum() == len(judged)
