"""The images of a run that are not finished yet."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...bundle.files import remove_leftovers
from .images import ImageJob
from .journal import Journal, make_key
from .records import BatchObserver, BatchSummary
from .storage import find_version as find_object_version
from .storage import is_store, name_below
from .streams import is_stream

_REQUESTS = 32  # to an object store, side by side


@dataclass
class Todo:
    """An image to label.

    Attributes:
        job: the image and its output files.
        key: its key in the journal; None for a file without a stat, which reading then reports.
        names: the paths of its output files in the output folder, by kind.
        void: the pixels (H x W) to label as void, once the image has been read; None for none.
    """

    job: ImageJob
    key: str | None
    names: Mapping[str, str]
    void: npt.NDArray[np.bool_] | None = None


def skip_finished(
    jobs: Iterable[ImageJob],
    journal: Journal,
    settings: Mapping[str, Any],
    out: Path,
    summary: BatchSummary,
    observer: BatchObserver,
) -> Iterator[Todo]:
    """The jobs that are not finished yet, with keys for the journal; the observer hears of the others."""
    settings_key = make_key(settings)

    def find_todo(job: ImageJob) -> Todo | None:
        names = {kind: name_below(path, out) for kind, path in job.outputs.items()}
        version = find_version(job.image)
        if version is None:
            return Todo(job, None, names)
        place = job.image if is_stream(job.image) else os.path.abspath(job.image)
        key = make_key([settings_key, place, *version, names])
        is_done = bool(version) and journal.is_done(key, job.outputs.values())
        return None if is_done else Todo(job, key, names)

    for job, todo in _map_ahead(find_todo, jobs, is_remote=is_store(out)):
        if todo is None:
            summary.skipped += 1
            observer.skipped(job.image)
        else:
            yield todo


def find_version(image: Path | str) -> tuple[Any, ...] | None:
    """Values that change with an image's content; empty if unknown, None if there is no such file."""
    if is_stream(image):
        return (find_object_version(image),) if is_store(image) else ()
    try:
        found = os.stat(image)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _map_ahead(
    function: Callable[[ImageJob], Todo | None], jobs: Iterable[ImageJob], *, is_remote: bool
) -> Iterator[tuple[ImageJob, Todo | None]]:
    """Each job with the function's result, in order; requests to stores wait side by side."""
    pending: deque[tuple[ImageJob, Future[Todo | None]]] = deque()
    with ThreadPoolExecutor(_REQUESTS) as pool:
        for job in jobs:
            waits = is_remote or is_store(job.image)
            while len(pending) >= (_REQUESTS if waits else 1):
                first, result = pending.popleft()
                yield first, result.result()
            if waits:
                pending.append((job, pool.submit(function, job)))
            else:
                yield job, function(job)
        for first, result in pending:
            yield first, result.result()


def clean_folders(jobs: Iterable[ImageJob]) -> Iterator[ImageJob]:
    """Pass the jobs on, after removing the temporary files that a killed run left in each folder."""
    folders: set[Path] = set()
    for job in jobs:
        for folder in {path.parent for path in job.outputs.values()} - folders:
            folders.add(folder)
            remove_leftovers(folder)
        yield job
