"""`atrous segment`: label images with a bundle.

The stages (decode, prepare, network, crf, encode) run side by side in `runtime.pipeline`. A broken image costs one line
and the exit code 1, the others are still done; exit code 2 where not one could be done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from . import console
from .backend_option import backend_options
from .workers_option import workers_option

if TYPE_CHECKING:
    from ..runtime import Segmenter
    from .image_list import ImageJob
    from .segment_run import RunOptions, Summary

ENDINGS = {"labels": ".png", "overlay": "_overlay.png", "probabilities": ".npy"}
_SHOWN_CLASSES = 3
_ENOUGH_TO_JUDGE = 8  # images before a bottleneck is named


def _parse_kinds(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(part.strip() for part in value.split(",")))
    unknown = [kind for kind in kinds if kind not in ENDINGS]
    if unknown:
        raise click.BadParameter(f'"{unknown[0]}" is none of {", ".join(ENDINGS)}', context, parameter)
    return kinds


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1)
@click.option(
    "--list",
    "listing",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Read the images from a file, one path a line, or from - (stdin); of any length.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("labels"),
    show_default=True,
    help="Folder of the results.",
)
@click.option(
    "--save",
    "kinds",
    default="labels",
    show_default=True,
    callback=_parse_kinds,
    metavar="KINDS",
    help="What to write, separated by commas: labels, overlay, probabilities.",
)
@click.option(
    "--crf/--no-crf", default=None, help="Insist on the dense CRF, or leave it out.  [default: as the bundle]"
)
@click.option(
    "--fast-crf",
    is_flag=True,
    help="Let the CRF take its shortcuts: faster, and few labels change; `atrous bench` counts them.",
)
@click.option("-r", "--recursive", is_flag=True, help="Search the subfolders of folders too.")
@backend_options
@click.option("--threads", type=click.IntRange(min=1), help="Cores to use.  [default: all]")
@workers_option
@click.option(
    "--batch",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Images of one size that the network may take at once.",
)
@click.option(
    "--resume/--again", default=True, help="Leave out what is done already, or do it again.  [default: resume]"
)
@click.option("--profile", type=click.Path(path_type=Path, dir_okay=False), help="Write a trace that Perfetto opens.")
@console.json_option
def command(
    bundle: Path,
    images: tuple[str, ...],
    listing: TextIO | None,
    out: Path,
    kinds: tuple[str, ...],
    crf: bool | None,
    fast_crf: bool,
    recursive: bool,
    backend: str,
    device: str | None,
    precision: str,
    threads: int | None,
    workers: dict[str, int],
    batch: int,
    resume: bool,
    profile: Path | None,
    as_json: bool,
) -> int:
    """Label IMAGES with BUNDLE and write the results to a folder.

    IMAGES are files, folders, or patterns such as "photos/*.jpg". For photo.jpg are written:

    \b
    labels         OUT/photo.png, one byte a pixel, the label; coloured by a palette
    overlay        OUT/photo_overlay.png, the image tinted by the labels' colours
    probabilities  OUT/photo.npy, float32, labels x height x width, after the CRF

    For folder/photo.jpg of a --list it is OUT/folder/photo.jpg.png, and so on.

    OUT/done.jsonl records what is done: after an interruption of any kind the same command goes on from there.
    OUT/failures.jsonl records the images of this run that failed. The stages (decode, prepare, network, crf, encode)
    work side by side; the last line says which one holds the others up.

    The backend torch executes the bundle's own model.py: use it with bundles whose maker you trust.

    Exit codes: 0 all done, 1 some images failed, 2 none could be done, 3 a library or device is missing,
    130 interrupted.
    """  # noqa: D301 (click's \b keeps the lines as they are)
    from .. import runtime
    from ..bundle.files import prepare_folder
    from ..dependencies import import_crf
    from ..runtime.pipeline import TraceWriter
    from ..runtime.pipeline.engine import count_cores
    from .image_list import list_images, plan_outputs, read_list
    from .segment_run import RunOptions

    if out.suffix.lower() in (".png", ".jpg", ".npy"):
        raise click.UsageError(f"{out} looks like a file; results go to a folder")
    if bool(images) == (listing is not None):
        raise click.UsageError("name some IMAGES, or give a --list of them")
    endings = {kind: ENDINGS[kind] for kind in kinds}
    jobs: Iterable[ImageJob]
    if listing is not None:
        jobs, count = read_list(listing, out, endings), None
    else:
        jobs = plan_outputs(list_images(images, recursive=recursive, exclude=out), out, endings)
        count = len(jobs)
    cores = threads or count_cores()
    with runtime.load(
        bundle,
        backend,
        device=device,
        precision=precision,
        threads=cores,
        crf="auto" if crf is None else crf,
        crf_shortcuts=import_crf().FAST if fast_crf else None,
    ) as segmenter:
        if fast_crf and segmenter.crf is None:
            raise click.UsageError("--fast-crf, but there is no CRF here: leave it out")
        if "probabilities" in kinds and segmenter.head == "labels":
            raise click.UsageError("this bundle's head gives labels only: it has no probabilities to save")
        prepare_folder(out)
        with contextlib.ExitStack() as stack:
            trace = stack.enter_context(TraceWriter(profile)) if profile is not None else None
            options = RunOptions(out, kinds, cores, precision, workers, batch, not resume, trace)
            return _label(segmenter, jobs, count, options, as_json=as_json)


def _label(
    segmenter: Segmenter, jobs: Iterable[ImageJob], count: int | None, options: RunOptions, *, as_json: bool
) -> int:
    from .segment_run import Spool, Summary, run_segmenter

    summary = Summary()
    failures: list[dict[str, Any]] = []

    def note_failure(failure: dict[str, Any]) -> None:
        console.print_warning(f"atrous segment: {failure['error']}")
        if as_json:
            failures.append(failure)

    with contextlib.closing(Spool()) as spool:
        try:
            with console.show_progress("segmenting", count, unit="images") as advance:
                run_segmenter(
                    segmenter,
                    jobs,
                    options,
                    summary,
                    on_done=spool.add if as_json else lambda record: None,
                    on_failure=note_failure,
                    advance=advance,
                )
        except KeyboardInterrupt:
            left = "" if count is None else f" and about {count - summary.done - summary.failed - summary.skipped} left"
            so_far = f"stopped with {summary.done} labelled{left}"
            console.print_warning(f"atrous segment: {so_far}: the same command goes on from here")
            raise
        if as_json:
            assert summary.report is not None
            report = {
                "bundle": segmenter.bundle.path,
                "backend": segmenter.backend.name,
                "device": segmenter.backend.device,
                "precision": options.precision,
                "crf": segmenter.crf is not None,
                "crf_shortcuts": segmenter.crf_shortcuts,
                "labelled": summary.done,
                "skipped": summary.skipped,
                "failures": failures,
                "pipeline": summary.report.to_json(),
            }
            console.print_json_rows("segment", report, "images", spool)
        else:
            _print_summary(summary, options.out, segmenter)
    return (1 if summary.done or summary.skipped else 2) if summary.failed else 0


def _print_summary(summary: Summary, out: Path, segmenter: Segmenter) -> None:
    again = f"{summary.skipped} were done before (--again does them again)"
    if not summary.done:
        if summary.skipped:
            click.echo(f"{again} -> {out}")
        return  # each failure has had its line
    rows = []
    for record in summary.rows:
        largest = [(name, share) for name, share in record["classes"].items() if share >= 0.005][:_SHOWN_CLASSES]
        shares = [f"{name} {share:.0%}" for name, share in largest]
        size = f"{record['width']}x{record['height']}"
        rows.append((record["image"].name, size, f"{sum(record['timings_ms'].values()):.0f} ms", ", ".join(shares)))
    console.print_table(("image", "size", "time", "classes"), rows)
    if summary.done > len(rows):
        click.echo(f"... and {summary.done - len(rows)} more")
    stages = ["network"] + (["crf"] if segmenter.crf is not None else [])
    times = ", ".join(f"{name} {summary.spent_ms[name] / summary.done:.0f} ms" for name in stages)
    crf = "with the dense CRF" if segmenter.crf is not None else "without a CRF"
    crf += " and its shortcuts" if segmenter.crf_shortcuts else ""
    failed = f", {summary.failed} failed (see failures.jsonl)" if summary.failed else ""
    click.echo(f"{summary.done} labelled {crf}{failed} (on average: {times}) -> {out}")
    if summary.skipped:
        click.echo(again)
    if summary.done >= _ENOUGH_TO_JUDGE and summary.report is not None:
        click.echo(summary.report.describe_limit())
