"""The images that the page holds: the network's scores of each, and the CRF that its sliders run again.

An image has a random name that only its page knows. The store is bounded: the least recently used image is dropped, and
only the most recent ones keep the CRF's arrays; the others make them again.
"""

from __future__ import annotations

import gzip
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import RequestError
from ..pipeline.segmentation import Choice
from ..segmentation import Image, Labels, Segmentation, measure
from ..segmenter import Segmenter
from ..tiles.run import take_labels
from .engine import Job
from .jobs import Answer, FileJob
from .models import Model

MAX_PIXELS = 1 << 21  # of an image on the page; it shrinks larger ones
KINDS = ("preview", "fast", "exact")

_MOST_REFINED = 2  # images with the CRF's arrays, about 100 MB each for 513x513 and 21 classes
_LIFETIME_S = 900.0  # without a move
_HEADER = "X-Atrous"


@dataclass(eq=False)
class PageImage:
    """An image on the page, the network's output for it, and the CRF of each resolution."""

    segmenter: Segmenter
    image: Image
    raw: Any
    used_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    refiners: dict[int, Any] = field(default_factory=dict)

    def label(self, segmenter: Segmenter, kind: str, token: Any) -> Labels:
        """The labels with the CRF of a segmenter, or without one.

        Args:
            segmenter: derived from this image's; only its CRF counts.
            kind: "exact", "fast" (full size, by the CRF's shortcuts) or "preview" (the same at half the size).
            token: stops the CRF when it is cancelled.
        """
        if segmenter.crf is None:
            return segmenter.finish(self.image, self.raw, crf=False).labels
        reduce = 2 if kind == "preview" else 1
        with self.lock:
            if reduce not in self.refiners:
                self.refiners[reduce] = self.segmenter.make_refiner(self.image, self.raw, reduce=reduce)
            belief = self.refiners[reduce](segmenter.crf, fast=kind != "exact", token=token)
        labels: Labels = np.empty(belief.shape[1:], np.uint8)
        take_labels(belief, labels)
        return labels

    def forget(self) -> None:
        """Free the CRF's arrays."""
        with self.lock:
            self.refiners.clear()


class PageImages:
    """The images by their random names; safe for threads."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._images: OrderedDict[str, PageImage] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, image: PageImage) -> str:
        """Keep an image, and return its name."""
        name = secrets.token_urlsafe(18)
        with self._lock:
            self._images[name] = image
            left = self._touch(name)
        for one in left:
            one.forget()
        return name

    def find(self, name: str) -> PageImage:
        """The image of a name; RequestError 404 if it was dropped."""
        with self._lock:
            if name not in self._images:
                raise RequestError("the server no longer has this image: send it again", status=404)
            left = self._touch(name)
            image = self._images[name]
        for one in left:
            one.forget()
        return image

    def remove(self, name: str) -> None:
        """Drop an image, if it is there."""
        with self._lock:
            self._images.pop(name, None)

    def _touch(self, name: str) -> list[PageImage]:
        """Make an image the most recent; returns those that must free the CRF's arrays."""
        now_s = self._images[name].used_s = time.monotonic()
        self._images.move_to_end(name)
        while len(self._images) > self._capacity:
            self._images.popitem(last=False)
        for old in [key for key, one in self._images.items() if now_s - one.used_s > _LIFETIME_S]:
            del self._images[old]
        return list(self._images.values())[:-_MOST_REFINED]


class OpenImageJob(FileJob):
    """An image is dropped on the page: label it, and keep it; the result is an `Answer` with the labels."""

    def __init__(
        self,
        model: Model,
        body: bytes,
        headers: Mapping[str, str],
        parameters: Mapping[str, Any],
        images: PageImages,
        *,
        max_pixels: int,
        max_bytes: int,
    ) -> None:
        super().__init__(body, headers, max_pixels=min(max_pixels, MAX_PIXELS), max_bytes=max_bytes)
        self._model, self._parameters, self._images = model, parameters, images
        self._kept: PageImage | None = None

    def choose(self) -> Choice:
        """Find the file in the body, and how to label it."""
        self.open_body()
        segmenter = self._model.choose(self._parameters)

        def label(image: Image, raw: Any, threads: int) -> Segmentation:
            if raw is None:
                raise RequestError("the image is too large for this machine's page: use /segment", status=413)
            timings_ms: dict[str, float] = {}
            self._kept = PageImage(self._model.segmenter, image, raw)
            with measure("crf" if segmenter.crf is not None else "labels", timings_ms):
                return Segmentation(self._kept.label(segmenter, "exact", self.token), None, timings_ms)

        return Choice(segmenter, token=self.token, label=label)

    def finish(self, image: Image, result: Segmentation) -> Answer:
        """The labels, with the image's name."""
        assert self._kept is not None
        return encode_labels(result.labels, {"image": self._images.add(self._kept)}, self.timings_ms)


class RefineJob(Job):
    """A slider has moved: label an image of the page again, without the network."""

    def __init__(self, model: Model, image: PageImage, parameters: Mapping[str, Any], kind: str) -> None:
        super().__init__()
        if kind not in KINDS:
            raise RequestError(f'"kind" must be one of {", ".join(KINDS)}')
        self._model, self._image, self._parameters, self._kind = model, image, parameters, kind

    def choose(self) -> Choice:
        """Choose the CRF's parameters."""
        segmenter = self._model.choose(self._parameters)

        def label(image: Image, raw: Any, threads: int) -> Segmentation:
            return Segmentation(self._image.label(segmenter, self._kind, self.token), None, {})

        return Choice(self._image.segmenter, token=self.token, label=label, raw=self._image.raw)

    def read(self) -> Image:
        """The image, which is decoded already."""
        return self._image.image

    def finish(self, image: Image, result: Segmentation) -> Answer:
        """The labels."""
        return encode_labels(result.labels, {}, self.timings_ms)


def encode_labels(labels: npt.NDArray[np.uint8], more: Mapping[str, Any], timings_ms: Mapping[str, float]) -> Answer:
    """Labels as bytes in gzip, with their size, `more` and the times in a header of JSON."""
    body = gzip.compress(labels.tobytes(), 1, mtime=0)
    times = {name: round(spent, 1) for name, spent in timings_ms.items()}
    described = {"height": labels.shape[0], "width": labels.shape[1], "ms": times, **more}
    headers = {"Content-Type": "application/octet-stream", "Content-Encoding": "gzip", _HEADER: json.dumps(described)}
    return Answer(body, headers)
