"""`atrous bench crf`: the dense CRF by number of threads on this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import console
from .crf import RECIPE_NAMES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..runtime.benchmark.crf_scaling import CrfScaling

DIFFERENT = 1
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})x(\d{1,3})", re.IGNORECASE)
_NOISE = 6.0  # standard deviation in gray levels, as of a photo: it determines the number of lattice vertices


def _parse_size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int, int]:
    match = _SIZE.fullmatch(value)
    if match is None or "0" in match.groups():
        raise click.BadParameter(f'"{value}" is not HEIGHTxWIDTHxLABELS, such as 513x513x21', context, parameter)
    return int(match[1]), int(match[2]), int(match[3])


def _parse_threads(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    if value is None:
        return None
    parts = value.split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= 256 for part in parts):
        raise click.BadParameter(f'"{value}" is not numbers from 1 to 256, such as 1,2,4', context, parameter)
    return [int(part) for part in parts]


@click.command("crf")
@click.option(
    "--size",
    callback=_parse_size,
    default="513x513x21",
    show_default=True,
    metavar="HxWxL",
    help="Height and width in pixels, and number of labels.",
)
@click.option(
    "--recipe",
    type=click.Choice(RECIPE_NAMES),
    default="deeplab-pytorch",
    show_default=True,
    help="Settings of the CRF.",
)
@click.option("--iterations", type=click.IntRange(0, 1000), help="Mean-field updates.  [default: the recipe's]")
@click.option("--threads", callback=_parse_threads, metavar="N,...", help="Numbers of threads.  [default: 1 to all]")
@click.option("--runs", type=click.IntRange(1, 1000), default=5, show_default=True, help="Rounds; the best one counts.")
@click.option("--image", type=click.Path(path_type=Path, dir_okay=False), help="Photo to use, resized to --size.")
@console.json_option
def bench_crf(
    size: tuple[int, int, int],
    recipe: str,
    iterations: int | None,
    threads: list[int] | None,
    runs: int,
    image: Path | None,
    as_json: bool,
) -> int:
    """Measure the dense CRF with 1 to all threads, and against pydensecrf if it is installed.

    All take turns. Every result is checked: equal bits for every number of threads, and pydensecrf's labels. The image
    is a scene of the built-in miniature with noise, or a photo of yours; the scores are random.

    Exit codes: 0 measured, 1 results differ, 2 bad usage or input, 3 a library is missing.
    """
    from dataclasses import replace

    from ..dependencies import import_crf

    import_crf()
    from ..runtime.benchmark.crf_scaling import check_memory, measure_scaling
    from ..runtime.crf.recipes import RECIPES

    parameters = RECIPES[recipe] if iterations is None else replace(RECIPES[recipe], iterations=iterations)
    height, width, labels = size
    check_memory(height, width, labels, 1)  # before the image is made
    with console.show_steps() as show:
        result = measure_scaling(
            _load_image(image, height, width), labels, parameters, threads=threads, runs=runs, on_step=show
        )
    if as_json:
        console.print_json("bench", {"crf": result.model_dump(mode="json")})
    else:
        _print(result)
    if result.labels_equal is False or not result.bits_equal:
        console.print_warning("atrous bench: results differ: please report this with the output of --json")
        return DIFFERENT
    return 0


def _load_image(path: Path | None, height: int, width: int) -> npt.NDArray[np.uint8]:
    import numpy as np

    if path is not None:
        from ..runtime import read_image
        from ..runtime.resizing import resize_image

        return np.ascontiguousarray(resize_image(read_image(path), (height, width)))
    from .bench_images import resize_scenes

    scene = resize_scenes((height, width), 1)[0].image
    noise = np.random.default_rng(0).normal(0, _NOISE, scene.shape)
    return np.clip(scene + noise, 0, 255).astype(np.uint8)


def _print(result: CrfScaling) -> None:
    busy = "" if result.load is None else f", load {result.load}"
    click.secho(
        f"{result.height}x{result.width}x{result.labels}, {result.parameters.iterations} updates: "
        f"{result.processor}, {result.cores} processors{busy}, {result.kernels}",
        bold=True,
    )
    columns = [
        "",
        "threads",
        "best ms",
        "median ms",
        "speed-up",
        "over pydensecrf",
        "lattices",
        "splat",
        "blur",
        "slice",
    ]
    rows = []
    for row in result.rows:
        phases = [f"{row.phases_ms[name]:.1f}" if row.phases_ms else "" for name in columns[6:]]
        ratio = "" if row.over_pydensecrf is None else f"{row.over_pydensecrf:.2f} x"
        rows.append(
            [
                row.name,
                row.threads,
                f"{row.best_ms:.1f}",
                f"{row.median_ms:.1f}",
                f"{row.speedup:.2f} x",
                ratio,
                *phases,
            ]
        )
    console.print_table(columns, rows)
    if result.reference is None:
        console.print_line('pydensecrf is not installed: pip install "atrous[pydensecrf]" (Python 3.12 or older)')
    else:
        equal = "the same labels" if result.labels_equal else "OTHER LABELS"
        console.print_line(f"pydensecrf {result.reference}: {equal}")
    console.print_line(f"all thread counts: {'the same bits' if result.bits_equal else 'OTHER BITS'}")
