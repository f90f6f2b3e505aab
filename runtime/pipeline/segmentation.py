"""The stages of a segmenter: decode, prepare, network, crf (or labels, without a CRF), encode.

Use of the cores (see `.cores`):

* The network has one worker, its backend has one thread per core, and a call needs all cores. (A number of threads
  means the same to every backend for one call at a time only; concurrent calls share them in one and not in another.)
* A CRF call takes all cores too, so the two take turns, as in a loop over single images. If several images wait for
  the CRF, as when a GPU runs the network, their calls divide the cores.
* Decoding, preparing, encoding, and labeling without a CRF do not wait for cores: they are short and run beside the
  others.

Upsampling, softmax and argmax are part of the CRF's stage, which keeps the queued values small: 177 kB instead of 22 MB
for the `lowres` head of a 513 x 513 image. Each stage drops what later stages do not need.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..segmentation import Image, Segmentation, measure
from ..segmenter import RunCrf, Segmenter
from ..tiles.memory import MemoryGate, Reservation
from .stage import Stage

STAGES = ("decode", "prepare", "network", "crf", "encode")

Read = Callable[[Any], Image]
ReadSize = Callable[[Any], tuple[int, int] | None]
Finish = Callable[[Any, Image, Segmentation], Any]


@dataclass
class _Work:
    """An image between two stages."""

    item: Any
    image: Image
    feeds: Mapping[str, Any] = field(default_factory=dict)
    raw: Any = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    memory: Reservation | None = None  # ends with this object, wherever the image leaves the pipeline


def make_stages(
    segmenter: Segmenter,
    *,
    read: Read,
    finish: Finish,
    cores: int,
    workers: Mapping[str, int] | None = None,
    probabilities: bool = False,
    batch: int = 1,
    run_crf: RunCrf | None = None,
    read_size: ReadSize = lambda item: None,
) -> list[Stage]:
    """Make the stages from an item to the return value of `finish`, which gets item, image and segmentation.

    `run_crf` is what to call instead of `crf.dense_crf`; it needs a single worker if it depends on earlier images.
    Images whose (height, width) `read_size` gives wait before they are decoded until their estimates fit the
    segmenter's memory together. A graph of a fixed batch gets up to that many images per run, whatever `batch` is.
    """
    gate = MemoryGate(segmenter.memory_bytes)
    batch = max(batch, segmenter.fixed_batch or 1)
    is_local, has_crf = segmenter.backend.device == "cpu", segmenter.crf is not None
    networks = (workers or {}).get("network", 1)

    def decode(item: Any) -> _Work:
        timings_ms: dict[str, float] = {}
        memory, size = None, read_size(item)
        if size is not None:
            memory = gate.reserve(segmenter.plan(*size, probabilities=probabilities).bytes)
        with measure("decode", timings_ms):
            return _Work(item, read(item), timings_ms=timings_ms, memory=memory)

    def prepare(work: _Work) -> _Work:
        with measure("prepare", work.timings_ms):
            work.feeds = segmenter.prepare(work.image)
        return work

    def run_network(works: list[_Work]) -> list[_Work]:
        if not works[0].feeds:  # the network runs in tiles, in the next stage
            return works
        start_s = time.perf_counter()
        outputs = segmenter.run_network_batch([work.feeds for work in works])
        spent_ms = (time.perf_counter() - start_s) * 1000 / len(works)
        for work, output in zip(works, outputs, strict=True):
            work.raw, work.feeds, work.timings_ms["network"] = output, {}, spent_ms
        return works

    def run_network_alone(work: _Work) -> _Work:
        return run_network([work])[0]

    def label(work: _Work, threads: int = 1) -> tuple[_Work, Segmentation]:
        raw, work.raw = work.raw, None
        result = segmenter.finish(work.image, raw, probabilities=probabilities, threads=threads, run_crf=run_crf)
        return work, replace(result, timings_ms={**work.timings_ms, **result.timings_ms})

    def encode(labeled: tuple[_Work, Segmentation]) -> Any:
        work, result = labeled
        return finish(work.item, work.image, result)

    smaller = "smaller images, a bundle in fp16 or int8 (--precision)"
    return [
        Stage("decode", decode, waits=False, hint="smaller files, or faster storage for the images"),
        Stage("prepare", prepare, waits=False),
        Stage(
            "network",
            run_network_alone if batch == 1 else run_network,
            max_workers=networks,
            cores=max(1, cores // networks) if is_local else 0,
            batch=batch,
            batch_key=lambda work: tuple(feed.shape for feed in work.feeds.values()),
            hint=f"{smaller}, a GPU" if is_local else f"{smaller}, batches (--batch)",
        ),
        Stage(
            "crf" if has_crf else "labels",
            label,
            waits=has_crf,
            max_cores=cores if has_crf else None,
            hint="more cores, fewer iterations or a smaller image" if has_crf else "",
        ),
        Stage("encode", encode, waits=False, hint="fewer kinds of results, or a faster disk"),
    ]
