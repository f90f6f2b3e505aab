"""`atrous tune-crf`: choose the dense CRF's parameters on labeled images, and write them into the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..runtime.evaluation.tuning import METHODS
from . import console
from .backend_option import backend_options
from .dataset_options import DatasetChoice, dataset_options
from .memory_option import memory_option
from .ray_option import choose_nodes, ray_option
from .size_option import choose_size, describe_size, size_options
from .threads_option import threads_option

if TYPE_CHECKING:
    from ..runtime.evaluation.tuning.scoring import TunedImage
    from ..runtime.evaluation.tuning.search import Search

_SHOWN = 8


def _parse_range(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """Parse `4,10`, or MATLAB's `30:10:100`."""
    if value is None:
        return None
    try:
        if ":" in value:
            first, step, last = (float(part) for part in value.split(":"))
            count = int((last - first) / step + 1e-9) + 1
            values = [first + step * index for index in range(count)] if 0 < count <= 1000 and step > 0 else []
        else:
            values = [float(part) for part in value.split(",")]
    except (ValueError, ZeroDivisionError):
        values = []
    if not values or any(not 0 < entry < 1e4 for entry in values) or values != sorted(set(values)):
        raise click.BadParameter(f'"{value}" is neither 4,10 nor 30:10:100, ascending and positive', context, parameter)
    return tuple(values)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@dataset_options
@click.option(
    "--search",
    "method",
    type=click.Choice(METHODS),
    default=METHODS[0],
    show_default=True,
    help="Coarse grid; factors searches the position term too, for images unlike photographs.",
)
@click.option("--weights", callback=_parse_range, metavar="LIST", help="Coarse bilateral weights, as 3:1:6 or 4,10.")
@click.option("--sxy", callback=_parse_range, metavar="LIST", help="Coarse bilateral position sigmas, in pixels.")
@click.option("--srgb", callback=_parse_range, metavar="LIST", help="Coarse bilateral color sigmas, in gray levels.")
@click.option(
    "--halvings",
    type=click.IntRange(0, 6),
    default=2,
    show_default=True,
    help="Number of times the steps are halved around the best.",
)
@click.option("--iterations", type=click.IntRange(1, 100), default=10, show_default=True, help="Iterations of the CRF.")
@click.option(
    "--hold-out",
    type=click.IntRange(0, 100),
    default=3,
    show_default=True,
    metavar="N",
    help="Hold out every N-th image to check on; 0 for none.",
)
@click.option("--race", is_flag=True, help="Discard a point once it is significantly worse than the best so far.")
@click.option("--dry-run", is_flag=True, help="Do not change the bundle.")
@click.option("--force", is_flag=True, help="Write parameters even if they are worse on the held-out images.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder for tuning.json and heat maps.")
@size_options
@memory_option
@ray_option("Search")
@backend_options
@threads_option("Number of images in parallel.  [default: one per core]")
@console.json_option
def command(
    bundle: Path,
    method: Any,
    weights: tuple[float, ...] | None,
    sxy: tuple[float, ...] | None,
    srgb: tuple[float, ...] | None,
    halvings: int,
    iterations: int,
    hold_out: int,
    race: bool,
    dry_run: bool,
    force: bool,
    out: Path | None,
    size: tuple[int, int] | None,
    max_side: int | None,
    native: bool,
    memory: int | None,
    ray_address: str | None,
    backend: str,
    device: str | None,
    precision: str,
    threads: int | None,
    as_json: bool,
    **dataset: Any,
) -> int:
    """Choose the dense CRF's parameters for BUNDLE on a labeled dataset.

    \b
    atrous tune-crf largefov --dataset voc2012 --root VOCdevkit/VOC2012 --limit 100 -o tuning

    The search is DeepLab's: a coarse grid over the bilateral term's weight and sigmas, then halved steps around the
    best, the position term fixed at 3 and 3, 10 iterations. The network runs once on each image. The winner is checked
    on images it was not chosen on, and is written into the bundle unless it is worse there than the present parameters.

    Exit codes: 0 done, 1 the winner is worse on the held-out images, 2 wrong usage or files, 3 a library or device is
    missing.
    """  # noqa: D301 (click's \b keeps the lines as they are)
    import numpy as np

    from .. import runtime
    from ..bundle import writing
    from ..bundle.files import prepare_folder
    from ..dependencies import import_optional
    from ..errors import InputError
    from ..runtime.evaluation.class_order import find_class_order
    from ..runtime.evaluation.evaluator import check_classes, find_first_number
    from ..runtime.evaluation.tuning.points import GRIDS
    from ..runtime.evaluation.tuning.ray import score_on_ray
    from ..runtime.evaluation.tuning.report import describe_search, write_search
    from ..runtime.evaluation.tuning.scoring import score_images
    from ..runtime.evaluation.tuning.search import search_crf
    from ..runtime.loading import load_without_network
    from ..runtime.pipeline.engine import count_cores

    if hold_out == 1:
        raise click.UsageError("--hold-out 1 leaves no image to choose on; use 2 or more, or 0 for none")
    opened = DatasetChoice(**dataset).open(runtime.read_bundle(bundle))
    if out is not None:
        import_optional("matplotlib")
        prepare_folder(out)
    if not dry_run:
        prepare_folder(bundle)
    own = GRIDS[method]
    grid = replace(
        own, weights=weights or own.weights, sxys=sxy or own.sxys, srgbs=srgb or own.srgbs, halvings=halvings
    )
    options: dict[str, Any] = {
        "backend": backend,
        "device": device,
        "precision": precision,
        "crf": "auto",
        "memory_bytes": memory,
        **choose_size(size, max_side, native),
    }
    with ExitStack() as stack:
        open_bundle = runtime.load if ray_address is None else load_without_network
        segmenter = stack.enter_context(open_bundle(bundle, threads=threads, **options))
        if segmenter.head == "labels":
            raise InputError("this bundle's head gives labels only, and a CRF needs scores: convert the net again")
        sizing, manifest = segmenter.sizing, segmenter.bundle.manifest
        name, classes, network = manifest.name, manifest.classes, manifest.files[segmenter.bundle.deploy.file]
        warnings = check_classes(classes, opened)
        images: Sequence[TunedImage]
        with console.show_progress("running the network", len(opened)) as advance:
            if ray_address is None:
                images, workers = score_images(segmenter, opened, advance), threads or count_cores()
            else:
                nodes = choose_nodes(ray_address, threads, device)
                scoring = score_on_ray(bundle, opened, nodes=nodes, advance=advance, **options)
                images, workers = stack.enter_context(scoring)
        warnings += find_class_order(
            np.sum([image.count() for image in images], axis=0), classes, find_first_number(opened)
        )
        warnings += sizing.find_warnings([image.size for image in images])
        for line in warnings:
            console.print_warning(f"atrous tune-crf: {line}")
        with console.show_progress("searching") as advance:
            search = search_crf(
                images,
                method=method,
                grid=grid,
                present=segmenter.crf,
                mode="deeplab" if segmenter.crf is None else segmenter.crf.mode,
                iterations=iterations,
                workers=workers,
                race=race,
                held_out_every=hold_out,
                advance=advance,
            )
    report = {**describe_search(search, bundle=name, dataset=opened.label), "size": sizing.to_json()}
    if as_json:  # before anything is written, so that a full disk costs no figures
        console.keep_json({**report, "warnings": warnings})
    else:
        _print_search(search, report)
        if (chosen := describe_size(sizing)) is not None:
            click.echo(chosen)
    is_written = not dry_run and (search.is_better or force)
    if is_written:
        kept = ("dataset", "method", "chosen_on", "held_out", "is_better")
        record = {**{key: report[key] for key in kept}, "points": len(search.scores)}
        writing.replace_crf(bundle, search.parameters, record, network.sha256)
    files = write_search(search, report, out) if out is not None else {}
    if as_json:
        console.print_json("tune-crf", {**report, "warnings": warnings, "written": is_written, "files": files})
    else:
        click.echo(f"written into {bundle}" if is_written else f"{bundle} is unchanged")
        for path in files.values():
            click.echo(f"-> {path}")
    if not search.is_better:
        reason = "worse than the present parameters on images it was not chosen on: label more images"
        if search.held_out is None:
            reason = "worse than the present parameters, which this search does not reach: search a larger grid"
        console.print_warning(f"atrous tune-crf: the winner is {reason}, or keep the present ones")
        return 1
    return 0


def _print_search(search: Search, report: dict[str, Any]) -> None:
    rows = [
        (
            *(f"{point[axis]:g}" for axis in ("weight", "sxy", "srgb", "near_weight", "near_sxy")),
            _percent(point["mean_iou"]),
        )
        for point in report["points"][:_SHOWN]
    ]
    columns = ("bilateral weight", "sxy", "srgb", "position weight", "sxy", "mean IoU %")
    console.print_table(columns, rows, title=f"the best of {len(report['points'])} points, on the images chosen on")
    click.echo()
    rows = []
    for words, part in (("chosen on", report["chosen_on"]), ("held out", report["held_out"])):
        if part is not None:
            gain = part["gain_over_present_95"] or part["gain_over_network_95"]
            scores = (_percent(part[key]) for key in ("network", "present", "chosen"))
            rows.append((words, str(part["images"]), *scores, f"{gain[0] * 100:+.2f} to {gain[1] * 100:+.2f}"))
    before = "present" if search.chosen_on.present is not None else "network"
    console.print_table(("mean IoU %", "images", "network", "present CRF", "chosen", f"gain over {before}, 95 %"), rows)
    click.echo(f"{search.runs} CRF runs, {search.builds} builds of its lattices")


def _percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value * 100:.2f}"
