"""`atrous run`: run a bundle of any task on images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import console
from .backend_option import backend_options
from .memory_option import memory_option
from .name_option import name_option
from .shard_option import shard_option
from .size_option import choose_size, size_options
from .threads_option import threads_option


def _parse_inputs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    pairs = [value.partition("=") for value in values]
    if any(not name or not path for name, _, path in pairs):
        raise click.BadParameter("give NAME=PATH, such as depth=depth/", context, parameter)
    return {name: Path(path) for name, _, path in pairs}


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder of the results.  [default: print only]")
@click.option(
    "--input",
    "others",
    multiple=True,
    callback=_parse_inputs,
    metavar="NAME=PATH",
    help="Another input of the net, such as depth: a file, or a folder with a file of each image's name (PNG, TIFF or "
    ".npy); may be repeated.",
)
@click.option("--top", type=click.IntRange(1, 1000), default=5, show_default=True, help="Number of classes to show.")
@click.option(
    "--upscale",
    type=click.IntRange(2, 8),
    metavar="N",
    help="Enlarge images N times first (bicubic), as nets such as VDSR expect.",
)
@click.option("--arrays", is_flag=True, help="Write every output of the net as OUT/photo.npz too.")
@click.option("-r", "--recursive", is_flag=True, help="Search the subfolders of folders too.")
@name_option
@shard_option
@size_options
@memory_option
@backend_options
@threads_option()
@console.json_option
def command(
    bundle: Path,
    images: tuple[str, ...],
    out: Path | None,
    others: dict[str, Path],
    top: int,
    upscale: int | None,
    arrays: bool,
    recursive: bool,
    naming: Any,
    shard: tuple[int, int] | None,
    size: Any,
    max_side: int | None,
    native: bool,
    memory: int | None,
    backend: str,
    device: str | None,
    precision: str,
    threads: int | None,
    as_json: bool,
) -> int:
    """Run BUNDLE on IMAGES, by the task that its net was converted for.

    IMAGES are files, folders, patterns such as "photos/*.jpg", http(s) addresses, and - for standard input. The results
    of photo.jpg are:

    \b
    classify       OUT/photo.json, the most probable classes
    regress        OUT/photo.json, the numbers
    points         OUT/photo.json, key points in pixels; OUT/photo.png, drawn on the image
    image, colorize, map   OUT/photo.png
    segment        OUT/photo.png, one byte per pixel, the label; with the palette

    For many images with class labels or a dense CRF use `atrous segment`.

    Exit codes: 0 all done, 1 some images failed, 2 all failed or bad usage, 3 a library or device is missing.
    """  # noqa: D301 (click's \b keeps the line breaks)
    from .. import runtime
    from ..bundle.files import prepare_folder
    from ..errors import AtrousError, InputError
    from ..runtime.batch.shards import Selection, Shard
    from .run_results import OtherInputs, find_run_jobs, print_results, read_enlarged, write_results

    if arrays and out is None:
        raise click.UsageError("--arrays writes files: give --out too")
    chosen: dict[str, Any] = {
        "device": device,
        "threads": threads,
        "precision": precision,
        "memory_bytes": memory,
        **choose_size(size, max_side, native),
    }
    with runtime.load_runner(bundle, backend, **chosen) as runner:
        inputs = OtherInputs(runner, others)
        jobs = find_run_jobs(images, out, runner.task, arrays=arrays, recursive=recursive, naming=naming)
        if shard is not None:
            jobs = list(Selection(jobs, Shard(*shard)))
        if out is not None:
            prepare_folder(out)
        done, failed = [], []
        with console.show_progress("running", len(jobs), unit="images") as advance:
            for job in jobs:
                try:
                    image = read_enlarged(job.image, upscale)
                    result = runner(image, top=top, **inputs.read(job.image))
                except (InputError, runtime.ImageError, runtime.DatasetError) as error:
                    failed.append({"image": str(job.image), "error": str(error)})
                    console.print_warning(f"atrous run: {error}")
                else:
                    done.append(write_results(job, image, result, runner.bundle.manifest))
                advance(1)
    if as_json:
        console.print_json("run", {"bundle": str(bundle), "task": runner.task, "images": done, "failures": failed})
    else:
        print_results(done)
    return (1 if done else AtrousError.exit_code) if failed else 0
