"""`atrous plan`: how long a number of images takes on a number of nodes, from stage times measured on one machine.

The rate of a node is the smallest of three bounds, times the share of that bound that the measured run reached:

* cores: C cores / the core time of an image, over all stages that run on the CPU;
* gpu: G GPUs / the time of an image on a GPU;
* storage: the bandwidth of a node's storage / the bytes of an image, read and written.

The core time of an image is taken as the same on other numbers of cores. Every shard adds its start, and the end of
the run waits for the last shard: half a shard on average.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..benchmark.result_file import read_result
from ..benchmark.results import BenchResult
from ..loading import load
from ..pipeline import PipelineReport
from ..pipeline.engine import count_cores
from .records import BatchSummary
from .run import label_files

CRF, NETWORK = "crf", "network"
_WARM_IMAGES = 4
_RUNS = 3  # the one in the middle counts: other programs may disturb one


@dataclass(frozen=True)
class ImageCost:
    """The cost of an image.

    Attributes:
        source: where it comes from, as a phrase.
        core_ms: core-milliseconds of each stage on the CPU.
        device_ms: milliseconds of the network on a device; 0 if it ran on the CPU.
        read_bytes, written_bytes: of an image, and of its results with its line in the record; None if unknown.
        efficiency: the measured rate as a share of its bound.
        start_s: seconds from the start of a process to its first image.
    """

    source: str
    core_ms: Mapping[str, float]
    device_ms: float
    read_bytes: float | None
    written_bytes: float | None
    efficiency: float
    start_s: float


@dataclass(frozen=True)
class Nodes:
    """The machines: their number, and what each has; `gpu_ms` is the network's time for an image on one GPU."""

    count: int = 1
    cores: int = 1
    gpus: int = 0
    gpu_ms: float | None = None
    storage_mb_s: float | None = None

    def __post_init__(self) -> None:
        if self.count < 1 or self.cores < 1 or self.gpus < 0:
            raise InputError("there must be at least one node, and one core in each")
        if not all(0 < value < math.inf for value in (self.storage_mb_s, self.gpu_ms) if value is not None):
            raise InputError("bandwidth and time on a GPU must be above 0")


@dataclass(frozen=True)
class ClusterPlan:
    """A prediction.

    Attributes:
        hours: from the first shard to the last.
        rate_per_s: images per second of all nodes.
        node_per_s: of one node.
        bounds_per_s: upper bounds of one node by resource: "cores", "gpu", "storage".
        bottleneck: the smallest of them, with the slowest stage where it is the cores.
        crf_cores, crf_cores_all: cores busy with the CRF, in a node and in all.
        gpu_share: share of the time in which a GPU works; None without GPUs.
        core_hours: cores x hours.
        read_bytes, written_bytes: of the whole run.
        storage_mb_s: bytes per second that all nodes read and write together, in 1e6. All three are None if unknown.
        shards: number of shards.
    """

    hours: float
    rate_per_s: float
    node_per_s: float
    bounds_per_s: Mapping[str, float]
    bottleneck: str
    crf_cores: float
    crf_cores_all: float
    gpu_share: float | None
    core_hours: float
    read_bytes: float | None
    written_bytes: float | None
    storage_mb_s: float | None
    shards: int


def plan_run(cost: ImageCost, nodes: Nodes, images: int, *, shard_images: int | None = None) -> ClusterPlan:
    """Predict a run.

    Args:
        cost: of an image.
        nodes: the machines.
        images: their number.
        shard_images: images of a shard; None for one shard per node.

    Raises:
        InputError: if there are no images, or GPUs without the time of an image on one.
    """
    if images < 1:
        raise InputError("there must be at least one image")
    core_ms = dict(cost.core_ms)
    device_ms = nodes.gpu_ms if nodes.gpu_ms is not None else cost.device_ms
    if nodes.gpus:
        if not device_ms:
            raise InputError("the network ran on the CPU: give its time for an image on a GPU (--gpu-ms)")
        core_ms.pop(NETWORK, None)
    elif NETWORK not in core_ms:
        raise InputError("the network ran on a device: give the number of GPUs in a node (--gpus)")
    total_ms = sum(core_ms.values())
    bounds = {"cores": nodes.cores / total_ms * 1000}
    if nodes.gpus:
        bounds["gpu"] = nodes.gpus / device_ms * 1000
    is_known = cost.read_bytes is not None and cost.written_bytes is not None
    image_bytes = (cost.read_bytes or 0.0) + (cost.written_bytes or 0.0)
    if nodes.storage_mb_s is not None:
        if not is_known:
            raise InputError("the file does not say how many bytes an image has: leave out the storage, or measure")
        bounds["storage"] = nodes.storage_mb_s * 1e6 / image_bytes
    limit = min(bounds, key=bounds.__getitem__)
    node_per_s = bounds[limit] * cost.efficiency
    rate_per_s = node_per_s * nodes.count
    shards = nodes.count if shard_images is None else math.ceil(images / shard_images)
    rounds = math.ceil(shards / nodes.count)
    tail_s = images / shards / node_per_s / 2 if rounds > 1 else 0.0
    seconds = images / rate_per_s + tail_s + cost.start_s * rounds
    slowest = max(core_ms, key=core_ms.__getitem__)
    crf_cores = node_per_s * core_ms.get(CRF, 0.0) / 1000
    return ClusterPlan(
        hours=seconds / 3600,
        rate_per_s=rate_per_s,
        node_per_s=node_per_s,
        bounds_per_s=bounds,
        bottleneck=f"cores ({slowest}: {core_ms[slowest] / total_ms:.0%} of their time)" if limit == "cores" else limit,
        crf_cores=crf_cores,
        crf_cores_all=crf_cores * nodes.count,
        gpu_share=node_per_s * device_ms / 1000 / nodes.gpus if nodes.gpus else None,
        core_hours=nodes.cores * nodes.count * seconds / 3600,
        read_bytes=None if cost.read_bytes is None else cost.read_bytes * images,
        written_bytes=None if cost.written_bytes is None else cost.written_bytes * images,
        storage_mb_s=rate_per_s * image_bytes / 1e6 if is_known else None,
        shards=shards,
    )


def measure_cost(bundle: str | Path, images: Sequence[Path], *, cores: int | None = None, **options: Any) -> ImageCost:
    """Measure the cost of an image by labeling some, three times, into temporary folders; the median run counts.

    Args:
        bundle: the bundle's folder.
        images: files of the size and format in question, a dozen or more.
        cores: cores to use; None for all.
        options: further arguments of `label_files`.

    Raises:
        InputError: if an image cannot be labeled; and the errors of `label_files`.
    """
    cores = cores or count_cores()
    load_options = {name: value for name, value in options.items() if name != "kinds"}
    kinds = options.get("kinds", ("labels",))
    start_s = time.perf_counter()
    with load(bundle, threads=cores, **load_options) as segmenter, tempfile.TemporaryDirectory() as folder:
        loaded_s = time.perf_counter() - start_s
        label_files(segmenter, images[:_WARM_IMAGES], Path(folder, "warm"), cores=cores, kinds=kinds)
        reports = []
        for run in range(_RUNS):
            out = Path(folder, str(run))
            summary = label_files(segmenter, images, out, cores=cores, kinds=kinds, naming="path")
            reports.append(_require_report(summary, len(images)))
        slowest, report, fastest = sorted(reports, key=lambda report: report.rate_per_s)
        written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        is_local = segmenter.backend.device == "cpu"
    read = sum(path.stat().st_size for path in images)
    core_ms = {stage.name: stage.core_ms for stage in report.stages if stage.core_ms > 0}
    return ImageCost(
        source=f"{len(images)} images on {cores} cores of this machine, {_RUNS} times: {slowest.rate_per_s:.3g} to "
        f"{fastest.rate_per_s:.3g} a second",
        core_ms=core_ms,
        device_ms=0.0 if is_local else next(s.item_ms for s in report.stages if s.name == NETWORK),
        read_bytes=read / len(images),
        written_bytes=written / len(images),
        efficiency=report.rate_per_s / (cores / sum(core_ms.values()) * 1000) if is_local else report.efficiency,
        start_s=loaded_s,
    )


def _require_report(summary: BatchSummary, images: int) -> PipelineReport:
    if summary.labeled < images or summary.pipeline is None:
        raise InputError(f"{summary.failed} of {images} images failed: measure with images that can be labeled")
    return summary.pipeline


def read_cost(path: str | Path) -> ImageCost:
    """The cost of an image from a result file of `atrous bench run`, whose first subject counts.

    Raises InputError if the file is not a result, or has no view of the pipeline.
    """
    result: BenchResult = read_result(Path(path))
    subject = result.subjects[0]
    view = subject.pipeline
    if view is None or "cores" not in view.bounds_per_s:
        raise InputError(f"{path}: has no view of the pipeline: measure it (bench run --pipeline)")
    total_ms = view.cores / view.bounds_per_s["cores"] * 1000
    by_name = {stage.name: stage for stage in view.stages}
    core_ms = {name: stage.item_ms * max(stage.cores, 1) for name, stage in by_name.items() if name != CRF}
    network = by_name[NETWORK]
    if network.cores == 0:
        core_ms.pop(NETWORK)
    if CRF in by_name:  # its calls take the cores that are free: what the others leave of all core time
        core_ms[CRF] = max(total_ms - sum(core_ms.values()), 0.0)
    return ImageCost(
        source=f"{path}: {subject.name} on {view.cores} cores",
        core_ms=core_ms,
        device_ms=network.item_ms if network.cores == 0 else 0.0,
        read_bytes=None,
        written_bytes=None,
        efficiency=min(view.efficiency, 1.0),
        start_s=0.0,
    )
