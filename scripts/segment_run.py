"""What `atrous segment` does with its images: the pipeline, what is already done, failures, a summary.

Memory does not grow with the number of images: records of finished images go to `done.jsonl` and, for `--json`, to a
temporary file; only sums and the first rows are kept.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..runtime import Manifest, Segmentation, Segmenter
    from ..runtime.pipeline import ItemResult, PipelineReport, TraceWriter
    from ..runtime.pipeline.journal import FailureLog, Journal
    from .image_list import ImageJob

_KEPT_ROWS = 20


@dataclass(frozen=True)
class RunOptions:
    """How images are worked on.

    Attributes:
        out: the folder of the results.
        kinds: what is written for each image.
        cores: of all stages together.
        workers: fixed worker counts by stage.
        batch: how many images of one size the network may take in one run.
        again: whether to do again what is done.
        precision: what the network was asked to compute in.
        trace: where the calls of the stages are written.
    """

    out: Path
    kinds: tuple[str, ...]
    cores: int
    precision: str = "fp32"
    workers: Mapping[str, int] = field(default_factory=dict)
    batch: int = 1
    again: bool = False
    trace: TraceWriter | None = None


@dataclass
class Summary:
    """What became of the images of one run.

    Attributes:
        done: how many were labelled now.
        failed: how many failed.
        skipped: how many were done before.
        rows: the records of the first ones.
        spent_ms: milliseconds by stage, summed over the images.
        report: the pipeline's own.
    """

    done: int = 0
    failed: int = 0
    skipped: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    spent_ms: dict[str, float] = field(default_factory=dict)
    report: PipelineReport | None = None


class Spool:
    """Records on their way to the JSON output, on disk."""

    def __init__(self) -> None:
        self._file: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (held for the run)

    def add(self, record: Mapping[str, Any]) -> None:
        """Keep a record."""
        self._file.write(json.dumps(record, default=str) + "\n")

    def __iter__(self) -> Iterator[Any]:
        """The records, in the order they came."""
        self._file.seek(0)
        for line in self._file:
            yield json.loads(line)

    def close(self) -> None:
        """Drop them."""
        self._file.close()


def run_segmenter(
    segmenter: Segmenter,
    jobs: Iterable[ImageJob],
    options: RunOptions,
    summary: Summary,
    *,
    on_done: Callable[[dict[str, Any]], None],
    on_failure: Callable[[dict[str, Any]], None],
    advance: Callable[[int], None],
) -> None:
    """Work through images.

    Args:
        segmenter: a loaded bundle.
        jobs: the images, read lazily.
        options: how to work on them.
        summary: kept up to date, so that it tells what was done also after an interruption.
        on_done: gets the record of each image labelled, in order.
        on_failure: gets {"image", "error"} of each that failed.
        advance: gets 1 for each image that is over, skipped ones too.

    Raises:
        OutputError: if a result cannot be written; an image that fails does not end the work.
        KeyboardInterrupt: after the calls under way are finished; the next run goes on from there.
    """
    from ..errors import OutputError
    from ..runtime.pipeline import Pipeline
    from ..runtime.pipeline.journal import FailureLog, Journal
    from ..runtime.pipeline.segmentation import make_stages

    with Journal(options.out, again=options.again) as journal:
        failures = FailureLog(options.out)
        stages = make_stages(
            segmenter,
            read=_read_job,
            finish=_Finisher(segmenter.bundle.manifest, journal),
            cores=options.cores,
            workers=options.workers,
            probabilities="probabilities" in options.kinds,
            batch=options.batch,
        )
        settings = describe_settings(segmenter, options)
        todo = _leave_out_done(jobs, journal, settings, options.out, summary, advance)
        pipeline = Pipeline(
            stages, cores=options.cores, workers=options.workers, fatal=(OutputError,), trace=options.trace
        )
        try:
            with pipeline:
                for outcome in pipeline.run(todo):
                    if outcome.error is None:
                        _count(summary, outcome.value)
                        on_done(outcome.value)
                    else:
                        summary.failed += 1
                        on_failure(_note_failure(outcome, failures))
                    advance(1)
        finally:
            failures.close()
            summary.report = pipeline.report()


def describe_settings(segmenter: Segmenter, options: RunOptions) -> dict[str, Any]:
    """All that a result depends on, other than its image: a change makes images to be done again."""
    import hashlib

    from ..bundle.manifest import MANIFEST_NAME
    from ..dependencies import read_version

    manifest = (segmenter.bundle.path / MANIFEST_NAME).read_bytes()  # it holds the digests of all files
    return {
        "atrous": read_version("atrous"),
        "bundle": hashlib.sha256(manifest).hexdigest(),
        "backend": segmenter.backend.name,
        "device": segmenter.backend.device,
        "precision": options.precision,
        "crf": segmenter.crf.to_dict() if segmenter.crf is not None else None,
        "crf_shortcuts": segmenter.crf_shortcuts,
        "batch": options.batch,
        "kinds": sorted(options.kinds),
    }


def encode_results(image: Any, result: Segmentation, manifest: Manifest, kinds: Sequence[str]) -> dict[str, bytes]:
    """The files of one image, by kind of result."""
    import io

    import numpy as np

    from ..runtime import pictures

    files: dict[str, bytes] = {}
    if "labels" in kinds:
        files["labels"] = pictures.encode_label_png(result.labels, manifest.palette)
    if "overlay" in kinds:
        files["overlay"] = pictures.encode_png(pictures.make_overlay(image, result.labels, manifest.palette))
    if "probabilities" in kinds:
        assert result.probabilities is not None
        buffer = io.BytesIO()
        np.save(buffer, result.probabilities, allow_pickle=False)
        files["probabilities"] = buffer.getvalue()
    return files


def measure_classes(labels: Any, classes: Sequence[str]) -> dict[str, float]:
    """The share of pixels of each class that occurs, largest first."""
    import numpy as np

    counts = np.bincount(labels.ravel(), minlength=len(classes))
    order = np.argsort(-counts, kind="stable")
    return {classes[index]: float(counts[index] / labels.size) for index in order if counts[index]}


@dataclass(frozen=True)
class _Todo:
    """An image to be labelled, and the key it will be known by; None for a file that cannot even be looked at."""

    job: ImageJob
    key: str | None


class _Finisher:
    """Writes an image's files, then its line in the journal: a kill between the two costs one image done twice."""

    def __init__(self, manifest: Manifest, journal: Journal) -> None:
        self._manifest = manifest
        self._journal = journal

    def __call__(self, item: _Todo, image: Any, result: Segmentation) -> dict[str, Any]:
        from ..bundle.files import write_file

        start_s = time.perf_counter()
        files = encode_results(image, result, self._manifest, tuple(item.job.outputs))
        for kind, content in files.items():
            write_file(item.job.outputs[kind], content)
        encode_ms = (time.perf_counter() - start_s) * 1000
        record = {
            "image": item.job.image,
            "height": image.shape[0],
            "width": image.shape[1],
            "outputs": dict(item.job.outputs),
            "classes": measure_classes(result.labels, self._manifest.classes),
            "timings_ms": {
                stage: round(time_ms, 3) for stage, time_ms in {**result.timings_ms, "encode": encode_ms}.items()
            },
        }
        if item.key is not None:
            plain = {**record, "outputs": {kind: str(path) for kind, path in item.job.outputs.items()}}
            self._journal.add(item.key, sum(map(len, files.values())), plain)
        return record


def _read_job(item: _Todo) -> Any:
    from ..runtime import read_image

    return read_image(item.job.image)


def _leave_out_done(
    jobs: Iterable[ImageJob],
    journal: Journal,
    settings: Mapping[str, Any],
    out: Path,
    summary: Summary,
    advance: Callable[[int], None],
) -> Iterator[_Todo]:
    from ..bundle.files import remove_leftovers
    from ..runtime.pipeline.journal import make_key

    settings_key, folders = make_key(settings), set()
    for job in jobs:
        for path in job.outputs.values():
            if path.parent not in folders:
                folders.add(path.parent)
                remove_leftovers(path.parent)
        try:
            found = os.stat(job.image)
        except OSError:
            yield _Todo(job, None)  # reading it will tell
            continue
        key = make_key(
            [
                settings_key,
                os.path.abspath(job.image),
                found.st_size,
                found.st_mtime_ns,
                {kind: os.path.relpath(path, out) for kind, path in job.outputs.items()},
            ]
        )
        if journal.is_done(key, job.outputs.values()):
            summary.skipped += 1
            advance(1)
        else:
            yield _Todo(job, key)


def _count(summary: Summary, record: dict[str, Any]) -> None:
    summary.done += 1
    for stage, time_ms in record["timings_ms"].items():
        summary.spent_ms[stage] = summary.spent_ms.get(stage, 0.0) + time_ms
    if len(summary.rows) < _KEPT_ROWS:
        summary.rows.append(record)


def _note_failure(outcome: ItemResult, log: FailureLog) -> dict[str, Any]:
    """Write a failure down; an error that is no user's mistake comes with its traceback."""
    from ..errors import AtrousError

    image, error = outcome.item.job.image, outcome.error
    if isinstance(error, AtrousError):
        line, details = str(error), {}
    else:
        line = f"{type(error).__name__}: {error} (the traceback is in failures.jsonl)"
        details = {"traceback": outcome.traceback}
    if str(image) not in line:
        line = f"{image}: {line}"
    failure = {"image": str(image), "error": line}
    log.add({**failure, "stage": outcome.stage, "type": type(error).__name__, **details})
    return {"image": image, "error": line}
