"""`label_on_ray`: `label_files` on the nodes of a Ray cluster.

Each actor of `RayPool` holds a whole pipeline (network and CRF, which its planner balances) and labels a shard as
`segment --shard I/N` does: it reads the images, writes the results, and records them in the shard's own
`done.I-of-N.jsonl`. A shard that runs again, for whatever reason, skips what is recorded: nothing is lost or doubled
when an actor, a node or the driver dies. OUT has the same name on all nodes, as the bundle and the images have.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..pictures import PLAIN, OverlayStyle
from ..ray_pool import PART_ITEMS, BundleActor, RayNodes, RayPool, pack
from .images import ImageJob, Naming
from .journal import find_journals
from .lines import LockedError
from .records import BatchObserver, FailedImage, add_times
from .run import RunSettings, choose_jobs, label_jobs
from .shards import MAX_SHARDS, ListSum, Selection, Shard, divide_jobs
from .storage import is_store, open_place

_LOCK_WAIT_S = 120.0  # for the lock of a process that died


@dataclass
class RaySummary:
    """Counts of a run.

    Attributes:
        actors, cores, gpus: the actors, and the resources of each.
        shards: number of shards.
        labeled, skipped: images labeled in this run, and in earlier ones.
        failures: the images that failed.
        spent_ms: milliseconds by stage, summed over the labeled images.
        duration_s: from the first shard to the last; without the start of Ray.
    """

    actors: int
    cores: int
    gpus: float
    shards: int = 0
    labeled: int = 0
    skipped: int = 0
    failures: list[FailedImage] = field(default_factory=list)
    spent_ms: dict[str, float] = field(default_factory=dict)
    duration_s: float = 0.0


def label_on_ray(
    bundle: str | Path,
    images: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    nodes: RayNodes | None = None,
    kinds: Collection[str] = ("labels",),
    style: OverlayStyle = PLAIN,
    recursive: bool = False,
    naming: Naming = "stem",
    all_frames: bool = False,
    ignore_transparent: bool = False,
    is_list: bool = False,
    resume: bool = True,
    workers: Mapping[str, int] | None = None,
    batch: int = 1,
    shard_images: int = PART_ITEMS,
    started: Callable[[int], None] = lambda total: None,
    advance: Callable[[int], None] = lambda steps: None,
    failed: Callable[[FailedImage], None] = lambda image: None,
    **load_options: Any,
) -> RaySummary:
    """Label images on a Ray cluster; call it again with the same arguments after any interruption.

    Args:
        bundle: a bundle's folder, the same on all nodes.
        images: as in `label_files`; a list is read whole, about 1 kB an image.
        out: as in `label_files`.
        kinds: as in `label_files`.
        style: as in `label_files`.
        recursive: as in `label_files`.
        naming: as in `label_files`.
        all_frames: as in `label_files`.
        ignore_transparent: as in `label_files`.
        is_list: as in `label_files`.
        resume: as in `label_files`.
        workers: as in `label_files`.
        batch: as in `label_files`.
        nodes: the cluster, and the resources of the actors.
        shard_images: images in a shard, at most; the number of shards of an earlier run in `out` is kept.
        started: called with the number of images.
        advance: called with the number of images of each shard that is done.
        failed: called with each image that failed.
        load_options: further arguments of `runtime.load`.

    Returns:
        The counts. `merge_runs` checks and joins the records of the shards.

    Raises:
        InputError: if an argument is invalid, or the cluster lacks the resources.
        BundleError, BackendError, OutputError: as `label_files`, from any actor.
        MissingDependencyError: if Ray is not installed.
    """
    place = open_place(out)
    if not is_store(place):
        place = place.absolute()  # actors have working folders of their own
    settings = RunSettings(tuple(dict.fromkeys(kinds)), style, ignore_transparent, batch)
    jobs, _ = choose_jobs(
        images, place, settings, is_list=is_list, recursive=recursive, naming=naming, all_frames=all_frames
    )
    found = [replace(job, image=job.image.absolute()) if isinstance(job.image, Path) else job for job in jobs]
    started(len(found))
    task = _Task(place, settings, resume, workers)
    with RayPool(nodes or RayNodes(), bundle, task, load_options=load_options) as pool:
        count = _choose_count(place, len(found), shard_images, pool)
        shards, listed = divide_jobs(found, count)
        summary = RaySummary(pool.actors, pool.cores, pool.gpus, count)
        contents = [pack((Shard(index, count), shard, listed)) for index, shard in enumerate(shards)]
        del found, jobs, shards
        start_s = time.monotonic()
        for _, result in pool.map(_label_shard, contents):
            summary.labeled += result.labeled
            summary.skipped += result.skipped
            summary.failures += result.failures
            add_times(summary.spent_ms, result.spent_ms)
            for image in result.failures:
                failed(image)
            advance(result.labeled + result.skipped + len(result.failures))
        summary.duration_s = time.monotonic() - start_s
    return summary


def _choose_count(out: Path, images: int, shard_images: int, pool: RayPool) -> int:
    """The number of shards: that of the records in `out`, if it is one, so that each shard reads only its own."""
    if not images:
        raise InputError("there are no images")
    counts = {shard.count for shard in find_journals(out).values() if shard is not None}
    if len(counts) == 1:
        return counts.pop()
    return min(pool.count_parts(images, shard_images), MAX_SHARDS)


@dataclass(frozen=True)
class _Task:
    """The settings that all shards have in common."""

    out: Path
    settings: RunSettings
    resume: bool
    workers: Mapping[str, int] | None


@dataclass
class _ShardResult:
    """The counts of a shard."""

    labeled: int
    skipped: int
    failures: list[FailedImage]
    spent_ms: dict[str, float]


class _FailureList(BatchObserver):
    def __init__(self) -> None:
        self.images: list[FailedImage] = []

    def failed(self, image: FailedImage) -> None:
        """Keep the failure, for the driver."""
        self.images.append(image)


def _label_shard(actor: BundleActor, item: tuple[Shard, list[ImageJob], ListSum]) -> _ShardResult:
    (shard, jobs, listed), task, failures = item, actor.common, _FailureList()
    until_s = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            summary = label_jobs(
                actor.segmenter,
                Selection(jobs, shard, listed),
                task.out,
                settings=task.settings,
                total=len(jobs),
                resume=task.resume,
                cores=actor.cores,
                workers=task.workers,
                observer=failures,
            )
        except LockedError:  # by an actor that has just died, or by another run
            if time.monotonic() > until_s:
                raise
            time.sleep(1)
        else:
            return _ShardResult(summary.labeled, summary.skipped, failures.images, summary.spent_ms)
