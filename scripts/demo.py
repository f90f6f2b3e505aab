"""`atrous demo`: from Caffe's files to a picture of labels, on the built-in miniature.

The prototxt and the caffemodel that ship with atrous are converted to a bundle, which segments the shipped held-out
scenes without and with the dense CRF. The labels are compared with the exact truth. Without the libraries of
`atrous[convert]`, the CRF refines stored scores of the network instead.
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
from .threads_option import threads_option

if TYPE_CHECKING:
    from .demo_picture import DemoRow, Picture
    from .miniature.settings import MiniatureFiles, Settings

PICTURE_NAME = "demo.png"
BUNDLE_NAME = "deeplab-miniature"


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo: mean IoU over all pixels as fractions of 1, median milliseconds per scene.

    `missing` names the library without which stored scores were refined; then nothing was converted or run.
    """

    picture: Path
    scenes: int
    miou_network: float
    miou_crf: float
    crf_ms: float
    bundle: Path | None = None
    convert_s: float | None = None
    network_ms: float | None = None
    missing: str | None = None


@click.command()
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/demo"),
    show_default=True,
    help="Folder for the picture and the bundle.",
)
@threads_option("Number of threads of the network and of the CRF.  [default: all cores]")
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
                "" if row.network_ms is None else round(row.network_ms),
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
    if result.missing is None:
        console.print_line(f"converted in {result.convert_s:.1f} s to {result.bundle}")
    else:
        console.print_line(
            f"{result.missing} is not installed: the dense CRF refined stored scores of the network. To convert the "
            "network and run it here: pip install 'atrous[convert]'"
        )
    console.print_line(f"picture: {result.picture}")


def run_demo(folder: Path, *, threads: int | None = None) -> tuple[DemoResult, dict[str, DemoRow]]:
    """Convert the miniature, segment its scenes, draw the picture; replaces an earlier demo in `folder`."""
    from ..bundle.files import prepare_folder, write_file
    from ..bundle.folder import read_bundle
    from ..runtime.hub.card import CARD_NAME, write_card
    from ..runtime.pictures import encode_png
    from .demo_picture import draw_demo
    from .miniature.settings import MiniatureFiles, read_settings

    files = MiniatureFiles()
    settings = read_settings(files.settings)
    prepare_folder(folder)
    bundle, convert_s, missing = folder / BUNDLE_NAME, None, None
    try:
        convert_s = convert_miniature(files, settings, bundle)
    except ImportError as error:  # torch, onnx and protobuf come with an extra
        missing = "protobuf" if (error.name or "").startswith("google") else error.name or str(error)
        rows = refine_scenes(files, settings, threads)
    else:
        rows = segment_scenes(bundle, files, settings, threads)
        write_file(bundle / CARD_NAME, write_card(read_bundle(bundle), license="apache-2.0").encode())
    result = _sum_up(rows, folder / PICTURE_NAME, len(settings.classes))
    result = dataclasses.replace(result, convert_s=convert_s, missing=missing, bundle=None if missing else bundle)
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


def segment_scenes(bundle: Path, files: MiniatureFiles, settings: Settings, threads: int | None) -> dict[str, DemoRow]:
    """Segment each shipped scene without and with the CRF; the first scene once more, to warm up."""
    from .. import runtime

    rows: dict[str, DemoRow] = {}
    with (
        runtime.load(bundle, threads=threads, crf=True) as segmenter,
        console.show_progress("segmenting", len(settings.scenes)) as advance,
    ):
        network = runtime.Segmenter(segmenter.bundle, segmenter.backend)
        for seed in settings.scenes:
            image = runtime.read_image(files.scene(seed)[0])
            if not rows:
                segmenter(image)
            before, after = network.segment(image), segmenter.segment(image)
            network_ms, crf_ms = sum(before.timings_ms.values()), after.timings_ms["crf"]
            rows.update(_make_row(files, settings, seed, (before.labels, network_ms), (after.labels, crf_ms)))
            advance(1)
    return rows


def refine_scenes(files: MiniatureFiles, settings: Settings, threads: int | None) -> dict[str, DemoRow]:
    """Refine the stored scores of each shipped scene by the CRF."""
    from .miniature.stored_scores import refine_stored_scores

    rows: dict[str, DemoRow] = {}
    with console.show_progress("refining", len(settings.scenes)) as advance:
        for seed, (before, after, crf_ms) in refine_stored_scores(files, settings, threads, advance).items():
            rows.update(_make_row(files, settings, seed, (before, None), (after, crf_ms)))
    return rows


def _make_row(
    files: MiniatureFiles,
    settings: Settings,
    seed: int,
    network: tuple[Picture, float | None],
    crf: tuple[Picture, float],
) -> dict[str, DemoRow]:
    """The scene's name, and its labels before and after the CRF, with their milliseconds, beside the truth."""
    from ..runtime import read_image
    from ..runtime.evaluation import count_confusion, mean_iou
    from ..runtime.evaluation.datasets.label_files import read_label_image
    from .demo_picture import DemoRow

    picture, label_map = files.scene(seed)
    truth = read_label_image(label_map)
    miou_network, miou_crf = (
        mean_iou(count_confusion(truth, labels, len(settings.classes))) for labels in (network[0], crf[0])
    )
    row = DemoRow(
        image=read_image(picture),
        network=network[0],
        crf=crf[0],
        truth=truth,
        miou_network=miou_network,
        miou_crf=miou_crf,
        network_ms=network[1],
        crf_ms=crf[1],
    )
    return {picture.stem: row}


def _sum_up(rows: dict[str, DemoRow], picture: Path, classes: int) -> DemoResult:
    import numpy as np

    from ..runtime.evaluation import count_confusion, mean_iou

    before = np.stack([count_confusion(row.truth, row.network, classes) for row in rows.values()])
    after = np.stack([count_confusion(row.truth, row.crf, classes) for row in rows.values()])
    network_ms = [row.network_ms for row in rows.values() if row.network_ms is not None]
    return DemoResult(
        picture=picture,
        scenes=len(rows),
        miou_network=mean_iou(before),
        miou_crf=mean_iou(after),
        network_ms=median(network_ms) if network_ms else None,
        crf_ms=median(row.crf_ms for row in rows.values()),
    )
