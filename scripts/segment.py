"""`atrous segment`: label images with a bundle, by `runtime.batch.label_files`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, TextIO

import click
from click.core import ParameterSource

from . import console
from .backend_option import backend_options
from .crf_option import crf_option
from .list_file import ListFile
from .memory_option import memory_option
from .name_option import name_option
from .pixel_options import choose_pixels, pixel_options
from .ray_option import choose_nodes, ray_option
from .shard_option import shard_option
from .size_option import choose_size, size_options
from .threads_option import threads_option
from .workers_option import workers_option

_NOT_FOR_VIDEOS = (
    *("kinds", "opacity", "outlines", "legend", "jpeg", "fast_crf", "recursive", "naming"),
    *("all_frames", "ignore_transparent", "workers", "batch", "shard", "ray_address", "resume"),
)


def _parse_kinds(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(","))


def _refuse_given(*names: str) -> None:
    """Refuse options that a video has no use for, if they are on the command line."""
    context = click.get_current_context()
    for option in context.command.params:
        if option.name in names and context.get_parameter_source(option.name) != ParameterSource.DEFAULT:
            raise click.UsageError(f"{option.opts[0]} is not for videos: leave it out")


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1)
@click.option(
    "--list",
    "listing",
    type=ListFile(),
    metavar="FILE",
    help="Read the paths of the images from FILE, one per line; - for stdin. Any number of lines.",
)
@click.option(
    "-o",
    "--out",
    default="labels",
    show_default=True,
    metavar="OUT",
    help="Folder of the results, or an address such as s3://bucket/labels.",
)
@click.option(
    "--save",
    "kinds",
    default="labels",
    show_default=True,
    callback=_parse_kinds,
    metavar="KINDS",
    help="Results to write, separated by commas: labels, overlay, masks, coco, probabilities.",
)
@click.option("--opacity", type=click.FloatRange(0, 1), default=0.55, show_default=True, help="Opacity of overlays.")
@click.option("--outlines/--no-outlines", default=True, help="Draw borders in overlays, or none.")
@click.option("--legend", is_flag=True, help="List the classes and their shares below overlays.")
@click.option("--jpeg", is_flag=True, help="Write overlays as JPEG.")
@crf_option
@click.option(
    "--fast-crf",
    is_flag=True,
    help="Use the CRF's shortcuts: faster, and few labels change; `atrous bench` measures how many.",
)
@click.option(
    "--crf-device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Run the dense CRF on the CPU or on an NVIDIA GPU; the labels are the same.",
)
@size_options
@memory_option
@pixel_options
@click.option("-r", "--recursive", is_flag=True, help="Search the subfolders of folders too.")
@name_option
@click.option(
    "--all-frames", is_flag=True, help="Label every frame of an animation and page of a file, not the first alone."
)
@click.option("--ignore-transparent", is_flag=True, help="Give transparent pixels the label 255 (void).")
@shard_option
@ray_option("Label")
@backend_options
@threads_option()
@workers_option
@click.option(
    "--batch",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Largest number of images of one size in a run of the network.",
)
@click.option(
    "--resume/--again", default=True, help="Skip the images that are done, or do all again.  [default: resume]"
)
@click.option(
    "--warm-crf",
    type=click.IntRange(min=1),
    metavar="N",
    help="In a video: start the CRF of a frame from the one before, with N updates. Faster; labels change.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Stop a video after S seconds."
)
@console.json_option
def command(
    bundle: Path,
    images: tuple[str, ...],
    listing: TextIO | None,
    out: str,
    kinds: tuple[str, ...],
    opacity: float,
    outlines: bool,
    legend: bool,
    jpeg: bool,
    crf: bool | str,
    fast_crf: bool,
    crf_device: str,
    size: tuple[int, int] | None,
    max_side: int | None,
    native: bool,
    memory: int | None,
    mean: tuple[float, ...] | None,
    scale: float | None,
    color_order: str | None,
    recursive: bool,
    naming: Any,
    all_frames: bool,
    ignore_transparent: bool,
    shard: tuple[int, int] | None,
    ray_address: str | None,
    backend: str,
    device: str | None,
    precision: str,
    threads: int | None,
    workers: dict[str, int],
    batch: int,
    resume: bool,
    warm_crf: int | None,
    seconds: float | None,
    as_json: bool,
) -> int:
    """Label IMAGES with BUNDLE and write the results to a folder.

    IMAGES are files, folders, patterns such as "photos/*.jpg", http(s) addresses, addresses of
    object stores such as s3://bucket/photos, and - for standard input. The results
    of photo.jpg are:

    \b
    labels         OUT/photo.png, one byte per pixel, the label; with the palette
    overlay        OUT/photo_overlay.png (.jpg), the image tinted by the labels' colors
    masks          OUT/photo_masks/, a black and white PNG for each class that occurs
    coco           OUT/photo_coco.json, COCO's annotations: area, box and run lengths of each class that occurs
    probabilities  OUT/photo.npy, float32, labels x height x width, after the CRF

    A single video, or a camera such as /dev/video0, becomes a video of overlays: -o clip.mp4.

    With --name path, and in a --list, the labels of folder/photo.jpg are OUT/folder/photo.jpg.png, and so on.

    OUT/done.jsonl records the finished images: after any interruption, the same command resumes the run.
    OUT/failures.jsonl lists the images of this run that failed. The stages (decode, prepare, network, crf, encode)
    run concurrently; the last line of the output names the slowest.

    The backend torch executes the bundle's own model.py: use it only with bundles from a source you trust.

    Exit codes: 0 all done, 1 some images failed, 2 all failed or bad usage, 3 a library or device is missing,
    130 interrupted by Ctrl-C or SIGTERM, after the images in progress.
    """  # noqa: D301 (click's \b keeps the line breaks)
    from ..dependencies import import_crf
    from ..runtime.batch import is_video, label_files
    from ..runtime.pictures import OverlayStyle
    from .segment_report import SegmentReport
    from .segment_video import segment_video

    options = {
        "backend": backend,
        "device": device,
        "precision": precision,
        "crf_device": crf_device,
        "crf": crf,
        "memory_bytes": memory,
        "pixels": choose_pixels(mean, scale, color_order),
        **choose_size(size, max_side, native),
    }
    if len(images) == 1 and is_video(images[0]):
        _refuse_given(*_NOT_FOR_VIDEOS)
        return segment_video(bundle, images[0], Path(out), warm_crf, seconds, threads, options, as_json)
    if warm_crf is not None or seconds is not None:
        raise click.UsageError("--warm-crf and --seconds are for a single video")
    if Path(out).suffix.lower() in (".png", ".jpg", ".npy"):
        raise click.UsageError(f"{out} looks like a file; results go to a folder")
    if bool(images) == (listing is not None):
        raise click.UsageError("give some IMAGES, or a --list of them")
    given = images if listing is None else listing
    options |= {
        "kinds": kinds,
        "style": OverlayStyle(opacity, outlines, legend, "jpeg" if jpeg else "png"),
        "recursive": recursive,
        "naming": naming,
        "all_frames": all_frames,
        "ignore_transparent": ignore_transparent,
        "is_list": listing is not None,
        "resume": resume,
        "workers": workers,
        "batch": batch,
        "crf_shortcuts": import_crf().FAST if fast_crf else None,
    }
    if ray_address is not None:
        from .segment_ray import segment_on_ray

        if shard is not None:
            raise click.UsageError("--ray divides the images itself: leave out --shard")
        return segment_on_ray(bundle, given, out, choose_nodes(ray_address, threads, device), as_json, options)
    with contextlib.ExitStack() as stack:
        report = stack.enter_context(SegmentReport(as_json, fast_crf))
        summary = label_files(bundle, given, out, shard=shard, cores=threads, observer=report, **options)
        report.stop_progress()
        report.print_warnings()
        report.print_json() if as_json else report.print_text(out)
    return (1 if summary.labeled or summary.skipped else 2) if summary.failed else 0
