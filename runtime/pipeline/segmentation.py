"""The stages of a segmenter: decode, prepare, network, crf (or labels, without one), encode.

Upsampling, softmax and argmax are done in the CRF's stage, so that what waits in the queues is small: of a `lowres`
head 177 kB for a 513 x 513 image, not 22 MB. What a stage no longer needs is dropped there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..segmenter import Image, Segmentation, Segmenter
from .engine import count_cores
from .stage import Stage

STAGES = ("decode", "prepare", "network", "crf", "encode")
_MOST_NETWORKS = 4  # runs of the network at once on a CPU: each has activations of its own

Read = Callable[[Any], Image]
Finish = Callable[[Any, Image, Segmentation], Any]


@dataclass(frozen=True)
class Threads:
    """How the cores are shared out: the most workers of network and CRF, and the threads of one call of each."""

    cores: int
    network_workers: int
    network: int
    crf_workers: int
    crf: int


@dataclass
class _Work:
    """An image between two stages."""

    item: Any
    image: Image
    feeds: Mapping[str, Any] = field(default_factory=dict)
    raw: Any = None
    result: Segmentation | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)


def share_cores(
    cores: int | None = None,
    *,
    images: int | None = None,
    device: str = "cpu",
    workers: Mapping[str, int] | None = None,
) -> Threads:
    """Share the cores out: images side by side with a thread each where there are enough, else threads within one.

    Args:
        cores: None for all this process may use.
        images: how many there are, if that is known.
        device: where the network runs; off the CPU it has one worker.
        workers: worker counts that are fixed, by stage.
    """
    total = cores or count_cores()
    side_by_side = total if images is None else max(1, min(total, images))
    fixed = workers or {}
    networks = fixed.get("network", min(side_by_side, _MOST_NETWORKS) if device == "cpu" else 1)
    crfs = fixed.get("crf", side_by_side)
    return Threads(total, networks, max(1, total // networks), crfs, max(1, total // crfs))


def make_stages(
    segmenter: Segmenter,
    *,
    read: Read,
    finish: Finish,
    threads: Threads,
    probabilities: bool = False,
    batch: int = 1,
) -> list[Stage]:
    """The stages from an item to what `finish` makes of its labels.

    Args:
        segmenter: loaded with `threads=threads.network`.
        read: an item to its image, H x W x 3 uint8 RGB; the stage "decode".
        finish: item, image and segmentation to the outcome's value, e.g. by writing files; the stage "encode".
        threads: from `share_cores`.
        probabilities: whether `finish` needs the probabilities too.
        batch: how many images of one size the network may take in one run; their scores then may differ from those
            of single runs in the last bits.
    """
    is_local = segmenter.backend.device == "cpu"

    def decode(item: Any) -> _Work:
        start_s = time.perf_counter()
        return _timed("decode", _Work(item, read(item)), start_s)

    def prepare(work: _Work) -> _Work:
        start_s = time.perf_counter()
        work.feeds = segmenter.prepare(work.image)
        return _timed("prepare", work, start_s)

    def run_network(work: _Work) -> _Work:
        return run_batch([work])[0]

    def run_batch(works: list[_Work]) -> list[_Work]:
        start_s = time.perf_counter()
        outputs = segmenter.run_network_batch([work.feeds for work in works])
        for work, output in zip(works, outputs, strict=True):
            work.raw, work.feeds = output, {}
            _timed("network", work, start_s, len(works))
        return works

    def label(work: _Work) -> _Work:
        work.result = segmenter.finish(work.image, work.raw, probabilities=probabilities, threads=threads.crf)
        work.raw = None
        work.timings_ms.update(work.result.timings_ms)
        return work

    def encode(work: _Work) -> Any:
        assert work.result is not None
        result = Segmentation(work.result.labels, work.result.probabilities, work.timings_ms)
        return finish(work.item, work.image, result)

    smaller = "smaller images, a bundle in fp16 or int8 (--precision)"
    return [
        Stage("decode", decode, hint="smaller files, or images stored nearer"),
        Stage("prepare", prepare),
        Stage(
            "network",
            run_network if batch == 1 else run_batch,
            max_workers=threads.network_workers,
            cores=threads.network if is_local else 0,
            batch=batch,
            batch_key=lambda work: work.image.shape,
            hint=f"{smaller}, a GPU" if is_local else f"{smaller}, batches (--batch)",
        ),
        Stage(
            "crf" if segmenter.crf is not None else "labels",
            label,
            max_workers=threads.crf_workers,
            cores=threads.crf,
            hint="more cores, fewer iterations or a smaller image" if segmenter.crf is not None else "",
        ),
        Stage("encode", encode, hint="fewer kinds of results, or a faster disk"),
    ]


def _timed(stage: str, work: _Work, start_s: float, share: int = 1) -> _Work:
    work.timings_ms[stage] = (time.perf_counter() - start_s) * 1000 / share
    return work
