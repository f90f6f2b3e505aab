"""`atrous probe`: likely preprocessings of a bundle on one photo, as a contact sheet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console
from .size_option import choose_size, size_options
from .threads_option import threads_option

if TYPE_CHECKING:
    from ..runtime.probing import Trial

_SHOWN = 8


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("photo", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("probe.png"),
    show_default=True,
    help="PNG file of the contact sheet.",
)
@click.option(
    "--backend",
    type=click.Choice(("onnxruntime", "openvino")),
    default="onnxruntime",
    show_default=True,
    help="Library that runs the network.",
)
@size_options
@threads_option()
@console.json_option
def command(
    bundle: Path,
    photo: Path,
    out: Path,
    backend: str,
    size: tuple[int, int] | None,
    max_side: int | None,
    native: bool,
    threads: int | None,
    as_json: bool,
) -> int:
    """Try the likely preprocessings of BUNDLE on PHOTO and draw a contact sheet.

    Channel orders, means, scales and sizes are combined, each run once without the CRF. The trials are ordered by the
    information that the labels have of the photo, in bits: the net is sure, and of more than one class. Look at the
    sheet: the right preprocessing is usually the first or second. Try it with `atrous segment --mean ... --scale ...
    --color-order ...`, and convert again with the same options to keep it.

    Exit codes: 0 done, 2 bad usage or input, 3 a library is missing.
    """
    from .. import runtime
    from ..bundle.files import prepare_folder, write_file
    from ..runtime.probing import probe
    from .probe_picture import draw_sheet

    if out.suffix.lower() != ".png":
        raise click.UsageError(f"{out}: the contact sheet is a PNG: give it that suffix")
    image = runtime.read_image(photo)
    prepare_folder(out.absolute().parent)
    with console.show_steps() as show:
        done, total = 0, 0

        def advance(steps: int) -> None:
            nonlocal done, total
            total, done = (-steps, 0) if steps < 0 else (total, done + steps)
            show(f"trying preprocessings: {done} of {total}")

        options: dict[str, Any] = choose_size(size, max_side, native)
        trials = probe(bundle, image, backend, threads=threads, advance=advance, **options)
    manifest = runtime.read_bundle(bundle).manifest
    write_file(out, draw_sheet(image, trials, manifest.palette))
    if as_json:
        rows = [_to_json(trial) for trial in trials]
        console.print_json("probe", {"bundle": str(bundle), "photo": str(photo), "sheet": str(out), "trials": rows})
    else:
        _print(trials, out)
    return 0


def _to_json(trial: Trial) -> dict[str, Any]:
    return {
        "color_order": trial.preprocessing.color_order,
        "mean": list(trial.preprocessing.mean),
        "scale": trial.preprocessing.scale,
        "network_size": list(trial.size),
        "information_bits": trial.information,
        "confidence": trial.confidence,
        "is_present": trial.is_present,
    }


def _print(trials: list[Trial], out: Path) -> None:
    from ..runtime.backends.preprocessed import describe_pixels

    rows = [
        (
            str(rank),
            f"{trial.information:.2f}",
            f"{trial.confidence:.0%}",
            "x".join(map(str, trial.size)),
            describe_pixels(trial.preprocessing) + (" (the bundle's)" if trial.is_present else ""),
        )
        for rank, trial in enumerate(trials, 1)
    ]
    present = next(index for index, trial in enumerate(trials) if trial.is_present)
    shown = rows[:_SHOWN] + ([rows[present]] if present >= _SHOWN else [])
    console.print_table(("rank", "bits", "sure", "size", "preprocessing"), shown)
    if present > 0:
        console.print_warning(
            f"warning: the bundle's preprocessing is number {present + 1} of {len(rows)}: look at {out}, try the first"
        )
    console.print_line(f"{len(rows)} trials -> {out}")
