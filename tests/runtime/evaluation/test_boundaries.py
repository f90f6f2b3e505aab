from __future__ import annotations

import itertools

import numpy as np
import pytest

from atrous.runtime import InputError
from atrous.runtime.evaluation import VOID, count_confusion
from atrous.runtime.evaluation.boundaries import count_bands, measure_distance


def measure_slowly(reference: np.ndarray, limit: int, first: int) -> np.ndarray:
    points = np.argwhere(reference)
    distance = np.full(reference.shape, limit + 1)
    for place in itertools.product(*map(range, reference.shape)):
        if len(points):
            nearest = np.abs(points - place).max(axis=1).min() + first
            distance[place] = min(nearest, limit + 1)
    return distance


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 5), (17, 23)])
def test_distance_from_void_is_the_chessboards(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    truth = np.where(rng.random(shape) < 0.02, VOID, 1).astype(np.uint8)
    assert (measure_distance(truth, "void", 5) == measure_slowly(truth == VOID, 5, 0)).all()


def test_distance_from_label_borders() -> None:
    truth = np.repeat(np.array([[0, 0, 0, 0, 1, 1, 1]], np.uint8), 3, axis=0)
    assert measure_distance(truth, "labels", 3).tolist() == [[4, 3, 2, 1, 1, 2, 3]] * 3
    truth[:, 4] = VOID  # void between the classes: no border any more
    assert (measure_distance(truth, "labels", 3) == 4).all()


def test_borders_in_both_directions_against_the_slow_way() -> None:
    truth = np.random.default_rng(0).integers(0, 3, (6, 8)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    borders = np.zeros(truth.shape, bool)
    for y, x in itertools.product(*map(range, truth.shape)):
        for ny, nx in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= ny < truth.shape[0] and 0 <= nx < truth.shape[1]
            borders[y, x] |= inside and truth[ny, nx] != truth[y, x]
    assert (measure_distance(truth, "labels", 3) == measure_slowly(borders, 3, 1)).all()


def test_bands_hold_what_masking_gives() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, (5, 6)).repeat(5, 0).repeat(5, 1).astype(np.uint8)
    labels = np.where(rng.random(truth.shape) < 0.2, (truth + 1) % 3, truth).astype(np.uint8)
    widths = (1, 2, 4)
    distance = measure_distance(truth, "labels", 4)
    counts = count_bands(truth, labels, 3, widths, distance)
    for index, width in enumerate(widths):
        masked = np.where(distance <= width, truth, VOID).astype(np.uint8)
        assert (counts[index] == count_confusion(masked, labels, 3)).all()
    assert (counts[-1] == count_confusion(truth, labels, 3)).all()
    assert counts[0].sum() < counts[1].sum() < counts[-1].sum()


def test_an_image_without_a_reference_has_empty_bands() -> None:
    truth = np.zeros((4, 4), np.uint8)
    for reference in ("void", "labels"):
        counts = count_bands(truth, truth, 2, (2,), measure_distance(truth, reference, 2))
        assert (counts[0].sum(), counts[1].sum()) == (0, 16)


def test_invalid_arguments() -> None:
    truth = np.zeros((4, 4), np.uint8)
    with pytest.raises(InputError, match="not 'edges' and 2"):
        measure_distance(truth, "edges", 2)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 to 200 wide"):
        measure_distance(truth, "void", 0)
    with pytest.raises(InputError, match="must ascend"):
        count_bands(truth, truth, 2, (5, 2), measure_distance(truth, "void", 5))
