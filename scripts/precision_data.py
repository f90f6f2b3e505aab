"""The images that `atrous precision` observes and checks a variant on.

| given | observed (calibration) | checked |
|---|---|---|
| `--images` | the first of the folder | others of it where there are enough, else the same |
| `--dataset` | `--images`, else the labelled images that are not checked, else the same | the first labelled images |
| nothing, the built-in miniature | scenes drawn from seeds of their own | its shipped held-out scenes |
| nothing, any other bundle | drawn scenes, for fp16 and bf16 only | the same |

Half precision needs images to see overflow and to count labels; a drawn landscape does for that. The ranges of int8
and fp8 are taken from the images, so those must be of the user's own kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from . import console

if TYPE_CHECKING:
    from ..converter.precision import Evidence, Picture, Reader
    from ..runtime.bundle import Bundle

Array = NDArray[Any]
#: seeds of drawn calibration scenes; training ended at 1 007 999
CALIBRATION_SEED = 2_000_000
DRAWN_CALIBRATION, DRAWN_CHECKS = 16, 4


@dataclass(frozen=True)
class DataOptions:
    """What the user said about images.

    Attributes:
        images: a folder (or files) without labels, or none.
        dataset: folders of images and of labels, or None.
        size: (height, width) every image is resized to, or None.
        calibrate_on: at most so many images are observed.
        check_on: at most so many images are checked.
    """

    images: tuple[str, ...] = ()
    dataset: tuple[Path, Path] | None = None
    size: tuple[int, int] | None = None
    calibrate_on: int = 32
    check_on: int = 8


def is_miniature(bundle: Bundle) -> bool:
    """Whether a bundle was made from the caffemodel that ships with atrous."""
    import hashlib

    from .miniature.settings import MiniatureFiles

    digest = hashlib.sha256(MiniatureFiles().caffemodel.read_bytes()).hexdigest()
    return any(source.sha256 == digest for source in bundle.manifest.sources)


def gather_evidence(bundle: Bundle, precision: str, options: DataOptions) -> Evidence:
    """The images for a variant; see the module docstring.

    Raises:
        click.UsageError: int8 or fp8 without images, or a folder without any.
        InferenceError: an image or a data set cannot be read.
    """
    from ..converter.precision import Evidence

    size = options.size or bundle.preprocessing.size_rule.fixed
    if options.dataset is not None:
        return _from_dataset(bundle, options, size)
    if options.images:
        return _from_folder(options, size)
    if is_miniature(bundle):
        pictures = _read_shipped_scenes(options.check_on, size)
        drawn = _draw_scenes(min(options.calibrate_on, DRAWN_CALIBRATION), size)
        return Evidence(drawn, pictures, "the miniature's held-out scenes")
    if precision in ("int8", "fp8"):
        raise click.UsageError(
            f"{precision} takes its ranges from images of the kind the net will see: give --images FOLDER"
        )
    drawn = _draw_scenes(min(options.check_on, DRAWN_CHECKS), size)
    return Evidence(drawn, _unlabelled(drawn), "drawn scenes")


def make_reader(bundle: Bundle) -> Reader:
    """How this bundle's head becomes labels and mean IoU."""
    from ..converter.precision import Reader
    from ..runtime.evaluation.class_order import find_class_order
    from ..runtime.evaluation.confusion import count_confusion, mean_iou
    from ..runtime.upsampling import upsample_scores

    classes = len(bundle.manifest.classes)
    warned: list[str] = []
    upsampling = bundle.deploy.upsampling

    def complete(scores: Array, size: tuple[int, int]) -> Array:
        assert upsampling is not None
        padded = upsampling.padded.padded_size(*size)
        return upsample_scores(scores, padded, size, align_corners=upsampling.align_corners)

    def score(pairs: Sequence[tuple[Array, Array]]) -> float:
        counts = np.sum([count_confusion(truth, labels, classes) for truth, labels in pairs], axis=0)
        if not warned:  # once, not for every variant
            warned.extend(find_class_order(counts, bundle.manifest.classes))
            for line in warned:
                console.print_warning(f"atrous precision: {line}")
        return mean_iou(counts)

    return Reader(bundle.deploy.head, complete if upsampling is not None else None, score)


def _from_dataset(bundle: Bundle, options: DataOptions, size: tuple[int, int] | None) -> Evidence:
    from ..converter.precision import Evidence, Picture
    from ..runtime.evaluation.datasets.folders import open_folders

    assert options.dataset is not None
    images, labels = options.dataset
    manifest = bundle.manifest
    dataset = open_folders(images, labels, manifest.classes, manifest.palette)
    pairs = dataset.pairs
    checked, others = pairs[: options.check_on], pairs[options.check_on :]
    examples = [dataset.load(pair) for pair in checked]
    pictures = [Picture(_resize(each.image, size), _resize(each.truth, size, nearest=True)) for each in examples]
    if options.images:
        observed = _read_images(options.images, options.calibrate_on, size)
    elif others:
        observed = [_resize(dataset.load(pair).image, size) for pair in others[: options.calibrate_on]]
    else:
        observed = [picture.image for picture in pictures]
    note = "" if options.images or others else ", observed and checked on the same images"
    return Evidence(observed, pictures, f"labelled images of {dataset.title}{note}")


def _from_folder(options: DataOptions, size: tuple[int, int] | None) -> Evidence:
    from ..converter.precision import Evidence

    images = _read_images(options.images, options.calibrate_on + options.check_on, size)
    count = min(options.check_on, len(images) // 2)
    if count == 0:
        return Evidence(images, _unlabelled(images), "the user's images, observed and checked on the same")
    return Evidence(images[count:], _unlabelled(images[:count]), "the user's images")


def _read_images(arguments: Sequence[str], limit: int, size: tuple[int, int] | None) -> list[Array]:
    from ..runtime.images import read_image
    from .image_list import list_images

    return [_resize(read_image(found.image), size) for found in list_images(arguments)[:limit]]


def _read_shipped_scenes(limit: int, size: tuple[int, int] | None) -> list[Picture]:
    from PIL import Image

    from ..converter.precision import Picture
    from ..runtime.images import read_image
    from .miniature.settings import MiniatureFiles, read_settings

    files = MiniatureFiles()
    pictures = []
    for seed in read_settings(files.settings).scenes[:limit]:
        image, truth = files.scene(seed)
        with Image.open(truth) as opened:
            labels = np.array(opened, np.uint8)
        pictures.append(Picture(_resize(read_image(image), size), _resize(labels, size, nearest=True)))
    return pictures


def _draw_scenes(count: int, size: tuple[int, int] | None) -> list[Array]:
    from .scenes import draw_scene

    height, width = size or (None, None)
    return [draw_scene(CALIBRATION_SEED + index, height, width).image for index in range(count)]


def _unlabelled(images: Sequence[Array]) -> list[Picture]:
    from ..converter.precision import Picture

    return [Picture(image) for image in images]


def _resize(array: Array, size: tuple[int, int] | None, *, nearest: bool = False) -> Array:
    """An image or a label map at (height, width); labels take the nearest pixel's."""
    from PIL import Image

    if size is None or array.shape[:2] == size:
        return array
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    resized: Array = np.array(Image.fromarray(array).resize((size[1], size[0]), method), np.uint8)
    return resized
