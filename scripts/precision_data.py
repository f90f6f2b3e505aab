"""Images for `atrous precision` and `atrous verify`; `choose_evidence` separates those observed from those checked.

| given | observed (calibration) | checked |
|---|---|---|
| `--images` | images of the folder that are not checked, if it has enough | others of the folder |
| `--dataset` | `--images`, else labeled images that are not checked, if there are enough | labeled images |
| neither, the built-in miniature | scenes drawn from seeds of their own | its shipped held-out scenes |
| neither, any other bundle | drawn scenes, for fp16 and bf16 only | the same |

Half precision needs images only to detect overflow and to compare labels; drawn landscapes suffice. The ranges of int8
and fp8 are taken from the images, which must be of the kind the net will see.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..converter.precision import Evidence, HeadReader, Picture, choose_evidence
from ..runtime.bundle import Bundle
from ..runtime.evaluation.confusion import count_confusion, mean_iou
from ..runtime.evaluation.datasets import open_folders
from ..runtime.images import read_image
from ..runtime.upsampling import upsample_scores
from .image_list import list_images
from .miniature.settings import MiniatureFiles, read_settings
from .scenes import draw_scene

Array = NDArray[Any]
Loaders = list[Callable[[], Picture]]
#: first seed of drawn calibration scenes; training ended at 1 007 999
CALIBRATION_SEED = 2_000_000
DRAWN_CALIBRATION, DRAWN_CHECKS = 16, 4


@dataclass(frozen=True)
class DataOptions:
    """Options of the command line about images.

    Attributes:
        images: folders or files without labels.
        dataset: folders of images and of labels, or None.
        size: (height, width) to resize every image to, or None.
        calibrate_on: number of images observed at most.
        check_on: number of images checked at most.
    """

    images: tuple[str, ...] = ()
    dataset: tuple[Path, Path] | None = None
    size: tuple[int, int] | None = None
    calibrate_on: int = 32
    check_on: int = 8


def is_miniature(bundle: Bundle) -> bool:
    """Whether a bundle was made from the caffemodel that ships with atrous."""
    digest = hashlib.sha256(MiniatureFiles().caffemodel.read_bytes()).hexdigest()
    return any(source.sha256 == digest for source in bundle.manifest.sources)


def gather_evidence(bundle: Bundle, precision: str, options: DataOptions) -> Evidence:
    """Gather the images for a variant; see the module docstring.

    Raises:
        click.UsageError: int8 or fp8 without images, or a folder without any.
        InferenceError: an image or a data set cannot be read.
    """
    size = options.size or bundle.preprocessing.size_rule.fixed
    limits = {"calibrate_on": options.calibrate_on, "check_on": options.check_on}
    images = _list_images(options.images)
    if options.dataset is not None:
        labeled, title = _list_labeled(bundle, *options.dataset)
        return choose_evidence(images, labeled, f"labeled images of {title}", **limits, size=size)
    if options.images:
        return choose_evidence(images, [], "the user's images", **limits, size=size)
    if is_miniature(bundle):
        drawn = _list_scenes(DRAWN_CALIBRATION, size)
        return choose_evidence(drawn, _list_shipped(), "the miniature's held-out scenes", **limits, size=size)
    if precision in ("int8", "fp8"):
        raise click.UsageError(
            f"{precision} takes its ranges from images of the kind the net will see: give --images FOLDER"
        )
    return choose_evidence([], _list_scenes(DRAWN_CHECKS, size), "drawn scenes", **limits, size=size)


def make_reader(bundle: Bundle) -> HeadReader:
    """Make the reader of a bundle's head, which gives labels and mean IoU."""
    classes = len(bundle.manifest.classes)
    upsampling = bundle.deploy.upsampling

    def upsample(scores: Array, size: tuple[int, int]) -> Array:
        assert upsampling is not None
        padded = upsampling.padded.padded_size(*size)
        return upsample_scores(scores, padded, size, align_corners=upsampling.align_corners)

    def score(pairs: Sequence[tuple[Array, Array]]) -> float:
        return mean_iou(np.stack([count_confusion(truth, labels, classes) for truth, labels in pairs]))

    return HeadReader(bundle.deploy.head, upsample if upsampling is not None else None, score)


def _list_images(arguments: Sequence[str]) -> Loaders:
    return [partial(_read_picture, found.image) for found in list_images(arguments)]


def _read_picture(image: Path, truth: Path | None = None) -> Picture:
    if truth is None:
        return Picture(read_image(image))
    with Image.open(truth) as opened:
        return Picture(read_image(image), np.array(opened, np.uint8))


def _list_labeled(bundle: Bundle, images: Path, labels: Path) -> tuple[Loaders, str]:
    """List the pairs of a data set, and its title."""
    dataset = open_folders(images, labels, bundle.manifest.classes, bundle.manifest.palette)

    def read(pair: Any) -> Picture:
        example = dataset.load(pair)
        return Picture(example.image, example.truth)

    return [partial(read, pair) for pair in dataset.pairs], dataset.title


def _list_shipped() -> Loaders:
    files = MiniatureFiles()
    return [partial(_read_picture, *files.scene(seed)) for seed in read_settings(files.settings).scenes]


def _list_scenes(count: int, size: tuple[int, int] | None) -> Loaders:
    def draw(seed: int) -> Picture:
        return Picture(draw_scene(seed, *(size or (None, None))).image)

    return [partial(draw, CALIBRATION_SEED + index) for index in range(count)]
