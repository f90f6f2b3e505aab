"""A segmenter's way from an image file's bytes to a label file's bytes, timed stage by stage."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from ..pictures import encode_label_png
from ..segmenter import Labels, Segmenter
from .clocks import Clock
from .results import StageName

ON_CPU = "the network reads and writes the host's memory: nothing is copied to a device"
NO_QUEUE = "the call computes and returns when it is done: nothing is enqueued"
NO_EVENTS = "this backend gives no events of its device: its copies are inside compute"
INSIDE_CRF = "done inside the CRF's stage"
IN_NETWORK = "the network gives labels itself"
NETWORK_STAGES = ("enqueue", "h2d", "compute", "d2h")


@runtime_checkable
class TimedBackend(Protocol):
    """A backend that times the parts of a run by its device's events."""

    @property
    def last_timings_ms(self) -> Mapping[str, float]:
        """Of this thread's last run: "enqueue" on the host's clock, "h2d", "compute" and "d2h" on the device's."""


@dataclass(frozen=True)
class Sample:
    """One image of a benchmark.

    Attributes:
        name: of its file.
        encoded: the file's bytes, so that reading it is decoding, not the disk.
        image: H x W x 3 uint8 RGB.
        truth: H x W uint8 labels, 255 where none; None where there are no labels.
    """

    name: str
    encoded: bytes
    image: npt.NDArray[np.uint8]
    truth: Labels | None = None


class SegmenterRunner:
    """Takes images through a segmenter."""

    def __init__(self, segmenter: Segmenter, samples: Sequence[Sample], clock: Clock):
        """Join a segmenter and its images; `clock` times what neither the segmenter nor its backend times itself."""
        self._segmenter = segmenter
        self._samples = samples
        self._clock = clock
        self._timed = segmenter.backend if isinstance(segmenter.backend, TimedBackend) else None
        self.has_device_events = self._timed is not None
        self.absent = self._list_absent()

    def run(self, item: int) -> Mapping[StageName, float]:
        """Process one image; milliseconds by stage."""
        sample, segmenter, clock = self._samples[item], self._segmenter, self._clock
        begin_ns = clock.now_ns()
        image = decode(sample.encoded)
        decoded_ns = clock.now_ns()
        feeds = segmenter.prepare(image)
        prepared_ns = clock.now_ns()
        raw = segmenter.run_network(feeds)
        computed_ns = clock.now_ns()
        result = segmenter.finish(image, raw)
        finished_ns = clock.now_ns()
        encode_label_png(result.labels, segmenter.bundle.manifest.palette)
        encoded_ns = clock.now_ns()
        network_ms: Mapping[str, float] = {"compute": (computed_ns - prepared_ns) / 1e6}
        if self._timed is not None:
            found_ms = self._timed.last_timings_ms
            network_ms = {name: found_ms[name] for name in NETWORK_STAGES if name in found_ms}
        found = {
            "decode": (decoded_ns - begin_ns) / 1e6,
            "prepare": (prepared_ns - decoded_ns) / 1e6,
            **network_ms,
            **result.timings_ms,
            "encode": (encoded_ns - finished_ns) / 1e6,
        }
        return cast("dict[StageName, float]", found)

    def _list_absent(self) -> dict[StageName, str]:
        segmenter = self._segmenter
        absent: dict[StageName, str] = {}
        if self._timed is None:
            absent["enqueue"] = NO_QUEUE
            absent["h2d"] = absent["d2h"] = ON_CPU if segmenter.backend.device == "cpu" else NO_EVENTS
        if segmenter.head == "labels":
            absent["scores"] = absent["labels"] = IN_NETWORK
        if segmenter.crf is None:
            absent["crf"] = "the CRF is off"
        elif segmenter.head == "lowres":
            absent["scores"] = INSIDE_CRF
        return absent


def decode(encoded: bytes) -> npt.NDArray[np.uint8]:
    """A plain RGB picture's bytes to H x W x 3 uint8 RGB."""
    with PillowImage.open(io.BytesIO(encoded)) as picture:
        return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))
