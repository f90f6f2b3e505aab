"""`atrous demo`: the whole path on the built-in miniature, from Caffe's files to a picture of labels.

The prototxt and the caffemodel that ship with atrous are converted to a bundle, the held-out scenes beside them are
segmented with it, before and after the dense CRF, and scored against their exact truth.
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
    from ..runtime import Segmenter
    from .demo_picture import DemoRow, Picture
    from .miniature.settings import MiniatureFiles, Settings

PICTURE_NAME = "demo.png"
BUNDLE_NAME = "deeplab-miniature"


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Attributes:
        picture: the PNG that was written.
        bundle: the bundle that was written.
        scenes: how many held-out scenes were segmented.
        miou_network, miou_crf: mean IoU, pixels pooled over the scenes, as fractions of 1.
        convert_s: seconds to convert the net and write the bundle.
        network_ms, crf_ms: median milliseconds a scene.
    """

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
    help="Folder of the picture and the bundle.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the network and the CRF.  [default: all cores]")
@console.json_option
def command(out: Path, threads: int | None, as_json: bool) -> None:
    """Convert the built-in miniature, segment its held-out scenes, leave one picture.

    The picture shows a row a scene: image, the network's labels, the labels after the dense CRF, and the truth.
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
    click.echo(
        f"\nmean IoU over all {result.scenes} scenes: {result.miou_network:.1%} from the network, "
        f"{result.miou_crf:.1%} with the CRF"
    )
    click.echo(f"converted in {result.convert_s:.1f} s to {result.bundle}")
    click.echo(f"picture: {result.picture}")


def run_demo(folder: Path, *, threads: int | None = None) -> tuple[DemoResult, dict[str, DemoRow]]:
    """Convert the miniature, segment its held-out scenes, draw the picture.

    Args:
        folder: where `demo.png`, the bundle `deeplab-miniature`, and copies of what went in (`caffe`, `scenes`,
            `truth`) go; those of an earlier demo are replaced.
        threads: of the network and the CRF; None for as many as there are cores.

    Returns:
        The findings, and what was seen of each scene, by the name of its picture.

    Raises:
        OutputError: the folder cannot be written.
        OutputError: something else than a bundle lies where the bundle goes.
        MissingDependencyError: what converts or runs the net is not installed.
    """
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
            f"the demo converts a net, and for that {missing} is missing: pip install 'atrous[convert]'"
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
    leave_sources(folder, files, settings)
    return result, rows


def leave_sources(folder: Path, files: MiniatureFiles, settings: Settings) -> None:
    """Copy Caffe's two files to `caffe/`, the scenes to `scenes/` and `truth/`, for a reader's own commands."""
    from ..bundle.files import write_file

    for source in (files.prototxt, files.caffemodel):
        write_file(folder / "caffe" / source.name, source.read_bytes())
    for seed in settings.scenes:
        picture, truth = files.scene(seed)
        write_file(folder / "scenes" / picture.name, picture.read_bytes())
        write_file(folder / "truth" / picture.name, truth.read_bytes())


def convert_miniature(files: MiniatureFiles, settings: Settings, bundle: Path) -> float:
    """Write the bundle from Caffe's files; returns the seconds it took."""
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
    """Segment each shipped scene, one run of the network for both label maps; the first is run twice, to warm up."""
    from ..runtime import read_image
    from ..runtime.evaluation.datasets.label_files import read_label_image

    rows: dict[str, DemoRow] = {}
    scenes = [files.scene(seed) for seed in settings.scenes]
    with console.show_progress("segmenting", len(scenes)) as advance:
        for picture, truth in scenes:
            image, labels = read_image(picture), read_label_image(truth)
            if not rows:
                segmenter(image)
            rows[picture.stem] = segment_scene(segmenter, image, labels)
            advance(1)
    return rows


def segment_scene(segmenter: Segmenter, image: Picture, truth: Picture) -> DemoRow:
    """Label one image (H, W, 3) before and after the CRF, and compare both with the truth (H, W)."""
    import numpy as np

    from ..runtime.evaluation import count_confusion, mean_iou
    from .demo_picture import DemoRow

    classes = len(segmenter.bundle.manifest.classes)
    start_s = time.perf_counter()
    scores = segmenter.complete_scores(segmenter.run_network(segmenter.prepare(image)), image.shape[:2])
    probabilities = segmenter.to_probabilities(scores)  # (classes, H, W)
    network_s = time.perf_counter()
    marginals = segmenter.refine(image, probabilities)  # (classes, H, W)
    crf_s = time.perf_counter()
    network, crf = (belief.argmax(0).astype(np.uint8) for belief in (probabilities, marginals))
    miou_network, miou_crf = (mean_iou(count_confusion(truth, labels, classes)) for labels in (network, crf))
    return DemoRow(
        image=image,
        network=network,
        crf=crf,
        truth=truth,
        miou_network=miou_network,
        miou_crf=miou_crf,
        network_ms=(network_s - start_s) * 1000,
        crf_ms=(crf_s - network_s) * 1000,
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
