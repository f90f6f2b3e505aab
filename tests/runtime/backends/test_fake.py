"""The fake backend's formula, by hand."""

from __future__ import annotations

import time

import numpy as np

from atrous.runtime.backends.fake import FakeBackend


def test_formula() -> None:
    image = np.array([[[[0, 0, 0], [255, 255, 255], [90, 60, 0]]]], np.uint8)
    scores = FakeBackend(3).run({"image": image})["scores"]  # centres 0, 127.5, 255
    np.testing.assert_array_equal(scores[0, :, 0, 0], [0, -127.5, -255])
    np.testing.assert_array_equal(scores[0, :, 0, 1], [-255, -127.5, 0])
    np.testing.assert_array_equal(scores[0, :, 0, 2], [-50, -77.5, -205])


def test_one_label() -> None:
    image = np.full((1, 1, 1, 3), 7, np.uint8)
    assert FakeBackend(1, input_name="x").run({"x": image})["scores"].tolist() == [[[[-7.0]]]]


def test_delay() -> None:
    backend = FakeBackend(2, delay_ms=30)
    start_s = time.perf_counter()
    backend.run({"image": np.zeros((1, 1, 1, 3), np.uint8)})
    assert time.perf_counter() - start_s >= 0.03
