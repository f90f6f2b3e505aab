"""`label_on_ray`: `label_files` on the nodes of a Ray cluster.

Ray places shards of images on actors, one actor a node, and starts them again when they die. Each actor holds a whole
pipeline (network and CRF, which its planner balances) and labels a shard as `segment --shard I/N` does: it reads the
images, writes the results, and records them in the shard's own `done.I-of-N.jsonl`. So only paths and counts pass
through Ray, its object store stays small, and a shard that runs again, for whatever reason, skips what is recorded:
nothing is lost or doubled when an actor, a node or the driver dies.

The bundle, the images and OUT are read under the same names on all nodes: a network file system or an object store.
"""

from __future__ import annotations

import logging
import math
import pickle
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...dependencies import import_optional
from ...errors import AtrousError, BackendError, InputError
from ..loading import load
from ..pictures import PLAIN, OverlayStyle
from ..segmenter import Segmenter
from .images import ImageJob, Naming
from .journal import find_journals
from .lines import LockedError
from .records import BatchObserver, FailedImage, add_times
from .run import RunSettings, choose_jobs, label_jobs
from .shards import MAX_SHARDS, ListSum, Selection, Shard, divide_jobs
from .storage import is_store, open_place

SHARD_IMAGES = 1000
_SHARDS_PER_ACTOR = 4  # at least, so that a slow node holds up little
_LOCK_WAIT_S = 120.0  # for the lock of a process that died


@dataclass
class RayNodes:
    """Resources of the actors.

    Attributes:
        address: of the cluster, such as "auto" or "ray://host:10001"; None starts Ray on this machine.
        actors: number of actors; None for one per node.
        cores: CPU cores that an actor takes, for network and CRF; None for those of the smallest node.
        gpus: GPUs that an actor takes.
    """

    address: str | None = None
    actors: int | None = None
    cores: int | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if min(1 if count is None else count for count in (self.actors, self.cores)) < 1 or self.gpus < 0:
            raise InputError("actors and cores must be at least 1, and gpus at least 0")


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
    shard_images: int = SHARD_IMAGES,
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
    with open_ray(nodes or RayNodes()) as cluster:
        count = _choose_count(place, len(found), shard_images, cluster.actors)
        shards, listed = divide_jobs(found, count)
        summary = RaySummary(cluster.actors, cluster.cores, cluster.gpus, count)
        task = _Task(str(Path(bundle).absolute()), place, settings, resume, cluster.cores, workers, load_options)
        items = [
            {"shard": index, "jobs": zlib.compress(pickle.dumps((shard, listed)), 1)}
            for index, shard in enumerate(shards)
        ]
        del found, jobs, shards
        start_s = time.monotonic()
        for result in cluster.map_rows(items, _LabelActor, {"task": task, "count": count}):
            summary.labeled += result.labeled
            summary.skipped += result.skipped
            summary.failures += result.failures
            add_times(summary.spent_ms, result.spent_ms)
            for image in result.failures:
                failed(image)
            advance(result.labeled + result.skipped + len(result.failures))
        summary.duration_s = time.monotonic() - start_s
    return summary


def _choose_count(out: Path, images: int, shard_images: int, actors: int) -> int:
    """The number of shards: that of the records in `out`, if it is one, so that each shard reads only its own."""
    if not images:
        raise InputError("there are no images")
    counts = {shard.count for shard in find_journals(out).values() if shard is not None}
    if len(counts) == 1:
        return counts.pop()
    wanted = max(math.ceil(images / shard_images), min(images, actors * _SHARDS_PER_ACTOR))
    return min(wanted, MAX_SHARDS)


@dataclass(frozen=True)
class _Task:
    """The settings that all shards have in common."""

    bundle: str
    out: Path
    settings: RunSettings
    resume: bool
    cores: int
    workers: Mapping[str, int] | None
    load_options: Mapping[str, Any]


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


class _LabelActor:
    """A process of a node: the bundle is loaded once."""

    def __init__(self, task: _Task, count: int) -> None:
        self._task, self._count = task, count
        self._segmenter: Segmenter | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Label the shards of a batch."""
        shards = zip(batch["shard"], batch["jobs"], strict=True)
        return {"result": [dump_result(lambda: self._label(int(index), content)) for index, content in shards]}  # noqa: B023

    def _label(self, index: int, content: bytes) -> _ShardResult:
        jobs: list[ImageJob]
        listed: ListSum
        jobs, listed = pickle.loads(zlib.decompress(content))  # written by the driver
        task, failures = self._task, _FailureList()
        if self._segmenter is None:  # here, as Ray starts actors that fail to start again and again
            self._segmenter = load(task.bundle, threads=task.cores, **task.load_options)
        until_s = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                summary = label_jobs(
                    self._segmenter,
                    Selection(jobs, Shard(index, self._count), listed),
                    task.out,
                    settings=task.settings,
                    total=len(jobs),
                    resume=task.resume,
                    cores=task.cores,
                    workers=task.workers,
                    observer=failures,
                )
            except LockedError:  # by an actor that has just died, or by another run
                if time.monotonic() > until_s:
                    raise
                time.sleep(1)
            else:
                return _ShardResult(summary.labeled, summary.skipped, failures.images, summary.spent_ms)


def dump_result(call: Callable[[], object]) -> bytes:
    """The pickled result of a call, or its AtrousError, which would lose its type in Ray's own."""
    try:
        return pickle.dumps(call())
    except AtrousError as error:
        try:
            content = pickle.dumps(error)
            pickle.loads(content)
        except Exception:  # an error with arguments of its own
            content = pickle.dumps(AtrousError(str(error)))
        return content


class open_ray:  # noqa: N801 (used as a function)
    """Connect to a cluster, or start Ray on this machine, in a `with` block."""

    def __init__(self, nodes: RayNodes) -> None:
        self._nodes = nodes
        self._ray = import_optional("ray")
        import_optional("pyarrow")
        self._is_ours = False

    def __enter__(self) -> open_ray:
        """Connect; InputError if the cluster lacks the resources."""
        ray, nodes = self._ray, self._nodes
        if not ray.is_initialized():
            options: dict[str, Any] = {"address": nodes.address} if nodes.address else {"include_dashboard": False}
            try:
                ray.init(log_to_driver=False, logging_level="ERROR", configure_logging=False, **options)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise BackendError(f"Ray cannot be reached at {nodes.address or 'this machine'}: {error}") from error
            self._is_ours = True
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores = [int(resources.get("CPU", 0)) for resources in alive]
        usable = [number for number in cores if number >= (nodes.cores or 1)]
        if not usable or (nodes.gpus and sum(resources.get("GPU", 0) for resources in alive) < nodes.gpus):
            self.__exit__()
            raise InputError(
                f"no node has {nodes.cores or 1} cores and {nodes.gpus:g} GPUs: the cluster's nodes have {cores} cores"
            )
        self.cores, self.gpus = nodes.cores or min(usable), nodes.gpus
        self.actors = nodes.actors or sum(1 if nodes.cores is None else number // self.cores for number in usable)
        return self

    def map_rows(self, items: list[dict[str, Any]], actor: type, arguments: dict[str, Any]) -> Iterator[Any]:
        """Pass each item to an actor, alone, and yield the results, in any order; raises an actor's AtrousError."""
        from ray.data import ActorPoolStrategy, DataContext, from_items

        logging.getLogger("ray.data").setLevel(logging.WARNING)
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.log_internal_stack_trace_to_stdout = False
        dataset = from_items(items, override_num_blocks=len(items)).map_batches(
            actor,
            fn_constructor_kwargs=arguments,
            batch_size=1,
            compute=ActorPoolStrategy(size=min(self.actors, len(items)), max_tasks_in_flight_per_actor=2),
            num_cpus=self.cores,
            num_gpus=self.gpus or None,
        )
        for row in dataset.iter_rows():
            result = pickle.loads(row["result"])  # written by the actor
            if isinstance(result, AtrousError):
                raise result
            yield result

    def __exit__(self, *_: object) -> None:
        """Leave the cluster, if this call joined it."""
        if self._is_ours:
            self._ray.shutdown()
