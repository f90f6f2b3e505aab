"""`atrous plan`: predict how long many images take on many machines, by `runtime.batch.planning`."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console
from .backend_option import backend_options
from .crf_option import crf_option
from .size_option import parse_size

if TYPE_CHECKING:
    from ..runtime.batch.planning import ClusterPlan, ImageCost, Nodes


def _parse_count(context: click.Context, parameter: click.Parameter, value: str) -> int:
    try:
        count = float(value)
        if not 1 <= count <= 1e15:
            raise ValueError
    except ValueError:
        raise click.BadParameter(f'"{value}" is not a number of images, such as 1e8', context, parameter) from None
    return round(count)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option(
    "--images", "count", callback=_parse_count, required=True, metavar="N", help="Number of images, e.g. 1e8."
)
@click.option("--size", callback=parse_size, metavar="HxW", help="Measure with drawn scenes of this size.")
@click.option(
    "--sample", type=click.Path(path_type=Path), metavar="FOLDER", help="Measure with the images of a folder."
)
@click.option(
    "--measured", type=click.IntRange(4, 10_000), default=24, show_default=True, help="Images to measure with."
)
@click.option(
    "--bench", type=click.Path(path_type=Path), metavar="FILE", help="Use a result of `bench run`, measure nothing."
)
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Number of machines.")
@click.option(
    "--cores", type=click.IntRange(min=1), metavar="N", help="CPU cores of a machine.  [default: those of this one]"
)
@click.option("--gpus", type=click.IntRange(min=0), default=0, show_default=True, help="GPUs of a machine.")
@click.option("--gpu-ms", type=float, metavar="MS", help="Time of the network for an image on such a GPU.")
@click.option(
    "--storage", type=float, metavar="MB/S", help="Bandwidth of the storage for each machine, 1e6 bytes a second."
)
@click.option(
    "--shard-images", type=click.IntRange(min=1), metavar="N", help="Images of a shard.  [default: one shard a machine]"
)
@crf_option
@backend_options
@console.json_option
def command(
    bundle: Path | None,
    count: int,
    size: tuple[int, int] | None,
    sample: Path | None,
    measured: int,
    bench: Path | None,
    nodes: int,
    cores: int | None,
    gpus: int,
    gpu_ms: float | None,
    storage: float | None,
    shard_images: int | None,
    crf: bool | str,
    backend: str,
    device: str | None,
    precision: str,
    as_json: bool,
) -> None:
    """Predict the time of a run of `segment` on many machines, and name what limits it.

    BUNDLE is measured here: some images are labeled into a temporary folder. With --bench, the figures are those of a
    result file, perhaps of another machine, and BUNDLE is left out.

    \b
    atrous plan bundle --images 1e8 --size 513x513 --nodes 64 --cores 16
    atrous plan --bench gpu.json --images 1e8 --nodes 8 --cores 32 --gpus 1

    docs/cluster.md says what the prediction assumes.
    """  # noqa: D301 (click's \\b keeps the lines as they are)
    from ..runtime.batch.planning import Nodes, plan_run, read_cost
    from ..runtime.pipeline.engine import count_cores

    if (bundle is None) == (bench is None):
        raise click.UsageError("give a BUNDLE to measure, or the result file of --bench")
    if bench is not None:
        cost = read_cost(bench)
    else:
        options = {"backend": backend, "device": device, "precision": precision, "crf": crf}
        assert bundle is not None
        cost = _measure(bundle, size, sample, measured, options)
    machines = Nodes(nodes, cores or count_cores(), gpus, gpu_ms, storage)
    plan = plan_run(cost, machines, count, shard_images=shard_images)
    if as_json:
        parts = {"images": count, "nodes": dataclasses.asdict(machines), "cost": dataclasses.asdict(cost)}
        console.print_json("plan", {**parts, "plan": dataclasses.asdict(plan)})
    else:
        _print_plan(cost, machines, plan, count)


def _measure(
    bundle: Path, size: tuple[int, int] | None, sample: Path | None, measured: int, options: dict[str, Any]
) -> ImageCost:
    from ..runtime.batch.images import list_images
    from ..runtime.batch.planning import measure_cost
    from .bench_images import resize_scenes

    if (size is None) == (sample is None):
        raise click.UsageError("give --size HxW for drawn scenes, or --sample FOLDER with images such as yours")
    with console.show_progress("measuring"):
        if sample is not None:
            images = [found.image for found in list_images([str(sample)])][:measured]
            return measure_cost(bundle, images, **options)
        assert size is not None
        with tempfile.TemporaryDirectory() as folder:
            images = []
            for number, scene in enumerate(resize_scenes(size, measured)):
                images.append(Path(folder, f"{number}.png"))
                images[-1].write_bytes(scene.encoded)
            return measure_cost(bundle, images, **options)


def _print_plan(cost: ImageCost, nodes: Nodes, plan: ClusterPlan, images: int) -> None:
    rows: list[tuple[str, str]] = [
        ("measured", cost.source),
        ("core time of an image", ", ".join(f"{name} {ms:.3g} ms" for name, ms in cost.core_ms.items())),
        ("rate of a node", f"{plan.node_per_s:.3g} images a second ({cost.efficiency:.0%} of its bound)"),
        ("rate of all", f"{plan.rate_per_s:.4g} images a second on {nodes.count} nodes of {nodes.cores} cores"),
        ("time", f"{plan.hours:.3g} hours, {plan.core_hours:.3g} core-hours, {plan.shards} shards"),
        ("bottleneck", plan.bottleneck),
        ("cores for the CRF", f"{plan.crf_cores:.3g} of {nodes.cores} in a node, {plan.crf_cores_all:.4g} in all"),
    ]
    if plan.gpu_share is not None:
        rows.append(("GPUs at work", f"{plan.gpu_share:.0%} of the time"))
    if plan.storage_mb_s is not None and plan.read_bytes is not None and plan.written_bytes is not None:
        moved = f"{plan.read_bytes / 1e9:.4g} GB read, {plan.written_bytes / 1e9:.4g} GB written"
        rows.append(("storage", f"{moved}, {plan.storage_mb_s:.4g} MB a second in all"))
    console.print_table(("", f"{images} images"), rows)
