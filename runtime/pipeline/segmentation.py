"""The stages of a segmenter: decode, prepare, network, crf (or labels, without a CRF), encode.

Use of the cores (see `.cores`):

* The network has one worker, its backend has one thread per core, and a call needs all cores. (A number of threads
  means the same to every backend for one call at a time only; concurrent calls share them in one and not in another.)
* A CRF call takes all cores too, so the two take turns, as in a loop over single images. If several images wait for
  the CRF, as when a GPU runs the network, their calls divide the cores.
* Decoding, preparing, encoding, and labeling without a CRF do not wait for cores: they are short and run beside the
  others.

Upsampling, softmax and argmax are part of the CRF's stage, which keeps the queued values small: 177 kB instead of 22 MB
for the `lowres` head of a 513 x 513 image. Each stage drops what later stages do not need. Where network and CRF run on
one device, the scores wait in its memory (`Segmenter.keeps_on_device`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..crf_step import RunCrf
from ..segmentation import Image, Segmentation, measure
from ..segmenter import Segmenter
from ..tiles.memory import MemoryGate, Reservation
from .stage import Stage

if TYPE_CHECKING:
    from ..crf import CancelToken

STAGES = ("decode", "prepare", "network", "crf", "encode")

Read = Callable[[Any], Image]
ReadSize = Callable[[Any], tuple[int, int] | None]
Finish = Callable[[Any, Image, Segmentation], Any]
Label = Callable[[Image, Any, int], Segmentation]


@dataclass(frozen=True)
class Choice:
    """The way one item is labeled, where items differ.

    Attributes:
        segmenter: the segmenter of this item.
        probabilities: whether its probabilities are kept.
        token: stops its CRF when another thread cancels it.
        label: what to call instead of `Segmenter.finish`, with image, the head's output and a number of threads.
        raw: the head's output, if it is known: the network does not run.
    """

    segmenter: Segmenter
    probabilities: bool = False
    token: CancelToken | None = None
    label: Label | None = None
    raw: Any = None


@dataclass
class Work:
    """An image between two stages; `result` is set before the last."""

    item: Any
    image: Image
    choice: Choice
    feeds: Mapping[str, Any] = field(default_factory=dict)
    raw: Any = None
    on_device: bool = False  # whether `raw` may stay on the device between network and CRF
    timings_ms: dict[str, float] = field(default_factory=dict)
    memory: Reservation | None = None  # ends with this object, wherever the image leaves the pipeline
    result: Segmentation | None = None


def make_stages(
    segmenter: Segmenter | Sequence[Segmenter],
    *,
    read: Read,
    finish: Finish,
    cores: int,
    workers: Mapping[str, int] | None = None,
    probabilities: bool = False,
    batch: int = 1,
    run_crf: RunCrf | None = None,
    read_size: ReadSize = lambda item: None,
    choose: Callable[[Any], Choice] | None = None,
) -> list[Stage]:
    """Make the stages from an item to the return value of `finish`, which gets item, image and segmentation.

    `run_crf` is what to call instead of `crf.dense_crf`; it needs a single worker if it depends on earlier images.
    Images whose (height, width) `read_size` gives wait before they are decoded until their estimates fit the
    segmenter's memory together. A graph of a fixed batch gets up to that many images per run, whatever `batch` is.
    With several segmenters, which share the cores, `choose` picks the one of each item.
    """
    loaded = [segmenter] if isinstance(segmenter, Segmenter) else list(segmenter)
    if choose is None:
        every = Choice(loaded[0], probabilities)
        choose = lambda item: every  # noqa: E731
    gate = MemoryGate(min(one.memory_bytes for one in loaded))
    batch = max(batch, *(one.fixed_batch or 1 for one in loaded))
    is_local = any(one.backend.device == "cpu" for one in loaded)
    has_crf = any(one.crf is not None for one in loaded)
    networks = (workers or {}).get("network", 1)

    def decode(item: Any) -> Work:
        timings_ms: dict[str, float] = {}
        choice, memory, size = choose(item), None, read_size(item)
        if size is not None:
            memory = gate.reserve(choice.segmenter.plan(*size, probabilities=choice.probabilities).bytes)
        with measure("decode", timings_ms):
            return Work(item, read(item), choice, timings_ms=timings_ms, memory=memory)

    def prepare(work: Work) -> Work:
        choice = work.choice
        work.raw = choice.raw
        if work.raw is None:
            with measure("prepare", work.timings_ms):
                work.feeds = choice.segmenter.prepare(work.image)
            if run_crf is None and choice.label is None:
                size = work.image.shape[0], work.image.shape[1]
                work.on_device = choice.segmenter.keeps_on_device(*size, probabilities=choice.probabilities)
        return work

    def run_network(works: list[Work]) -> list[Work]:
        if not works[0].feeds:  # known, or the network runs in tiles, in the next stage
            return works
        start_s = time.perf_counter()
        feeds, on_device = [work.feeds for work in works], all(work.on_device for work in works)
        outputs = works[0].choice.segmenter.run_network_batch(feeds, on_device=on_device)
        spent_ms = (time.perf_counter() - start_s) * 1000 / len(works)
        for work, output in zip(works, outputs, strict=True):
            work.raw, work.feeds, work.timings_ms["network"] = output, {}, spent_ms
        return works

    def run_network_alone(work: Work) -> Work:
        return run_network([work])[0]

    def label(work: Work, threads: int = 1) -> Work:
        (raw, work.raw), choice = (work.raw, None), work.choice
        if choice.label is not None:
            result = choice.label(work.image, raw, threads)
        else:
            options: dict[str, Any] = {"probabilities": choice.probabilities, "threads": threads}
            result = choice.segmenter.finish(work.image, raw, run_crf=run_crf, token=choice.token, **options)
        work.result = replace(result, timings_ms={**work.timings_ms, **result.timings_ms})
        return work

    def encode(work: Work) -> Any:
        assert work.result is not None
        return finish(work.item, work.image, work.result)

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
            batch_key=lambda work: (id(work.choice.segmenter.backend), *(feed.shape for feed in work.feeds.values())),
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
