"""`atrous segment`: label images with a bundle.

Stages: decode, then the segmenter's own (prepare, network, scores, crf, labels), then encode. A broken image costs
one line and the exit code 1, the others are still done; exit code 2 where not one could be done.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console

if TYPE_CHECKING:
    from ..runtime import Manifest, Segmentation, Segmenter
    from .image_list import ImageJob

ENDINGS = {"labels": ".png", "overlay": "_overlay.png", "probabilities": ".npy"}
BACKENDS = ("onnxruntime", "torch", "fake")
_SHOWN_IMAGES = 20
_SHOWN_CLASSES = 3


def _parse_kinds(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(part.strip() for part in value.split(",")))
    unknown = [kind for kind in kinds if kind not in ENDINGS]
    if unknown:
        raise click.BadParameter(f'"{unknown[0]}" is none of {", ".join(ENDINGS)}', context, parameter)
    return kinds


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True)
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
@click.option("-r", "--recursive", is_flag=True, help="Search the subfolders of folders too.")
@click.option(
    "--backend", type=click.Choice(BACKENDS), default=BACKENDS[0], show_default=True, help="What runs the network."
)
@click.option("--device", type=click.Choice(("cpu", "cuda")), default="cpu", show_default=True, help="Where it runs.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the network and the CRF.  [default: all cores]")
@console.json_option
def command(
    bundle: Path,
    images: tuple[str, ...],
    out: Path,
    kinds: tuple[str, ...],
    crf: bool | None,
    recursive: bool,
    backend: str,
    device: str,
    threads: int | None,
    as_json: bool,
) -> int:
    """Label IMAGES with BUNDLE and write the results to a folder.

    IMAGES are files, folders, or patterns such as "photos/*.jpg". For photo.jpg are written:

    \b
    labels         OUT/photo.png, one byte a pixel, the label; coloured by a palette
    overlay        OUT/photo_overlay.png, the image tinted by the labels' colours
    probabilities  OUT/photo.npy, float32, labels x height x width, after the CRF

    The backend torch executes the bundle's own model.py: use it with bundles whose maker you trust.

    Exit codes: 0 all done, 1 some images failed, 2 none could be done, 3 a library or device is missing.
    """  # noqa: D301 (click's \\b keeps the lines as they are)
    from .. import runtime
    from ..runtime.files import prepare_folder
    from .image_list import list_images, plan_outputs

    if out.suffix.lower() in (".png", ".jpg", ".npy"):
        raise click.UsageError(f"{out} looks like a file; results go to a folder")
    jobs = plan_outputs(list_images(images, recursive=recursive, exclude=out), out, {k: ENDINGS[k] for k in kinds})
    with runtime.load(bundle, backend, device=device, threads=threads, crf="auto" if crf is None else crf) as segmenter:
        if "probabilities" in kinds and segmenter.head == "labels":
            raise click.UsageError("this bundle's head gives labels only: it has no probabilities to save")
        prepare_folder(out)
        done, failures = _run_jobs(segmenter, jobs, quiet=as_json)
        report = {
            "bundle": bundle,
            "backend": segmenter.backend.name,
            "device": segmenter.backend.device,
            "crf": segmenter.crf is not None,
            "images": done,
            "failures": failures,
        }
    if as_json:
        console.print_json("segment", report)
    else:
        _print_report(done, failures, out, segmenter)
    return (1 if done else 2) if failures else 0


def _run_jobs(
    segmenter: Segmenter, jobs: Sequence[ImageJob], *, quiet: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Work through the images; a result that cannot be written ends the work, an image that fails does not."""
    from ..runtime import InferenceError, OutputError

    done: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    with console.show_progress("segmenting", len(jobs)) as advance:
        for job in jobs:
            try:
                done.append(label_image(segmenter, job))
            except OutputError:
                raise
            except InferenceError as error:
                line = str(error) if str(job.image) in str(error) else f"{job.image}: {error}"
                failures.append({"image": job.image, "error": line})
                console.print_warning(f"atrous segment: {line}")
            advance(1)
    return done, failures


def label_image(segmenter: Segmenter, job: ImageJob) -> dict[str, Any]:
    """Decode one image, label it, write its results, and tell about it.

    Raises:
        ImageError: if the file is not a readable image.
        InputError: if the network does not take it.
        OutputError: if a result cannot be written.
    """
    from ..runtime import read_image
    from ..runtime.files import write_file

    start_s = time.perf_counter()
    image = read_image(job.image)
    decoded_s = time.perf_counter()
    result = segmenter.segment(image, probabilities="probabilities" in job.outputs)
    labelled_s = time.perf_counter()
    for kind, content in encode_results(image, result, segmenter.bundle.manifest, tuple(job.outputs)).items():
        write_file(job.outputs[kind], content)
    encoded_s = time.perf_counter()
    return {
        "image": job.image,
        "height": image.shape[0],
        "width": image.shape[1],
        "outputs": dict(job.outputs),
        "classes": measure_classes(result.labels, segmenter.bundle.manifest.classes),
        "timings_ms": {
            "decode": round((decoded_s - start_s) * 1000, 3),
            **{stage: round(time_ms, 3) for stage, time_ms in result.timings_ms.items()},
            "encode": round((encoded_s - labelled_s) * 1000, 3),
        },
    }


def encode_results(image: Any, result: Segmentation, manifest: Manifest, kinds: Sequence[str]) -> dict[str, bytes]:
    """The files of one image, by kind of result."""
    import io

    import numpy as np

    from ..runtime import pictures

    files: dict[str, bytes] = {}
    if "labels" in kinds:
        files["labels"] = pictures.encode_label_png(result.labels, manifest.palette)
    if "overlay" in kinds:
        files["overlay"] = pictures.encode_png(pictures.make_overlay(image, result.labels, manifest.palette))
    if "probabilities" in kinds:
        assert result.probabilities is not None
        buffer = io.BytesIO()
        np.save(buffer, result.probabilities, allow_pickle=False)
        files["probabilities"] = buffer.getvalue()
    return files


def measure_classes(labels: Any, classes: Sequence[str]) -> dict[str, float]:
    """The share of pixels of each class that occurs, largest first."""
    import numpy as np

    counts = np.bincount(labels.ravel(), minlength=len(classes))
    order = np.argsort(-counts, kind="stable")
    return {classes[index]: float(counts[index] / labels.size) for index in order if counts[index]}


def _print_report(
    done: Sequence[Mapping[str, Any]], failures: Sequence[object], out: Path, segmenter: Segmenter
) -> None:
    if not done:
        return  # each failure has had its line
    rows = []
    for record in done[:_SHOWN_IMAGES]:
        largest = [(name, share) for name, share in record["classes"].items() if share >= 0.005][:_SHOWN_CLASSES]
        shares = [f"{name} {share:.0%}" for name, share in largest]
        size = f"{record['width']}x{record['height']}"
        rows.append((record["image"].name, size, f"{sum(record['timings_ms'].values()):.0f} ms", ", ".join(shares)))
    console.print_table(("image", "size", "time", "classes"), rows)
    if len(done) > _SHOWN_IMAGES:
        click.echo(f"... and {len(done) - _SHOWN_IMAGES} more")
    stages = ["network"] + (["crf"] if segmenter.crf is not None else [])
    times = ", ".join(f"{name} {sum(r['timings_ms'][name] for r in done) / len(done):.0f} ms" for name in stages)
    crf = "with the dense CRF" if segmenter.crf is not None else "without a CRF"
    failed = f", {len(failures)} failed" if failures else ""
    click.echo(f"{len(done)} labelled {crf}{failed} (on average: {times}) -> {out}")
