"""The choice of the images to observe and to check: every row of the table, and its edges."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from atrous.converter.precision import Picture, choose_evidence

Loaders = list[Callable[[], Picture]]


def loaders(first: int, count: int, labeled: bool = False) -> Loaders:
    """Images of one gray level each, so that they can be identified."""

    def make(level: int) -> Picture:
        return Picture(np.full((4, 6, 3), level, np.uint8), np.full((4, 6), level, np.uint8) if labeled else None)

    return [partial(make, level) for level in range(first, first + count)]


def levels(
    images: Loaders, labeled: Loaders, calibrate_on: int = 3, check_on: int = 2
) -> tuple[list[int], list[int], str]:
    evidence = choose_evidence(images, labeled, "photos", calibrate_on=calibrate_on, check_on=check_on)
    observed = [int(image[0, 0, 0]) for image in evidence.calibration]
    return observed, [int(picture.image[0, 0, 0]) for picture in evidence.pictures], evidence.source


SHARED = "photos, observed and checked on the same images"


@pytest.mark.parametrize(
    ("images", "labeled", "observed", "checked", "source"),
    [
        (9, 0, [2, 3, 4], [0, 1], "photos"),
        (3, 0, [1, 2], [0], "photos"),
        (2, 0, [1], [0], "photos"),
        (1, 0, [0], [0], SHARED),
        (0, 0, [], [], SHARED),
        (0, 9, [102, 103, 104], [100, 101], "photos"),
        (0, 3, [102], [100, 101], "photos"),
        (0, 2, [100, 101], [100, 101], SHARED),
        (9, 9, [0, 1, 2], [100, 101], "photos"),
        (1, 9, [0], [100, 101], "photos"),
    ],
)
def test_the_table(images: int, labeled: int, observed: list[int], checked: list[int], source: str) -> None:
    assert levels(loaders(0, images), loaders(100, labeled, labeled=True)) == (observed, checked, source)


def test_no_more_than_the_limits() -> None:
    assert levels([], loaders(0, 4), calibrate_on=2, check_on=8) == ([0, 1], [0, 1, 2, 3], SHARED)
    assert levels(loaders(0, 100), [], calibrate_on=1, check_on=8)[0] == [8]


def test_only_chosen_images_are_loaded() -> None:
    def fail() -> Picture:
        raise AssertionError

    assert levels([*loaders(0, 5), fail], []) == ([2, 3, 4], [0, 1], "photos")


def test_images_and_labels_are_resized() -> None:
    truth = np.array([[0, 9], [9, 0]], np.uint8)
    image = np.zeros((2, 2, 3), np.uint8)
    evidence = choose_evidence([], [lambda: Picture(image, truth)], "photos", size=(4, 6))
    (picture,) = evidence.pictures
    assert picture.image.shape == (4, 6, 3)
    assert picture.truth is not None
    assert picture.truth.shape == (4, 6)
    assert set(np.unique(picture.truth)) == {0, 9}  # no label in between
    assert evidence.calibration[0].shape == (4, 6, 3)
