"""Images for `atrous precision` and `atrous verify`; `choose_evidence` separates those observed from those checked.

| given | observed (calibration) | checked |
|---|---|---|
| `--images` | images of the folder that are not checked, if it has enough | others of the folder |
| `--dataset` | `--images`, else labeled images that are not checked, if there are enough | labeled images |
| neither, the built-in miniature | its shipped scenes, mirrored | its shipped held-out scenes |
| neither, any other bundle | the miniature's scenes, for fp16 and bf16 only | the same |

Half precision needs images only to detect overflow and to compare labels; any landscapes suffice. The ranges of int8
and fp8 are taken from the images, which must be of the kind the net will see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..bundle.folder import Bundle
from ..converter.precision import Evidence, HeadReader, Picture, choose_evidence
from ..runtime.batch.images import list_images
from ..runtime.evaluation.class_order import find_class_order
from ..runtime.evaluation.confusion import count_confusion, mean_iou
from ..runtime.evaluation.datasets.folders import open_folders
from ..runtime.evaluation.datasets.label_sets import choose_label_set, map_dataset
from ..runtime.images import read_image
from ..runtime.upsampling import upsample_scores
from . import console
from .miniature.settings import MiniatureFiles, is_miniature, read_settings

Array = NDArray[Any]
Loaders = list[Callable[[], Picture]]


def gather_evidence(
    bundle: Bundle,
    precision: str,
    *,
    images: Sequence[str] = (),
    dataset: tuple[Path, Path] | None = None,
    label_classes: str | None = None,
    map_file: Path | None = None,
    size: tuple[int, int] | None = None,
    calibrate_on: int = 32,
    check_on: int = 8,
) -> Evidence:
    """Gather images for a variant, resized to (height, width) or the fixed size; see the module docstring."""
    size = size or bundle.preprocessing.size_rule.fixed
    choose = partial(choose_evidence, calibrate_on=calibrate_on, check_on=check_on, size=size)
    loaders = [partial(_read_picture, found.image) for found in list_images(images)]
    if dataset is not None:
        labeled, title = _list_labeled(bundle, *dataset, label_classes, map_file)
        return choose(loaders, labeled, f"labeled images of {title}")
    if images:
        return choose(loaders, [], "the user's images")
    if is_miniature(bundle.manifest):
        return choose(
            [partial(_mirror, load) for load in _list_shipped()], _list_shipped(), "the miniature's held-out scenes"
        )
    if precision in ("int8", "fp8"):
        raise click.UsageError(
            f"{precision} takes its ranges from images of the kind the net will see: give --images FOLDER"
        )
    return choose([], [partial(_drop_truth, load) for load in _list_shipped()], "the miniature's scenes")


def make_reader(bundle: Bundle, *, is_mapped: bool = False) -> HeadReader:
    """Make the reader of a bundle's head, which gives labels and mean IoU; mapped labels have a known order."""
    first = None if is_mapped else 0
    classes = len(bundle.manifest.classes)
    warned: list[str] = []
    upsampling = bundle.deploy.upsampling

    def upsample(scores: Array, size: tuple[int, int]) -> Array:
        assert upsampling is not None
        padded = upsampling.padded.padded_size(*size)
        return upsample_scores(scores, padded, size, align_corners=upsampling.align_corners)

    def score(pairs: Sequence[tuple[Array, Array]]) -> float:
        counts = np.sum([count_confusion(truth, labels, classes) for truth, labels in pairs], axis=0)
        if not warned:  # once, not for every variant
            warned.extend(find_class_order(counts, bundle.manifest.classes, first))
            for line in warned:
                console.print_warning(f"atrous precision: {line}")
        return mean_iou(counts)

    return HeadReader(bundle.deploy.head, upsample if upsampling is not None else None, score)


def _read_picture(image: Path, truth: Path | None = None) -> Picture:
    if truth is None:
        return Picture(read_image(image))
    with Image.open(truth) as opened:
        return Picture(read_image(image), np.array(opened, np.uint8))


def _list_labeled(
    bundle: Bundle, images: Path, labels: Path, label_classes: str | None, map_file: Path | None
) -> tuple[Loaders, str]:
    """List the pairs of a data set, and its title."""
    colored = bundle.manifest.classes, bundle.manifest.palette
    label_set = choose_label_set(label_classes, map_file is not None)
    dataset = open_folders(images, labels, *colored, label_set=label_set)
    if label_set is not None:
        dataset = map_dataset(dataset, Path(label_classes or "").name, *colored, map_file)

    def read(pair: Any) -> Picture:
        example = dataset.load(pair)
        return Picture(example.image, example.truth)

    return [partial(read, pair) for pair in dataset.pairs], dataset.title


def _list_shipped() -> Loaders:
    files = MiniatureFiles()
    return [partial(_read_picture, *files.scene(seed)) for seed in read_settings(files.settings).scenes]


def _mirror(load: Callable[[], Picture]) -> Picture:
    """A picture flipped left to right, without its truth."""
    return Picture(np.ascontiguousarray(load().image[:, ::-1]))


def _drop_truth(load: Callable[[], Picture]) -> Picture:
    return Picture(load().image)
