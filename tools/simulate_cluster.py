"""Simulation of a run on many nodes, with slow nodes and failures; the last line is one JSON object.

    python -m tools.simulate_cluster run PLAN.json --nodes 64 --images 1e8     from `atrous plan ... --json > PLAN.json`
    python -m tools.simulate_cluster check BUNDLE IMAGES                       against a real run on this machine

Each node takes the next shard when it is free. Its speed is that of the plan times a factor of its own (log-normal; a
share of the nodes is slower still). Nodes fail at exponential intervals and come back after a repair; the images that
were recorded stay done, and the rest of the shard goes back to the queue, as with `segment --shard` and `--ray`. All
nodes share the storage: if they want more bytes than it gives, all slow down alike.

`headroom` lists how far each shared resource is from its limit: what is smallest breaks first.
"""

from __future__ import annotations

import heapq
import json
import math
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

_DRIVER_BYTES = 1100  # of an image in the driver of --ray
_SCANNED_PER_S = 300_000  # lines of a list that a shard passes over


@dataclass(frozen=True)
class Setting:
    """A run: `node_per_s` is the rate of a node of usual speed, `image_bytes` what it reads and writes per image."""

    images: int
    nodes: int
    node_per_s: float
    start_s: float = 10.0
    shard_images: int = 10_000
    spread: float = 0.05
    slow_share: float = 0.02
    slow_factor: float = 0.5
    failure_hours: float = math.inf
    repair_s: float = 600.0
    image_bytes: float = 0.0
    storage_mb_s: float = math.inf


@dataclass(frozen=True)
class Outcome:
    """Seconds of the run, its efficiency against nodes of usual speed without any loss, and what happened."""

    seconds: float
    efficiency: float
    failures: int
    repeated_starts: int
    node_hours: float
    busy_share: float


def simulate(setting: Setting, seed: int = 0) -> Outcome:
    """Run all events."""
    random = np.random.default_rng(seed)
    speeds = setting.node_per_s * random.lognormal(0.0, setting.spread, setting.nodes)
    slow = random.permutation(setting.nodes)[: round(setting.slow_share * setting.nodes)]
    speeds[slow] *= setting.slow_factor
    wanted_mb_s = float(speeds.sum()) * setting.image_bytes / 1e6
    speeds *= min(1.0, setting.storage_mb_s / wanted_mb_s) if wanted_mb_s else 1.0
    whole, rest = divmod(setting.images, setting.shard_images)
    queue = deque([setting.shard_images] * whole + ([rest] if rest else []))
    fails_at = random.exponential(setting.failure_hours * 3600, setting.nodes) if math.isfinite(
        setting.failure_hours) else np.full(setting.nodes, math.inf)  # fmt: skip
    free = [(0.0, node) for node in range(setting.nodes)]  # a heap: when each node can take a shard
    busy_s, end_s, failures, starts = 0.0, 0.0, 0, 0
    waiting: list[tuple[float, int]] = []  # a heap: shards that come back when their node fails
    while queue or waiting:
        now_s, node = heapq.heappop(free)
        while waiting and waiting[0][0] <= now_s:
            queue.append(heapq.heappop(waiting)[1])
        if not queue:
            heapq.heappush(free, (waiting[0][0], node))
            continue
        images = queue.popleft()
        starts += 1
        finish_s = now_s + setting.start_s + images / speeds[node]
        if fails_at[node] < finish_s:
            failed_s = max(float(fails_at[node]), now_s)
            done = max(0, int((failed_s - now_s - setting.start_s) * speeds[node]))
            heapq.heappush(waiting, (failed_s, max(images - done, 1)))
            back_s = failed_s + setting.repair_s
            fails_at[node] = back_s + random.exponential(setting.failure_hours * 3600)
            busy_s += failed_s - now_s
            failures += 1
            heapq.heappush(free, (back_s, node))
        else:
            busy_s += finish_s - now_s
            end_s = max(end_s, finish_s)
            heapq.heappush(free, (finish_s, node))
    ideal_s = setting.images / (setting.nodes * setting.node_per_s)
    shards = whole + bool(rest)
    total_s = end_s * setting.nodes
    return Outcome(end_s, ideal_s / end_s, failures, starts - shards, total_s / 3600, busy_s / total_s)


def find_headroom(setting: Setting, storage_mb_s: float, memory_gb: float) -> dict[str, float]:
    """The ratio of each shared resource to the need of the run; below 1 it is the limit."""
    wanted_mb_s = setting.nodes * setting.node_per_s * setting.image_bytes / 1e6
    shard_s = setting.shard_images / setting.node_per_s
    return {
        "storage bandwidth": storage_mb_s / max(wanted_mb_s, 1e-9),
        "memory of the driver of --ray": memory_gb * 1e9 / (setting.images * _DRIVER_BYTES),
        "time to pass over the list in each shard": shard_s / (setting.images / _SCANNED_PER_S),
        "start of a shard": shard_s / setting.start_s,
        "shards for each node": setting.images / setting.shard_images / setting.nodes / 4,
    }


@click.group()
def cli() -> None:
    """Simulate runs on many nodes."""


@cli.command()
@click.argument("plan", type=click.Path(path_type=Path, exists=True))
@click.option("--images", type=float, default=1e8, show_default=True, help="Number of images.")
@click.option("--nodes", type=int, default=64, show_default=True, help="Number of nodes.")
@click.option("--shard-images", type=int, default=10_000, show_default=True, help="Images of a shard.")
@click.option(
    "--failure-hours", type=float, default=500.0, show_default=True, help="Mean time between failures of a node."
)
@click.option("--storage", type=float, default=1000.0, show_default=True, help="Shared storage, 1e6 bytes a second.")
@click.option("--memory", type=float, default=64.0, show_default=True, help="Memory of the driver, 1e9 bytes.")
@click.option("--price", type=float, default=0.7, show_default=True, help="Price of a node for an hour.")
@click.option("--seeds", type=int, default=5, show_default=True, help="Number of simulations.")
def run(
    plan: Path,
    images: float,
    nodes: int,
    shard_images: int,
    failure_hours: float,
    storage: float,
    memory: float,
    price: float,
    seeds: int,
) -> None:
    """Simulate a run with the rate of a PLAN, with and without what goes wrong."""
    found: dict[str, Any] = json.loads(plan.read_text())
    cost = found["cost"]
    moved = (cost["read_bytes"] or 0.0) + (cost["written_bytes"] or 0.0)
    rate = found["plan"]["node_per_s"]
    common: dict[str, Any] = {"start_s": cost["start_s"] + 2.0, "shard_images": shard_images, "image_bytes": moved}
    settings = {
        "equal nodes": Setting(round(images), nodes, rate, spread=0.0, slow_share=0.0, **common),
        "slow nodes": Setting(round(images), nodes, rate, **common),
        "slow nodes, failures": Setting(round(images), nodes, rate, failure_hours=failure_hours, **common),
        "all, storage": Setting(
            round(images), nodes, rate, failure_hours=failure_hours, storage_mb_s=storage, **common
        ),
        "all, one shard a node": Setting(
            round(images), nodes, rate, failure_hours=failure_hours, storage_mb_s=storage,
            **{**common, "shard_images": math.ceil(images / nodes)},
        ),
    }  # fmt: skip
    rows = {}
    for name, setting in settings.items():
        outcomes = [simulate(setting, seed) for seed in range(seeds)]
        hours = float(np.mean([outcome.seconds for outcome in outcomes])) / 3600
        rows[name] = {
            "hours": round(hours, 2),
            "efficiency": round(float(np.mean([outcome.efficiency for outcome in outcomes])), 4),
            "failures": round(float(np.mean([outcome.failures for outcome in outcomes])), 1),
            "cost": round(hours * nodes * price),
        }
        click.echo(f"{name:24} {rows[name]}")
    headroom = find_headroom(settings["slow nodes"], storage, memory)
    ordered = dict(sorted(((name, round(value, 2)) for name, value in headroom.items()), key=lambda entry: entry[1]))
    click.echo(json.dumps({"node_per_s": round(rate, 2), "runs": rows, "headroom": ordered}))


@cli.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.argument("images", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--measured", type=int, default=40, show_default=True, help="Images to measure with.")
@click.option("--crf/--no-crf", default=True, show_default=True, help="Refine the labels by the dense CRF.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("build/simulate"), show_default=True)
def check(bundle: Path, images: Path, measured: int, crf: bool, work: Path) -> None:
    """Compare plan and simulation with real runs on this machine: one process, and three shards one after the other."""
    import shutil

    from atrous.runtime.batch import label_files
    from atrous.runtime.batch.images import list_images
    from atrous.runtime.batch.planning import Nodes, measure_cost, plan_run
    from atrous.runtime.pipeline.engine import count_cores

    paths = [found.image for found in list_images([str(images)])]
    cores = count_cores()
    cost = measure_cost(bundle, paths[:measured], cores=cores, crf=crf)
    plan = plan_run(cost, Nodes(1, cores), len(paths))
    rows = {}
    for shards in (1, 3):
        shutil.rmtree(work, ignore_errors=True)
        start_s = time.perf_counter()
        for index in range(shards):
            label_files(bundle, paths, work, crf=crf, shard=(index, shards), naming="path")
        real_s = time.perf_counter() - start_s
        setting = Setting(
            len(paths), 1, plan.node_per_s, start_s=cost.start_s, shard_images=math.ceil(len(paths) / shards),
            spread=0.0, slow_share=0.0,
        )  # fmt: skip
        simulated_s = simulate(setting).seconds
        rows[f"{shards} shards"] = {
            "real_s": round(real_s, 2), "simulated_s": round(simulated_s, 2), "ratio": round(simulated_s / real_s, 3),
        }  # fmt: skip
    planned_s = plan.hours * 3600
    rows["plan"] = {"planned_s": round(planned_s, 2), "ratio": round(planned_s / rows["1 shards"]["real_s"], 3)}
    click.echo(json.dumps({"images": len(paths), "measured": measured, "cores": cores, **rows}))


if __name__ == "__main__":
    cli()
