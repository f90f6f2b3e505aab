"""`atrous tune-crf`: choose the dense CRF's parameters on labelled images, and write them into the bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console
from .backend_option import backend_options
from .dataset_options import DatasetChoice, dataset_options

if TYPE_CHECKING:
    from ..runtime.evaluation.tuning import Grid, Point, Search

METHODS = ("pami2018", "iclr2015", "factors")
REPORT = "tuning.json"
SCHEMA_VERSION = 1
_SHOWN = 8
_AXES = ("weight", "sxy", "srgb")


def _parse_range(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """`4,10`, or MATLAB's `30:10:100`."""
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
        raise click.BadParameter(f'"{value}" is neither 4,10 nor 30:10:100, rising and positive', context, parameter)
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
    help="Whose coarse grid; factors searches the position term too, for images unlike photographs.",
)
@click.option("--weights", callback=_parse_range, metavar="LIST", help="Coarse bilateral weights, as 3:1:6 or 4,10.")
@click.option("--sxy", callback=_parse_range, metavar="LIST", help="Coarse bilateral position sigmas, in pixels.")
@click.option("--srgb", callback=_parse_range, metavar="LIST", help="Coarse bilateral colour sigmas, in grey levels.")
@click.option("--halvings", type=click.IntRange(0, 6), default=2, show_default=True, help="Of the steps, at the best.")
@click.option("--iterations", type=click.IntRange(1, 100), default=10, show_default=True, help="Of the CRF.")
@click.option(
    "--hold-out",
    type=click.IntRange(0, 100),
    default=3,
    show_default=True,
    metavar="N",
    help="Hold out every N-th image to check on; 0 for none.",
)
@click.option("--race", is_flag=True, help="Give up a point once it is shown to be worse than the best so far.")
@click.option("--dry-run", is_flag=True, help="Leave the bundle as it is.")
@click.option("--force", is_flag=True, help="Write parameters that do worse on the held-out images too.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help=f"Folder for {REPORT} and heat maps.")
@backend_options
@click.option("--threads", type=click.IntRange(min=1), help="Images at a time.  [default: all cores]")
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
    backend: str,
    device: str | None,
    precision: str,
    threads: int | None,
    as_json: bool,
    **dataset: Any,
) -> int:
    """Choose the dense CRF's parameters for BUNDLE on a labelled data set.

    \b
    atrous tune-crf largefov --dataset voc2012 --root VOCdevkit/VOC2012 --limit 100 -o tuning

    The search is DeepLab's: a coarse grid over the bilateral term's weight and sigmas, then halved steps around the
    best, the position term fixed at 3 and 3, 10 iterations. The network runs once on each image. The winner is checked
    on images it was not chosen on, and is written into the bundle unless it does worse there than what the bundle has.

    Exit codes: 0 done, 1 the winner does worse on the held-out images, 2 wrong usage or files, 3 a library or device
    is missing.
    """  # noqa: D301 (click's \b keeps the lines as they are)
    from .. import runtime
    from ..bundle.files import prepare_folder
    from ..errors import InputError
    from ..runtime.evaluation.evaluator import check_classes
    from ..runtime.evaluation.tuning.judging import score_images
    from ..runtime.evaluation.tuning.search import search_crf
    from ..runtime.pipeline.engine import count_cores

    if hold_out == 1:
        raise click.UsageError("--hold-out 1 leaves no image to choose on; take 2 or more, or 0 for none")
    opened = DatasetChoice(**dataset).open(runtime.read_bundle(bundle))
    if out is not None:
        prepare_folder(out)
    workers = threads or count_cores()
    with runtime.load(bundle, backend, device=device, precision=precision, threads=threads, crf="auto") as segmenter:
        if segmenter.head == "labels":
            raise InputError("this bundle's head gives labels only, and a CRF needs scores: convert the net again")
        for line in check_classes(segmenter.bundle.manifest.classes, opened):
            console.print_warning(f"atrous tune-crf: {line}")
        with ExitStack() as stack:
            with console.show_progress("running the network", len(opened)) as advance:
                images = stack.enter_context(score_images(segmenter, opened, advance))
            with console.show_progress("searching") as advance:
                search = search_crf(
                    images,
                    method=method,
                    grid=_choose_grid(method, weights, sxy, srgb, halvings),
                    present=segmenter.crf,
                    mode="deeplab" if segmenter.crf is None else segmenter.crf.mode,
                    iterations=iterations,
                    workers=workers,
                    race=race,
                    held_out_every=hold_out,
                    advance=advance,
                )
        name = segmenter.bundle.manifest.name
    is_written = not dry_run and (search.is_better or force)
    report = describe_search(search, name=name, dataset=opened.label)
    if is_written:
        _write(bundle, search, report)
    files = _write_pictures(search, report, out, f"{name} on {opened.label}") if out is not None else {}
    if as_json:
        console.print_json("tune-crf", {**report, "written": is_written, "files": files})
    else:
        _print_search(search, report)
        click.echo(f"written into {bundle}" if is_written else f"{bundle} stays as it is")
        for path in files.values():
            click.echo(f"-> {path}")
    if not search.is_better:
        console.print_warning(
            "atrous tune-crf: the winner does worse than the present parameters on images it was not chosen on: label "
            "more images, or search a smaller grid"
        )
        return 1
    return 0


def describe_search(search: Search, *, name: str, dataset: str) -> dict[str, Any]:
    """Plain JSON data about a search; fractions are of 1."""
    import math

    tried = sorted(search.memory.scores.items(), key=lambda entry: -entry[1])

    def describe_point(point: Point, score: float) -> dict[str, float | None]:
        told = {**vars(point), "mean_iou": score if math.isfinite(score) else None}
        given_up = search.given_up.get(point)
        return told if given_up is None else {**told, "given_up_after": given_up.images, "behind": given_up.behind}

    return {
        "bundle": name,
        "dataset": dataset,
        "method": search.method,
        "crf": search.parameters.to_dict(),
        "chosen_on": search.chosen_on.describe(),
        "held_out": None if search.held_out is None else search.held_out.describe(),
        "is_better": search.is_better,
        "points": [describe_point(point, score) for point, score in tried],
        "crf_runs": search.runs,
        "lattice_builds": search.builds,
    }


def draw_search(search: Search, title: str) -> dict[str, bytes]:
    """Heat maps, weight down and position sigma along, a panel for each colour sigma.

    Returns:
        PNGs: "heat_map" of the coarse grid, and "heat_map_fine" of the last steps around the best, if it was so found.
    """
    from ..runtime.evaluation.tuning.points import START

    grid = search.grid
    coarse = {point: search.memory.scores[point] for point in grid.points(START) if point in search.memory.scores}
    count = search.chosen_on.describe()["images"]
    pictures = {"heat_map": _draw_points(search, coarse, f"{title}, {count} images: the coarse grid, mean IoU %")}
    if search.method != "factors" and grid.halvings:
        steps = [step / 2**grid.halvings for step in grid.steps()]
        best = search.best
        fine = {
            point: score
            for point, score in search.memory.scores.items()
            if all(
                abs(getattr(point, axis) - getattr(best, axis)) < step * 1.01 + 1e-9
                for axis, step in zip(_AXES, steps, strict=True)
            )
        }
        pictures["heat_map_fine"] = _draw_points(search, fine, f"{title}, {count} images: around the best, mean IoU %")
    return pictures


def _draw_points(search: Search, points: Mapping[Point, float], title: str) -> bytes:
    import numpy as np

    from ..runtime.evaluation.drawing import draw_heat_map

    axes = [sorted({getattr(point, axis) for point in points}) for axis in _AXES]
    grid = np.full((len(axes[2]), len(axes[0]), len(axes[1])), np.nan)
    behind = grid.copy()
    places = {
        point: (axes[2].index(point.srgb), axes[0].index(point.weight), axes[1].index(point.sxy)) for point in points
    }
    for point, score in points.items():
        if point in search.given_up:
            behind[places[point]] = search.given_up[point].behind
        else:
            grid[places[point]] = score
    best = max(points, key=lambda point: points[point])
    return draw_heat_map(
        grid,
        rows=axes[0],
        columns=axes[1],
        panels=[f"colour sigma {value:g}" for value in axes[2]],
        row_name="weight",
        column_name=f"position sigma, pixels (position term: weight {best.near_weight:g}, sigma {best.near_sxy:g})",
        title=title,
        best=places[best],
        behind=behind,
    )


def _choose_grid(
    method: Any,
    weights: tuple[float, ...] | None,
    sxy: tuple[float, ...] | None,
    srgb: tuple[float, ...] | None,
    halvings: int,
) -> Grid:
    from dataclasses import replace

    from ..runtime.evaluation.tuning.search import plan_grid

    own = plan_grid(method)
    return replace(
        own, weights=weights or own.weights, sxys=sxy or own.sxys, srgbs=srgb or own.srgbs, halvings=halvings
    )


def _write(bundle: Path, search: Search, report: dict[str, Any]) -> None:
    from ..runtime.evaluation.tuning.writing import write_crf

    record = {
        "stage": "tune-crf",
        **{key: report[key] for key in ("dataset", "method", "chosen_on", "held_out", "is_better")},
        "points": len(search.memory.scores),
    }
    write_crf(bundle, search.parameters, record)


def _write_pictures(search: Search, report: dict[str, Any], out: Path, title: str) -> dict[str, Path]:
    from ..bundle.files import write_file

    files = {"report": out / REPORT}
    for name, content in draw_search(search, title).items():
        files[name] = out / f"{name}.png"
        write_file(files[name], content)
    text = json.dumps({"schema_version": SCHEMA_VERSION, **report}, indent=1, allow_nan=False) + "\n"
    write_file(files["report"], text.encode())
    return files


def _print_search(search: Search, report: dict[str, Any]) -> None:
    rows = [
        (*(f"{point[axis]:g}" for axis in (*_AXES, "near_weight", "near_sxy")), _percent(point["mean_iou"]))
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
    click.echo(f"{search.runs} runs of the CRF over {search.builds} builds of its lattices")


def _percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value * 100:.2f}"
