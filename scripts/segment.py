"""`atrous segment`: label images with a bundle, by `runtime.batch.label_files`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

import click

from . import console
from .backend_option import backend_options
from .workers_option import workers_option

if TYPE_CHECKING:
    from ..runtime import Segmenter
    from ..runtime.batch import BatchObserver as _Observer
    from ..runtime.batch import BatchSummary, FailedImage, LabeledImage
else:
    _Observer = object  # `--help` must not import the runtime

_SHOWN_IMAGES, _SHOWN_CLASSES = 20, 3
_LEAST_SHARE = 0.005  # of the pixels, for a class to be shown
_ENOUGH_TO_JUDGE = 8  # images before a bottleneck is named


def _parse_kinds(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(","))


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1)
@click.option(
    "--list",
    "listing",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Read the paths of the images from FILE, one per line; - for stdin. Any number of lines.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("labels"),
    show_default=True,
    help="Folder of the results.",
)
@click.option(
    "--save",
    "kinds",
    default="labels",
    show_default=True,
    callback=_parse_kinds,
    metavar="KINDS",
    help="Results to write, separated by commas: labels, overlay, probabilities.",
)
@click.option("--crf/--no-crf", default=None, help="Require the dense CRF, or turn it off.  [default: as the bundle]")
@click.option(
    "--fast-crf",
    is_flag=True,
    help="Use the CRF's shortcuts: faster, and few labels change; `atrous bench` measures how many.",
)
@click.option("-r", "--recursive", is_flag=True, help="Search the subfolders of folders too.")
@backend_options
@click.option("--threads", type=click.IntRange(min=1), help="Number of CPU cores to use.  [default: all]")
@workers_option
@click.option(
    "--batch",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Largest number of images of one size in a run of the network.",
)
@click.option(
    "--resume/--again", default=True, help="Skip the images that are done, or do all again.  [default: resume]"
)
@click.option("--profile", type=click.Path(path_type=Path, dir_okay=False), help="Write a trace file for Perfetto.")
@console.json_option
def command(
    bundle: Path,
    images: tuple[str, ...],
    listing: TextIO | None,
    out: Path,
    kinds: tuple[str, ...],
    crf: bool | None,
    fast_crf: bool,
    recursive: bool,
    backend: str,
    device: str | None,
    precision: str,
    threads: int | None,
    workers: dict[str, int],
    batch: int,
    resume: bool,
    profile: Path | None,
    as_json: bool,
) -> int:
    """Label IMAGES with BUNDLE and write the results to a folder.

    IMAGES are files, folders, or patterns such as "photos/*.jpg". The results of photo.jpg are:

    \b
    labels         OUT/photo.png, one byte per pixel, the label; with the palette
    overlay        OUT/photo_overlay.png, the image tinted by the labels' colors
    probabilities  OUT/photo.npy, float32, labels x height x width, after the CRF

    The labels of folder/photo.jpg in a --list are OUT/folder/photo.jpg.png, and so on.

    OUT/done.jsonl records the finished images: after any interruption, the same command resumes the run.
    OUT/failures.jsonl lists the images of this run that failed. The stages (decode, prepare, network, crf, encode)
    run concurrently; the last line of the output names the slowest.

    The backend torch executes the bundle's own model.py: use it only with bundles from a source you trust.

    Exit codes: 0 all done, 1 some images failed, 2 all failed or bad usage, 3 a library or device is missing,
    130 interrupted by Ctrl-C or SIGTERM, after the images in progress.
    """  # noqa: D301 (click's \b keeps the line breaks)
    from ..dependencies import import_crf
    from ..runtime.batch import label_files
    from ..runtime.pipeline import TraceWriter

    if out.suffix.lower() in (".png", ".jpg", ".npy"):
        raise click.UsageError(f"{out} looks like a file; results go to a folder")
    if bool(images) == (listing is not None):
        raise click.UsageError("give some IMAGES, or a --list of them")
    with contextlib.ExitStack() as stack:
        report = stack.enter_context(_Report(as_json, fast_crf))
        summary = label_files(
            bundle,
            images if listing is None else listing,
            out,
            kinds=kinds,
            recursive=recursive,
            is_list=listing is not None,
            resume=resume,
            cores=threads,
            workers=workers,
            batch=batch,
            trace=stack.enter_context(TraceWriter(profile)) if profile is not None else None,
            observer=report,
            backend=backend,
            device=device,
            precision=precision,
            crf="auto" if crf is None else crf,
            crf_shortcuts=import_crf().FAST if fast_crf else None,
        )
        report.stop_progress()
        report.print_json() if as_json else report.print_text(out)
    return (1 if summary.labeled or summary.skipped else 2) if summary.failed else 0


class _Report(_Observer, contextlib.AbstractContextManager["_Report"]):
    """The observer of a run: progress, one line per failure, the first results for a table or all for JSON."""

    segmenter: Segmenter
    summary: BatchSummary

    def __init__(self, as_json: bool, fast_crf: bool) -> None:
        self._as_json, self._fast_crf = as_json, fast_crf
        self._total: int | None = None
        self._rows: list[LabeledImage] = []
        self._failures: list[dict[str, Any]] = []
        self._spool: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (held for the run)
        self._progress = contextlib.ExitStack()
        self._advance: Callable[[int], None] = lambda steps: None

    def started(self, segmenter: Segmenter, summary: BatchSummary, total: int | None) -> None:
        if self._fast_crf and segmenter.crf is None:
            raise click.UsageError("--fast-crf needs a CRF, and it is off or the bundle has none")
        self.segmenter, self.summary, self._total = segmenter, summary, total
        self._advance = self._progress.enter_context(console.show_progress("segmenting", total, unit="images"))

    def skipped(self, image: Path) -> None:
        self._advance(1)

    def labeled(self, image: LabeledImage) -> None:
        if self._as_json:
            self._spool.write(json.dumps(dataclasses.asdict(image), default=str) + "\n")
        elif len(self._rows) < _SHOWN_IMAGES:
            self._rows.append(image)
        self._advance(1)

    def failed(self, image: FailedImage) -> None:
        console.print_warning(f"atrous segment: {image.error}")
        if self._as_json:
            self._failures.append(dataclasses.asdict(image))
        self._advance(1)

    def stop_progress(self) -> None:
        self._progress.close()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop_progress()
        self._spool.close()
        if kind is KeyboardInterrupt and hasattr(self, "summary"):
            done, left = self.summary, ""
            if self._total is not None:
                left = f", about {self._total - done.labeled - done.failed - done.skipped} left"
            console.print_warning(f"atrous segment: {done.labeled} labeled{left}: the same command resumes the run")

    def print_json(self) -> None:
        assert self.summary.pipeline is not None
        segmenter, summary = self.segmenter, self.summary
        report = {
            "bundle": segmenter.bundle.path,
            "backend": segmenter.backend.name,
            "device": segmenter.backend.device,
            "precision": segmenter.precision,
            "crf": segmenter.crf is not None,
            "crf_shortcuts": segmenter.crf_shortcuts,
            "labeled": summary.labeled,
            "skipped": summary.skipped,
            "failures": self._failures,
            "pipeline": self.summary.pipeline.to_json(),
        }
        console.print_json_rows("segment", report, "images", self._read_spool())

    def _read_spool(self) -> Iterator[Any]:
        self._spool.seek(0)
        return map(json.loads, self._spool)

    def print_text(self, out: Path) -> None:
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
            rows.append((image.image.name, f"{image.width}x{image.height}", f"{time_ms:.0f} ms", shares))
        console.print_table(("image", "size", "time", "classes"), rows)
        if summary.labeled > len(rows):
            console.print_line(f"... and {summary.labeled - len(rows)} more")
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
