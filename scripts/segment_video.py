"""`atrous segment` of a video, by `runtime.batch.label_video`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..runtime.batch import VideoObserver, VideoSummary, label_video
from ..runtime.segmenter import Segmenter
from . import console
from .size_option import describe_size


class _Progress(VideoObserver):
    """Shows a progress bar; the end of `stack` removes it."""

    segmenter: Segmenter

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._advance: Callable[[int], None] = lambda steps: None

    def started(self, segmenter: Segmenter, summary: VideoSummary, total: int | None) -> None:
        self.segmenter = segmenter
        self._advance = self._stack.enter_context(console.show_progress("segmenting", total, unit="frames"))

    def labeled(self) -> None:
        self._advance(1)


def segment_video(
    bundle: Path,
    source: str,
    out: Path,
    crf_updates: int | None,
    limit_s: float | None,
    cores: int | None,
    options: Mapping[str, Any],
    as_json: bool,
) -> int:
    """Label a video, print a summary, and return the exit code."""
    with contextlib.ExitStack() as stack:
        progress = _Progress(stack)
        summary = label_video(
            bundle,
            source,
            out,
            crf_updates=crf_updates,
            cores=cores,
            limit_s=limit_s,
            observer=progress,
            **options,
        )
    assert summary.pipeline is not None
    segmenter = progress.segmenter
    if as_json:
        report = {**dataclasses.asdict(summary), "pipeline": summary.pipeline.to_json()}
        console.print_json("segment", {"bundle": bundle, "source": source, "out": out, **report})
        return 0
    if line := describe_size(segmenter.sizing):
        console.print_line(line)
    crf = "without a CRF" if segmenter.crf is None else "with the dense CRF"
    if summary.warm_starts:
        crf += f" ({summary.warm_starts} frames from the frame before)"
    damaged = f", {summary.damaged} damaged packets left out" if summary.damaged else ""
    console.print_line(f"{summary.frames} frames labeled {crf}{damaged} -> {out}")
    console.print_line(summary.pipeline.describe_limit())
    return 0
