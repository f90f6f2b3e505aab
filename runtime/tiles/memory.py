"""Estimates of the memory that an image needs, and a gate that keeps many images below a limit together.

The estimates are from above: the network's activations with ONNX Runtime's slack, and the dense CRF's arrays as
docs/crf.md lists them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType

from ...bundle.manifest import Footprint

_SLACK = 1.8  # measured memory of ONNX Runtime over the sum of the activations, after tiles of several shapes
_UNKNOWN_NETWORK = 800.0  # bytes per pixel of a network without a footprint: VGG-16's first layers
_HELD = 3 + 1 + 2  # image, labels, and a copy while they are encoded
_FLOAT = 4
_VERTICES = 1.5  # of the CRF's lattices per pixel, in detailed photos
_CORNER_BYTES = 16 * 9


@dataclass(frozen=True)
class MemoryModel:
    """Bytes per pixel of each step.

    Attributes:
        labels: number of classes.
        footprint: the network's, or None if the bundle has none.
        network_on_host: whether the network computes in this machine's memory.
        has_crf: whether the CRF runs.
    """

    labels: int
    footprint: Footprint | None
    network_on_host: bool
    has_crf: bool

    @property
    def network(self) -> float:
        """Of the network, for each pixel of its input: activations and scores."""
        activations = _UNKNOWN_NETWORK if self.footprint is None else _SLACK * self.footprint.bytes_per_pixel
        return (activations if self.network_on_host else 3) + _FLOAT * self.labels

    def finish(self, *, crf: bool) -> float:
        """Of the steps after the network, for each pixel: scores, their softmax, argmax, and the CRF."""
        scores = 2 * _FLOAT * self.labels + 12
        if not crf:
            return scores
        padded = -(-self.labels // 4) * 4
        rows = _VERTICES * (2 * _FLOAT * padded + 24)
        return scores + _FLOAT * (self.labels + padded) + _CORNER_BYTES + rows

    def held(self, *, probabilities: bool) -> float:
        """Of what is kept until the end, for each pixel of the image."""
        return _HELD + (_FLOAT * self.labels if probabilities else 0)


class Reservation:
    """Bytes held at a gate; freed by `release`, by leaving its `with` block, or with the object itself."""

    def __init__(self, gate: MemoryGate, size: int) -> None:
        self._gate, self._size = gate, size

    def release(self) -> None:
        """Give the bytes back; may be called twice."""
        size, self._size = self._size, 0
        if size:
            self._gate.give_back(size)

    def __enter__(self) -> Reservation:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release it."""
        self.release()

    def __del__(self) -> None:
        """Release it where an image was dropped on its way."""
        self.release()


class MemoryGate:
    """Lets images in while their estimates fit a limit together; an image that fits in no case comes in alone."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._has_room = threading.Condition()

    def reserve(self, size: int) -> Reservation:
        """Wait for room, and hold it."""
        with self._has_room:
            while self._used and self._used + size > self._limit:
                self._has_room.wait()
            self._used += size
        return Reservation(self, size)

    def give_back(self, size: int) -> None:
        """Free room; called by reservations."""
        with self._has_room:
            self._used -= size
            self._has_room.notify_all()
