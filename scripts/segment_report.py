"""The output of `atrous segment`: progress, one line per failure, then a table and a summary, or one JSON object."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import click

from ..runtime.backends.preprocessed import PreprocessedBackend, describe_pixels
from ..runtime.batch import BatchObserver, BatchSummary, FailedImage, LabeledImage
from ..runtime.segmenter import Segmenter
from ..runtime.tiles.planner import write_size
from . import console
from .size_option import describe_size

_PIXELS = {"color_order", "mean", "scale"}
_SHOWN_IMAGES, _SHOWN_CLASSES = 20, 3
_LEAST_SHARE = 0.005  # of the pixels, for a class to be shown
_ENOUGH_TO_JUDGE = 8  # images before a bottleneck is named


class SegmentReport(BatchObserver):
    """The observer of a run, and a context manager that ends the progress bar and reports an interruption."""

    segmenter: Segmenter
    summary: BatchSummary

    def __init__(self, as_json: bool, fast_crf: bool) -> None:
        """Report as text or JSON; `fast_crf` rejects a run without a CRF."""
        self._as_json, self._fast_crf = as_json, fast_crf
        self._total: int | None = None
        self._rows: list[LabeledImage] = []
        self._failures: list[dict[str, Any]] = []
        self._tiled, self._tiles = 0, ""  # images labeled in tiles, and the tiles of the first
        self._far_sizes, self._far = 0, ""  # images of a size far from the net's, and the first one's warning
        self._spool: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (held for the run)
        self._progress = contextlib.ExitStack()
        self._advance: Callable[[int], None] = lambda steps: None

    def started(self, segmenter: Segmenter, summary: BatchSummary, total: int | None) -> None:
        """Start the progress bar."""
        if self._fast_crf and segmenter.crf is None:
            raise click.UsageError("--fast-crf needs a CRF, and it is off or the bundle has none")
        self.segmenter, self.summary, self._total = segmenter, summary, total
        self._advance = self._progress.enter_context(console.show_progress("segmenting", total, unit="images"))

    def skipped(self, image: Path | str) -> None:
        """Advance the progress bar."""
        self._advance(1)

    def labeled(self, image: LabeledImage) -> None:
        """Keep the record: all on disk for JSON, the first ones for the table."""
        if image.tiles is not None:
            self._tiles = self._tiles or f"{image.image}: {image.tiles}"
            self._tiled += 1
        warning = self.segmenter.sizing.find_warning(image.height, image.width)
        if warning is not None:
            self._far = self._far or f"{image.image}: {warning}"
            self._far_sizes += 1
        if self._as_json:
            self._spool.write(json.dumps(dataclasses.asdict(image), default=str) + "\n")
        elif len(self._rows) < _SHOWN_IMAGES:
            self._rows.append(image)
        self._advance(1)

    def failed(self, image: FailedImage) -> None:
        """Print the error as one line."""
        console.print_warning(f"atrous segment: {image.error}")
        if self._as_json:
            self._failures.append(dataclasses.asdict(image))
        self._advance(1)

    def stop_progress(self) -> None:
        """Remove the progress bar."""
        self._progress.close()

    def print_warnings(self) -> None:
        """Print one warning for all images of a size far from the one the net was made for."""
        if self._far:
            more = f" (and {self._far_sizes - 1} more images)" if self._far_sizes > 1 else ""
            console.print_warning(f"warning: {self._far}{more}")

    def __enter__(self) -> SegmentReport:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the progress bar, and print how to resume after an interruption."""
        self.stop_progress()
        self._spool.close()
        if kind is KeyboardInterrupt and hasattr(self, "summary"):
            done, left = self.summary, ""
            if self._total is not None:
                left = f", about {self._total - done.labeled - done.failed - done.skipped} left"
            console.print_warning(f"atrous segment: {done.labeled} labeled{left}: the same command resumes the run")

    def print_json(self) -> None:
        """Print one JSON object with the records of all images."""
        assert self.summary.pipeline is not None
        segmenter, summary = self.segmenter, self.summary
        report = {
            "bundle": segmenter.bundle.path,
            "backend": segmenter.backend.name,
            "device": segmenter.backend.device,
            "precision": segmenter.precision,
            "crf": segmenter.crf is not None,
            "crf_shortcuts": segmenter.crf_shortcuts,
            "size": segmenter.sizing.to_json(),
            "preprocessing": segmenter.bundle.preprocessing.model_dump(mode="json", include=_PIXELS),
            "labeled": summary.labeled,
            "skipped": summary.skipped,
            "failures": self._failures,
            "pipeline": self.summary.pipeline.to_json(),
        }
        console.print_json_rows("segment", report, "images", self._read_spool())

    def _read_spool(self) -> Iterator[Any]:
        self._spool.seek(0)
        return map(json.loads, self._spool)

    def print_text(self, out: str) -> None:
        """Print a table of the first images and a summary."""
        segmenter, summary = self.segmenter, self.summary
        again = f"{summary.skipped} were done before (--again does them again)"
        if not summary.labeled:
            if summary.skipped:
                console.print_line(f"{again} -> {out}")
            return  # each failure has had its line
        rows = []
        for image in self._rows:
            largest = [(name, share) for name, share in image.classes.items() if share >= _LEAST_SHARE]
            shares = ", ".join(f"{name} {share:.0%}" for name, share in largest[:_SHOWN_CLASSES])
            time_ms = sum(image.timings_ms.values())
            rows.append((Path(image.image).name, f"{image.width}x{image.height}", f"{time_ms:.0f} ms", shares))
        console.print_table(("image", "size", "time", "classes"), rows)
        if summary.labeled > len(rows):
            console.print_line(f"... and {summary.labeled - len(rows)} more")
        if (size := describe_size(segmenter.sizing)) is not None:
            console.print_line(size)
        if self._tiles:
            more = f" (and {self._tiled - 1} more images)" if self._tiled > 1 else ""
            console.print_line(f"{self._tiles}, within {write_size(segmenter.memory_bytes)}{more}")
        if isinstance(segmenter.backend, PreprocessedBackend):
            tried = describe_pixels(segmenter.bundle.preprocessing)
            console.print_line(f"tried {tried}: convert the net again with these options to keep them")
        stages = ["network"] + (["crf"] if segmenter.crf is not None else [])
        times = ", ".join(f"{name} {summary.spent_ms[name] / summary.labeled:.0f} ms" for name in stages)
        crf = "with the dense CRF" if segmenter.crf is not None else "without a CRF"
        crf += " and its shortcuts" if segmenter.crf_shortcuts else ""
        failed = f", {summary.failed} failed (see failures.jsonl)" if summary.failed else ""
        console.print_line(f"{summary.labeled} labeled {crf}{failed} (on average: {times}) -> {out}")
        if summary.skipped:
            console.print_line(again)
        if summary.labeled >= _ENOUGH_TO_JUDGE and summary.pipeline is not None:
            console.print_line(summary.pipeline.describe_limit())
