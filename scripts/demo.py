"""`atrous demo`: from Caffe's files to a picture of labels, on the built-in miniature.

The prototxt and the caffemodel that ship with atrous are converted to a bundle, which segments the shipped held-out
scenes without and with the dense CRF. The labels are compared with the exact truth.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click

from . import console

if TYPE_CHECKING:
    from ..runtime import Segmentation, Segmenter
    from .demo_picture import DemoRow, Picture
    from .miniature.settings import MiniatureFiles, Settings

PICTURE_NAME = "demo.png"
BUNDLE_NAME = "deeplab-miniature"


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo: mean IoU over all pixels as fractions of 1, median milliseconds per scene."""

    picture: Path
    bundle: Path
    scenes: int
    miou_network: float
    miou_crf: float
    convert_s: float
    network_ms: float
    crf_ms: float


@click.command()
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/demo"),
    show_default=True,
    help="Folder for the picture and the bundle.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Number of threads of the network and of the CRF.  [default: all cores]",
)
@console.json_option
def command(out: Path, threads: int | None, as_json: bool) -> None:
    """Convert the built-in miniature, segment its held-out scenes, and draw one picture.

    Each row of the picture is a scene: image, the network's labels, the labels after the dense CRF, and the truth.
    """
    result, rows = run_demo(out, threads=threads)
    if as_json:
        console.print_json("demo", dataclasses.asdict(result))
        return
    console.print_table(
        ("scene", "network %", "with CRF %", "network ms", "CRF ms"),
        [
            (
                name,
                round(row.miou_network * 100, 1),
                round(row.miou_crf * 100, 1),
                round(row.network_ms),
                round(row.crf_ms),
            )
            for name, row in rows.items()
        ],
        title="mean IoU and time of each held-out scene",
    )
    click.echo()
    console.print_line(
        f"mean IoU over all {result.scenes} scenes: {result.miou_network:.1%} from the network, "
        f"{result.miou_crf:.1%} with the CRF"
    )
    console.print_line(f"converted in {result.convert_s:.1f} s to {result.bundle}")
    console.print_line(f"picture: {result.picture}")


def run_demo(folder: Path, *, threads: int | None = None) -> tuple[DemoResult, dict[str, DemoRow]]:
    """Convert the miniature, segment its scenes, draw the picture; replaces an earlier demo in `folder`."""
    from .. import runtime
    from ..bundle.files import prepare_folder, write_file
    from ..errors import MissingDependencyError
    from ..runtime.pictures import encode_png
    from .demo_picture import draw_demo
    from .miniature.settings import MiniatureFiles, read_settings

    files = MiniatureFiles()
    settings = read_settings(files.settings)
    prepare_folder(folder)
    bundle = folder / BUNDLE_NAME
    try:
        convert_s = convert_miniature(files, settings, bundle)
    except ImportError as error:  # torch, onnx and protobuf come with an extra
        missing = "protobuf" if (error.name or "").startswith("google") else error.name
        raise MissingDependencyError(
            f"the demo converts a net, which needs {missing}: pip install 'atrous[convert]'"
        ) from error
    with runtime.load(bundle, threads=threads, crf=True) as segmenter:
        rows = segment_scenes(segmenter, files, settings)
    result = _sum_up(rows, folder / PICTURE_NAME, bundle, convert_s, len(settings.classes))
    summary = (
        f"{result.scenes} held-out scenes: mean IoU {result.miou_network:.1%} from the network, "
        f"{result.miou_crf:.1%} with the dense CRF"
    )
    heading = "DeepLab in small: Caffe files to labels"
    picture = draw_demo(list(rows.values()), settings.classes, settings.palette, heading, summary)
    write_file(result.picture, encode_png(picture))
    copy_inputs(folder, files, settings)
    return result, rows


def copy_inputs(folder: Path, files: MiniatureFiles, settings: Settings) -> None:
    """Copy Caffe's two files to `caffe/`, the scenes to `scenes/` and `truth/`, for the commands of the README."""
    from ..bundle.files import write_file

    for source in (files.prototxt, files.caffemodel):
        write_file(folder / "caffe" / source.name, source.read_bytes())
    for seed in settings.scenes:
        picture, truth = files.scene(seed)
        write_file(folder / "scenes" / picture.name, picture.read_bytes())
        write_file(folder / "truth" / picture.name, truth.read_bytes())


def convert_miniature(files: MiniatureFiles, settings: Settings, bundle: Path) -> float:
    """Write the bundle from Caffe's files; returns the seconds spent."""
    from .. import converter
    from ..converter.files.caffemodel import read_caffemodel

    start_s = time.perf_counter()
    weights = read_caffemodel(files.caffemodel)
    net = converter.read_net(files.prototxt, weights)
    options = converter.BundleOptions(
        name=settings.name,
        classes=settings.classes,
        palette=settings.palette,
        preprocessing=converter.PreprocessingOptions(mean=settings.mean),
        crf=settings.crf,
        sources=(
            ("prototxt", files.prototxt, net.definition.format, net.dialect),
            ("caffemodel", files.caffemodel, weights.format, weights.dialect.name),
        ),
    )
    with console.show_steps() as show:
        converter.write_bundle(net, bundle, options, replace=True, progress=show)
    return time.perf_counter() - start_s


def segment_scenes(segmenter: Segmenter, files: MiniatureFiles, settings: Settings) -> dict[str, DemoRow]:
    """Segment each shipped scene without and with the CRF; the first scene once more, to warm up."""
    from ..runtime import Segmenter, read_image
    from ..runtime.evaluation.datasets.label_files import read_label_image

    network = Segmenter(segmenter.bundle, segmenter.backend)
    rows: dict[str, DemoRow] = {}
    scenes = [files.scene(seed) for seed in settings.scenes]
    with console.show_progress("segmenting", len(scenes)) as advance:
        for picture, truth in scenes:
            image = read_image(picture)
            if not rows:
                segmenter(image)
            rows[picture.stem] = _make_row(
                image, network.segment(image), segmenter.segment(image), read_label_image(truth), len(settings.classes)
            )
            advance(1)
    return rows


def _make_row(image: Picture, network: Segmentation, crf: Segmentation, truth: Picture, classes: int) -> DemoRow:
    """Compare the labels of an image (H, W, 3) before and after the CRF with the truth (H, W)."""
    from ..runtime.evaluation import count_confusion, mean_iou
    from .demo_picture import DemoRow

    return DemoRow(
        image=image,
        network=network.labels,
        crf=crf.labels,
        truth=truth,
        miou_network=mean_iou(count_confusion(truth, network.labels, classes)),
        miou_crf=mean_iou(count_confusion(truth, crf.labels, classes)),
        network_ms=sum(network.timings_ms.values()),
        crf_ms=crf.timings_ms["crf"],
    )


def _sum_up(rows: dict[str, DemoRow], picture: Path, bundle: Path, convert_s: float, classes: int) -> DemoResult:
    import numpy as np

    from ..runtime.evaluation import count_confusion, mean_iou

    before = np.stack([count_confusion(row.truth, row.network, classes) for row in rows.values()])
    after = np.stack([count_confusion(row.truth, row.crf, classes) for row in rows.values()])
    return DemoResult(
        picture=picture,
        bundle=bundle,
        scenes=len(rows),
        miou_network=mean_iou(before),
        miou_crf=mean_iou(after),
        convert_s=convert_s,
        network_ms=median(row.network_ms for row in rows.values()),
        crf_ms=median(row.crf_ms for row in rows.values()),
    )
