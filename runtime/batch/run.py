"""`label_files`: images through the pipeline to files, with a journal of what is finished and a log of what failed.

Memory does not grow with the number of images: records go to `done.jsonl` and to the observer; only sums are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dependencies import read_version
from ...errors import AtrousError, InputError, OutputError
from ..images import decode_image, read_image, read_size, read_transparency
from ..loading import load
from ..pictures import PLAIN, OverlayStyle
from ..pipeline import ItemResult, Pipeline
from ..pipeline.engine import count_cores
from ..pipeline.segmentation import make_stages
from ..segmentation import Segmentation
from ..segmenter import Segmenter
from .images import ENDINGS, ImageJob, Naming, find_jobs, read_jobs
from .journal import FAILURES_NAME, FailureLog, Journal
from .records import BatchObserver, BatchSummary, FailedImage, LabeledImage, add_times
from .results import encode_results, measure_classes, write_results
from .shards import Selection, Shard
from .storage import is_store, open_place, prepare_place
from .streams import is_stream, read_stream
from .todo import Todo, clean_folders, skip_finished

_log = logging.getLogger(__name__)
_VOID = np.uint8(255)


def label_files(
    bundle: str | Path | Segmenter,
    images: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    kinds: Collection[str] = ("labels",),
    style: OverlayStyle = PLAIN,
    recursive: bool = False,
    naming: Naming = "stem",
    all_frames: bool = False,
    ignore_transparent: bool = False,
    is_list: bool = False,
    shard: tuple[int, int] | None = None,
    resume: bool = True,
    cores: int | None = None,
    workers: Mapping[str, int] | None = None,
    batch: int = 1,
    observer: BatchObserver | None = None,
    **load_options: Any,
) -> BatchSummary:
    """Label images and write the results to a folder, as `atrous segment` does: the two resume each other's runs.

    `OUT/done.jsonl` records each image after its files are written. A later call skips it unless the image, the
    bundle, a setting or the size of a result changed. Images that fail are reported in `OUT/failures.jsonl` and to the
    observer; the run continues. After an interruption of any kind, call it again with the same arguments.

    Args:
        bundle: a bundle's folder, or a loaded segmenter, which stays open.
        images: files, folders, glob patterns, addresses of object stores such as "s3://bucket/photos" (objects,
            prefixes, patterns), http(s) addresses, and "-" for an image in standard input. Those of the last two kinds
            are labeled in every run.
        out: the output folder, created if missing, or an address in an object store.
        kinds: the results to write:
            "labels": palette PNG of H x W uint8 labels;
            "overlay": the image tinted by the labels' colors, as `style` says;
            "masks": a folder of one black and white PNG for each class that occurs;
            "coco": JSON with COCO's annotations: category, area, box and run lengths of each class that occurs;
            "probabilities": `.npy`, L x H x W float32, after the CRF if it is on.
        style: opacity, outlines, legend and format of overlays.
        recursive: whether to search the subfolders of folders.
        naming: "stem" for `OUT/photo.png`, "path" for `OUT/folder/photo.jpg.png`.
        all_frames: label every frame of an animation and every page of a file (`OUT/photo_0000.png`), not the first
            alone.
        ignore_transparent: give pixels that are more transparent than opaque the label 255 (void).
        is_list: take `images` as paths of files, read lazily, of any number; every result keeps the whole path of its
            image (`OUT/folder/photo.jpg.png`).
        shard: (I, N) labels only the images of shard I of N, with I from 0, and records them in
            `OUT/done.I-of-N.jsonl`: N processes with the same arguments share the work, in one folder or in several,
            and `merge_runs` joins their records.
        resume: skip the images finished in earlier runs; False forgets them.
        cores: CPU cores to use; None for all.
        workers: numbers of concurrent calls by stage, such as {"crf": 2}; by default 1 for the network and one per
            core for the others.
        batch: largest number of images of one size in a run of the network.
        observer: receives every event.
        load_options: further arguments of `runtime.load` for a bundle given by its folder, such as `backend`,
            `precision` or `crf`.

    Returns:
        The counts of this run.

    Raises:
        InputError: if nothing matches a pattern, two images would share a result, a result would overwrite an image,
            or an argument is invalid.
        BundleError: if the bundle is missing, altered or not what its manifest says.
        BackendError: if the backend is unknown, not installed, or rejects the model.
        OutputError: if a result or the journal cannot be written, another run writes to the folder, or the folder is
            removed during the run.
        KeyboardInterrupt: at Ctrl-C, after the calls in progress are finished and recorded.
    """
    out = open_place(out)
    settings = RunSettings(tuple(dict.fromkeys(kinds)), style, ignore_transparent, batch)
    selection = None if shard is None else Selection((), Shard(*shard), are_own=is_list)
    jobs, total = choose_jobs(
        images,
        out,
        settings,
        is_list=is_list,
        recursive=recursive,
        naming=naming,
        all_frames=all_frames,
        takes=selection.takes if selection is not None else lambda identity: True,
    )
    if selection is not None:
        selection.jobs = jobs
        total = None if is_list else selection.count()
    cores = cores or count_cores()
    with ExitStack() as stack:
        if isinstance(bundle, Segmenter):
            segmenter = bundle
            if load_options:
                raise InputError(f"the bundle is loaded already: pass {', '.join(load_options)} to runtime.load")
        else:
            segmenter = stack.enter_context(load(bundle, threads=cores, **load_options))
        return label_jobs(
            segmenter,
            jobs if selection is None else selection,
            out,
            settings=settings,
            total=total,
            resume=resume,
            cores=cores,
            workers=workers,
            observer=observer or BatchObserver(),
        )


@dataclass(frozen=True)
class RunSettings:
    """Settings of `label_files` that change results, besides those of the segmenter."""

    kinds: tuple[str, ...] = ("labels",)
    style: OverlayStyle = PLAIN
    ignore_transparent: bool = False
    batch: int = 1


def choose_jobs(
    images: str | Path | Iterable[str | Path],
    out: Path,
    settings: RunSettings,
    *,
    is_list: bool,
    recursive: bool,
    naming: Naming,
    all_frames: bool,
    takes: Callable[[str], bool] = lambda identity: True,
) -> tuple[Iterable[ImageJob], int | None]:
    """The jobs of the arguments of `label_files`, and their number; a list is read lazily and has none.

    Of a list, the images whose identity `takes` refuses are left out.
    """
    unknown = [kind for kind in settings.kinds if kind not in ENDINGS]
    if unknown or not settings.kinds:
        raise InputError(f'"{"".join(unknown[:1])}" is not a kind of result: use {", ".join(ENDINGS)}')
    if isinstance(images, str | Path):
        images = [images]
    endings = ENDINGS if settings.style.format == "png" else {**ENDINGS, "overlay": "_overlay.jpg"}
    if is_list:
        return read_jobs(images, out, settings.kinds, endings, takes), None
    found = find_jobs(
        list(images), out, settings.kinds, recursive=recursive, naming=naming, all_frames=all_frames, endings=endings
    )
    return found, len(found)


def label_jobs(
    segmenter: Segmenter,
    jobs: Iterable[ImageJob] | Selection,
    out: Path,
    *,
    settings: RunSettings,
    total: int | None,
    resume: bool,
    cores: int,
    workers: Mapping[str, int] | None,
    observer: BatchObserver,
) -> BatchSummary:
    """Label jobs whose outputs are in `out`; see `label_files`. A selection writes the records of its shard."""
    if "probabilities" in settings.kinds and segmenter.head == "labels":
        raise InputError("this bundle's head gives labels only: it has no probabilities to save")
    summary = BatchSummary()
    observer.started(segmenter, summary, total)
    prepare_place(out)
    shard = jobs.shard if isinstance(jobs, Selection) else None
    described = _describe_settings(segmenter, settings)
    with (
        Journal(out, again=not resume, shard=shard) as journal,
        contextlib.closing(FailureLog(out, shard)) as failures,
    ):
        stages = make_stages(
            segmenter,
            read=_Reader(settings.ignore_transparent),
            read_size=_read_size,
            finish=_Finisher(segmenter, journal, settings.style),
            cores=cores,
            workers=workers,
            probabilities="probabilities" in settings.kinds,
            batch=settings.batch,
        )
        # with shards, temporary files may be those of another process
        cleaned = clean_folders(jobs) if shard is None and not is_store(out) else jobs
        todo = skip_finished(cleaned, journal, described, out, summary, observer)
        pipeline = Pipeline(stages, cores=cores, workers=workers, fatal=(OutputError,))
        try:
            with pipeline:
                for outcome in pipeline.run(todo):
                    if outcome.error is None:
                        summary.labeled += 1
                        add_times(summary.spent_ms, outcome.value.timings_ms)
                        observer.labeled(outcome.value)
                    else:
                        summary.failed += 1
                        observer.failed(_log_failure(outcome, failures))
            journal.check()
            if isinstance(jobs, Selection):
                journal.end(_describe_end(jobs, described, summary))
        finally:
            summary.pipeline = pipeline.report()
    return summary


class _Finisher:
    """Writes an image's files, then its line in the journal: a kill between the two repeats one image."""

    def __init__(self, segmenter: Segmenter, journal: Journal, style: OverlayStyle) -> None:
        self._segmenter, self._manifest, self._journal = segmenter, segmenter.bundle.manifest, journal
        self._style = style

    def __call__(self, item: Todo, image: npt.NDArray[np.uint8], result: Segmentation) -> LabeledImage:
        start_s = time.perf_counter()
        if item.void is not None:
            result = replace(result, labels=np.where(item.void, _VOID, result.labels))
        outputs = dict(item.job.outputs)
        files = encode_results(image, result, self._manifest, outputs, self._style)
        self._journal.check()  # write_file would create a removed folder again
        try:
            write_results(files, self._manifest.classes)
        except OutputError:
            self._journal.check()  # if the folder was removed meanwhile, that is the reason
            raise
        tiles = self._segmenter.plan(image.shape[0], image.shape[1], probabilities="probabilities" in outputs).tiles
        timings_ms = {**result.timings_ms, "encode": (time.perf_counter() - start_s) * 1000}
        record = LabeledImage(
            image=item.job.image,
            height=image.shape[0],
            width=image.shape[1],
            network_size=self._segmenter.sizing.find_size(image.shape[0], image.shape[1]),
            tiles=tiles.describe() if tiles is not None else None,
            outputs=outputs,
            classes=measure_classes(result.labels, self._manifest.classes),
            timings_ms={stage: round(time_ms, 3) for stage, time_ms in timings_ms.items()},
        )
        _log.debug("labeled %s in %.0f ms", item.job.image, sum(timings_ms.values()))
        if item.key is not None:
            entry = {**asdict(record), "outputs": item.names}  # without the folder, which may be moved
            self._journal.add(item.key, sum(map(len, files.values())), entry)
        return record


class _Reader:
    """Reads the image of an item, and with `find_void` its transparent pixels."""

    def __init__(self, find_void: bool) -> None:
        self._find_void = find_void

    def __call__(self, item: Todo) -> npt.NDArray[np.uint8]:
        image, frame = item.job.image, item.job.frame
        if not is_stream(image):
            item.void = read_transparency(image, frame=frame) if self._find_void else None
            return read_image(image, frame=frame)
        content = read_stream(image)
        item.void = read_transparency(content) if self._find_void else None
        return decode_image(content, image)


def _read_size(item: Todo) -> tuple[int, int] | None:
    return None if is_stream(item.job.image) else read_size(item.job.image)


def _describe_settings(segmenter: Segmenter, settings: RunSettings) -> dict[str, Any]:
    """Everything a result depends on besides its image; a change repeats finished images."""
    manifest = segmenter.bundle.manifest.to_json()  # as it was loaded; contains the digests of all files
    return {
        "atrous": read_version("atrous"),
        "bundle": hashlib.sha256(manifest).hexdigest(),
        "backend": segmenter.backend.name,
        "device": segmenter.backend.device,
        "precision": segmenter.precision,
        "size": segmenter.sizing.to_json(),
        "crf": segmenter.crf.to_dict() if segmenter.crf is not None else None,
        "crf_shortcuts": segmenter.crf_shortcuts,
        "batch": settings.batch,
        "kinds": sorted(settings.kinds),
        "ignore_transparent": settings.ignore_transparent,
        "overlay": asdict(settings.style),
    }


def _describe_end(selection: Selection, settings: Mapping[str, Any], summary: BatchSummary) -> dict[str, Any]:
    """The last line of a shard's journal, which `merge_runs` reads."""
    return {
        "at_s": time.time(),
        "settings": settings,
        "listed": asdict(selection.listed),
        "own": asdict(selection.own),
        "labeled": summary.labeled,
        "skipped": summary.skipped,
        "failed": summary.failed,
    }


def _log_failure(outcome: ItemResult, log: FailureLog) -> FailedImage:
    """Write a failure to the log; an error that is not an AtrousError comes with its traceback."""
    image, error = outcome.item.job.image, outcome.error
    if isinstance(error, AtrousError):
        line, details = str(error), {}
    else:
        line = f"{type(error).__name__}: {error} (the traceback is in {FAILURES_NAME})"
        details = {"traceback": outcome.traceback}
    if str(image) not in line:
        line = f"{image}: {line}"
    log.add({"image": str(image), "error": line, "stage": outcome.stage, "type": type(error).__name__, **details})
    return FailedImage(image, line)
