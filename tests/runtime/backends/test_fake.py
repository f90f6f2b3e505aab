"""The fake backend: its formula computed by hand, its faults."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from atrous.errors import BackendError, InputError
from atrous.runtime.backends.fake import FakeBackend


def test_formula() -> None:
    image = np.array([[[[0, 0, 0], [255, 255, 255], [90, 60, 0]]]], np.uint8)
    scores = FakeBackend(3).run({"image": image})["scores"]  # centers 0, 127.5, 255
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


def time_run_s(backend: FakeBackend) -> float:
    start_s = time.perf_counter()
    backend.run({"image": np.zeros((1, 1, 1, 3), np.uint8)})
    return time.perf_counter() - start_s


def test_stalls_by_count() -> None:
    backend = FakeBackend(2, stall_every=3, stall_ms=60)
    times_s = [time_run_s(backend) for _ in range(6)]
    assert [index for index, time_s in enumerate(times_s) if time_s >= 0.06] == [2, 5]


def test_fails_once() -> None:
    backend = FakeBackend(2, fail_on=2)
    time_run_s(backend)
    with pytest.raises(BackendError, match="run 2 fails"):
        time_run_s(backend)
    time_run_s(backend)


@pytest.mark.parametrize("options", [{"delay_ms": -1}, {"stall_every": -1}, {"stall_ms": -1.0}, {"fail_on": -1}])
def test_refuses_negative_numbers(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="at least"):
        FakeBackend(2, **options)
