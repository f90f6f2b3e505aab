"""The records of a run: labeled and failed images, the counts, and the observer that receives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..pipeline import PipelineReport
from ..segmenter import Segmenter


@dataclass(frozen=True)
class LabeledImage:
    """The record of a labeled image, also a line of `done.jsonl`.

    Attributes:
        image: its path or address.
        height, width: in pixels.
        network_size: (height, width) that the network ran at.
        tiles: the tiles of a large image as a phrase, or None if it was labeled whole.
        outputs: the files written, by kind.
        classes: share of the pixels of each class that occurs, largest first, as fractions of 1.
        timings_ms: milliseconds of each stage.
    """

    image: Path | str
    height: int
    width: int
    network_size: tuple[int, int]
    tiles: str | None
    outputs: dict[str, Path]
    classes: dict[str, float]
    timings_ms: dict[str, float]


@dataclass(frozen=True)
class FailedImage:
    """An image that could not be labeled, with the error as one line."""

    image: Path | str
    error: str


@dataclass
class BatchSummary:
    """Counts of a run.

    Attributes:
        labeled: images labeled in this run.
        failed: images that failed.
        skipped: images finished in an earlier run.
        spent_ms: milliseconds by stage, summed over the labeled images.
        pipeline: rates, waiting times and bottleneck; None before the end of the run.
    """

    labeled: int = 0
    failed: int = 0
    skipped: int = 0
    spent_ms: dict[str, float] = field(default_factory=dict)
    pipeline: PipelineReport | None = None


def add_times(total_ms: dict[str, float], timings_ms: Mapping[str, float]) -> None:
    """Add milliseconds by stage to a sum."""
    for stage, time_ms in timings_ms.items():
        total_ms[stage] = total_ms.get(stage, 0.0) + time_ms


class BatchObserver:
    """Ignores the events of a run, in the calling thread; inherit from it and override what you need.

    An exception raised by a method ends the run as Ctrl-C does, and is raised by `label_files`.
    """

    def started(self, segmenter: Segmenter, summary: BatchSummary, total: int | None) -> None:
        """The bundle is loaded and nothing is written yet.

        Args:
            segmenter: the loaded bundle.
            summary: updated during the run.
            total: number of images, None for a list that is read lazily.
        """
        return

    def skipped(self, image: Path | str) -> None:
        """An image was finished in an earlier run."""
        return

    def labeled(self, image: LabeledImage) -> None:
        """The files of an image are written."""
        return

    def failed(self, image: FailedImage) -> None:
        """An image failed; the run continues."""
        return
