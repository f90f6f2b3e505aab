"""The fake backend: scores by a formula, for tests of the code around a network, users' tests included.

The score of label l at a pixel is -|Y - c_l|, where Y is the pixel's mean gray level and c_l = 255 * l / (L - 1).
So the darkest pixels get label 0, the brightest label L - 1, and every number can be checked by hand.

Its faults are deterministic: a delay of every run, a stall of every n-th run, a failure of the n-th run. Runs are
counted from 1 as they begin, over all threads.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...errors import BackendError, InputError
from .protocol import Array, Backend, TensorSpec, check_feeds


@dataclass(frozen=True)
class FakeOptions:
    """Options of the fake backend: its faults; see `FakeBackend`."""

    delay_ms: float = 0.0
    stall_every: int = 0
    stall_ms: float = 0.0
    fail_on: int = 0


class FakeBackend(Backend):
    """A network without weights."""

    name = "fake"
    device = "cpu"

    def __init__(
        self,
        labels: int,
        *,
        input_name: str = "image",
        delay_ms: float = 0.0,
        stall_every: int = 0,
        stall_ms: float = 0.0,
        fail_on: int = 0,
    ):
        """Make a fake network of L labels; every n-th run stalls, and run `fail_on` (from 1) fails; 0 for never."""
        if labels < 1 or min(delay_ms, stall_every, stall_ms, fail_on) < 0:
            raise InputError("the fake backend needs at least one label, and delays and counts of at least 0")
        self.inputs = (TensorSpec(input_name, "uint8", ("batch", "height", "width", 3)),)
        self.outputs = (TensorSpec("scores", "float32", ("batch", labels, "height", "width")),)
        self._centers = np.linspace(0.0, 255.0, labels, dtype=np.float32) if labels > 1 else np.zeros(1, np.float32)
        self._delay_s = delay_ms / 1000
        self._stall_every = stall_every
        self._stall_s = stall_ms / 1000
        self._fail_on = fail_on
        self._counter = itertools.count(1)  # next() on it is atomic
        self._closed = False

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; see `Backend.run`."""
        if self._closed:
            raise BackendError("this backend was closed")
        check_feeds(self.inputs, feeds)
        run = next(self._counter)
        gray = feeds[self.inputs[0].name].mean(axis=3, dtype=np.float32)  # (N, H, W)
        scores = -np.abs(gray[:, None] - self._centers[None, :, None, None])  # (N, L, H, W)
        stalls = self._stall_every > 0 and run % self._stall_every == 0
        time.sleep(self._delay_s + (self._stall_s if stalls else 0.0))
        if run == self._fail_on:
            raise BackendError(f"run {run} fails, as the option fail_on says")
        return {"scores": scores}

    def close(self) -> None:
        """Refuse further runs."""
        self._closed = True
