"""`RayPool`: actors on the nodes of a Ray cluster, for the commands with `--ray`.

Each actor is a process that loads the bundle once and runs calls of `work(actor, item)`. Ray places the actors, starts
them again when they die, and repeats their calls: a work may be repeated at any time. Its item and its result pass
through Ray, so they are descriptions and counts; actors read images themselves. The bundle and the images have the same
names on all nodes: a network file system or an object store.
"""

from __future__ import annotations

import math
import pickle
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..dependencies import import_optional
from ..errors import AtrousError, BackendError, InputError
from .loading import load
from .segmenter import Segmenter

PART_ITEMS = 1000
_PARTS_PER_ACTOR = 4  # at least, so that a slow node holds up little
_CALLS_PER_ACTOR = 2  # one runs, one waits
_RETRIES = 100  # of one call whose actors die: far beyond nodes that come and go

Work = Callable[["BundleActor", Any], Any]


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


class BundleActor:
    """A process of a node.

    Attributes:
        common: what all calls have in common.
        cores: CPU cores of this actor.
        kept: what calls keep for later ones, until the actor dies.
        lock: for `kept` and the network, where calls run at a time.
    """

    def __init__(self, bundle: str, common: Any, cores: int, load_options: Mapping[str, Any]) -> None:
        self._bundle, self._load_options = bundle, load_options
        self.common, self.cores = common, cores
        self.kept: dict[Any, Any] = {}
        self.lock = threading.Lock()

    @cached_property
    def segmenter(self) -> Segmenter:
        """The bundle, loaded by the first call, as Ray starts actors that fail to start again and again."""
        return load(self._bundle, threads=self.cores, **self._load_options)

    def call(self, work: Work, content: bytes) -> bytes:
        """The packed result of a work, or its AtrousError, which would lose its type in Ray's own."""
        try:
            return pack(work(self, unpack(content)))
        except AtrousError as error:
            try:
                found = pack(error)
                unpack(found)
            except Exception:  # an error with arguments of its own
                found = pack(AtrousError(str(error)))
            return found


def pack(value: object) -> bytes:
    """A value as bytes, which take a fraction of its memory."""
    return zlib.compress(pickle.dumps(value), 1)


def unpack(content: bytes) -> Any:
    """The value of `pack`, from this program's own processes."""
    return pickle.loads(zlib.decompress(content))


class RayPool:
    """A connection to a cluster, or Ray on this machine, and the actors of a bundle, in a `with` block.

    Attributes:
        actors: number of actors.
        cores, gpus: the resources of each.
    """

    def __init__(
        self,
        nodes: RayNodes,
        bundle: str | Path,
        common: Any,
        *,
        calls_at_once: bool = False,
        load_options: Mapping[str, Any],
    ) -> None:
        """Describe the actors.

        Args:
            nodes: the cluster, and the resources of the actors.
            bundle: a bundle's folder, the same on all nodes.
            common: what all calls have in common.
            calls_at_once: whether an actor runs as many calls at a time as it has cores.
            load_options: further arguments of `runtime.load`.
        """
        self._ray = import_optional("ray")
        self._nodes, self._calls_at_once = nodes, calls_at_once
        self._arguments = (str(Path(bundle).absolute()), common)
        self._load_options = dict(load_options)
        self._lock, self._handles = threading.Lock(), list[Any]()
        self._is_ours = False

    def __enter__(self) -> RayPool:
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

    def count_parts(self, items: int, most: int = PART_ITEMS) -> int:
        """The number of parts to divide the work into: at most `most` items in each, and enough for all actors."""
        return max(math.ceil(items / most), min(items, self.actors * _PARTS_PER_ACTOR))

    def map(self, work: Work, contents: Sequence[bytes]) -> Iterator[tuple[int, Any]]:
        """Run a work on packed items; yields index and result of each, in any order; raises an actor's AtrousError."""
        handles = self._start(min(self.actors, len(contents)))
        waiting, free = deque(enumerate(contents)), deque(handles * _CALLS_PER_ACTOR)
        running: dict[Any, tuple[int, Any]] = {}
        while waiting or running:
            while waiting and free:
                handle, (index, content) = free.popleft(), waiting.popleft()
                running[handle.call.remote(work, content)] = index, handle
            (done, *_), _ = self._ray.wait(list(running))
            index, handle = running.pop(done)
            free.append(handle)
            yield index, self._receive(done)

    def ask(self, index: int, work: Work, item: Any) -> Any:
        """Run a work on the actor of this index modulo `actors`, which is always the same; may be called by threads."""
        handles = self._start(self.actors)
        return self._receive(handles[index % len(handles)].call.remote(work, pack(item)))

    def _start(self, count: int) -> list[Any]:
        with self._lock:
            if not self._handles:
                kind = self._ray.remote(BundleActor).options(
                    num_cpus=self.cores,
                    num_gpus=self.gpus or None,
                    max_restarts=-1,
                    max_task_retries=_RETRIES,
                    max_concurrency=self.cores if self._calls_at_once else 1,
                    scheduling_strategy="SPREAD",
                )
                self._handles = [kind.remote(*self._arguments, self.cores, self._load_options) for _ in range(count)]
        return self._handles

    def _receive(self, reference: Any) -> Any:
        try:
            result = unpack(self._ray.get(reference))
        except self._ray.exceptions.RayActorError as error:
            raise BackendError(f"an actor cannot start, or died {_RETRIES} times at the same work: {error}") from error
        if isinstance(result, AtrousError):
            raise result
        return result

    def __exit__(self, *_: object) -> None:
        """End the actors, and leave the cluster, if this call joined it."""
        handles, self._handles = self._handles, []
        for handle in handles:
            self._ray.kill(handle)
        if self._is_ours:
            self._ray.shutdown()
