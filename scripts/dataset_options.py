"""The options that name a labeled dataset, shared by `evaluate` and `tune-crf`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..runtime.evaluation.datasets import DATASETS, FOLDER
from ..runtime.evaluation.datasets.label_sets import LABEL_SETS

if TYPE_CHECKING:
    from ..runtime import Bundle
    from ..runtime.evaluation.datasets.dataset import Dataset

Command = TypeVar("Command", bound=Callable[..., Any])
_PATH = click.Path(path_type=Path)
MAP_OPTIONS = (
    click.option(
        "--map",
        "map_file",
        type=_PATH,
        metavar="FILE",
        help="JSON object: class or number in the label images -> class of the bundle, or null to ignore it; "
        '"*" for all others.',
    ),
    click.option(
        "--label-classes",
        metavar="NAME|FILE",
        help="Classes of the label images, brought to the bundle's by name: "
        f"{', '.join(LABEL_SETS)}, or a file with one name per line.  [default: the bundle's]",
    ),
)


@dataclass(frozen=True)
class DatasetChoice:
    """The user's choice of a dataset; the fields are the options."""

    dataset: str
    root: Path | None
    split: str | None
    annotations: str | None
    images: Path | None
    labels: Path | None
    image_ending: str
    label_ending: str
    void: int
    label_offset: int
    label_colors: bool
    limit: int | None
    label_classes: str | None
    map_file: Path | None

    def open(self, bundle: Bundle) -> Dataset:
        """Open the dataset; two plain folders get the bundle's classes and palette, unless they have their own."""
        from ..runtime.evaluation.datasets.label_sets import map_dataset

        is_folder = self.dataset == FOLDER
        opened = self._open_folders(bundle) if is_folder else self._open_published()
        if self.label_classes is not None or self.map_file is not None:
            source = (self.label_classes or "") if is_folder else self.dataset
            manifest = bundle.manifest
            opened = map_dataset(opened, Path(source).name, manifest.classes, manifest.palette, self.map_file)
        return opened.take(self.limit)

    def _open_published(self) -> Dataset:
        from ..runtime.evaluation.datasets import open_dataset
        from ..runtime.evaluation.datasets.label_sets import find_label_set

        if self.root is None:
            raise click.UsageError(f"--dataset {self.dataset} needs --root, the folder it was unpacked to")
        is_folder = self.images or self.labels or self.image_ending or self.label_ending or self.label_colors
        if is_folder or self.void != 255 or self.label_offset:
            raise click.UsageError("--images, --labels and the options of their files are for --dataset folder")
        opened = open_dataset(self.dataset, self.root, self.split, self.annotations)
        if self.label_classes not in (None, self.dataset) and (
            find_label_set(str(self.label_classes)).names != opened.classes
        ):
            raise click.UsageError(f"--dataset {self.dataset} has its own classes: give --label-classes {self.dataset}")
        return opened

    def _open_folders(self, bundle: Bundle) -> Dataset:
        from ..runtime.evaluation.datasets.folders import open_folders
        from ..runtime.evaluation.datasets.label_sets import choose_label_set

        if self.images is None or self.labels is None:
            raise click.UsageError("--dataset folder needs --images and --labels")
        if self.root is not None or self.split is not None or self.annotations is not None:
            raise click.UsageError("--root, --split and --annotations are for the published datasets")
        is_mapped = self.map_file is not None
        return open_folders(
            self.images,
            self.labels,
            bundle.manifest.classes,
            bundle.manifest.palette,
            image_ending=self.image_ending,
            label_ending=self.label_ending,
            void=self.void,
            offset=self.label_offset,
            colors=self.label_colors,
            label_set=choose_label_set(self.label_classes, is_mapped, first=self.label_offset, void=self.void),
        )


def dataset_options(function: Command) -> Command:
    """Add the options of `DatasetChoice`; the command receives them as arguments of the same names."""
    splits = ", ".join(f"{entry.default_split} for {key}" for key, entry in DATASETS.items())
    kinds = "; ".join(f"{key}: {', '.join(entry.annotations)}" for key, entry in DATASETS.items() if entry.annotations)
    byte = click.IntRange(0, 255)
    for option in (
        *MAP_OPTIONS,
        click.option("--limit", type=click.IntRange(min=1), help="At most this many images, spread over the split."),
        click.option("--label-colors", is_flag=True, help="Label images hold the bundle's colors, not numbers."),
        click.option("--label-offset", type=byte, default=0, show_default=True, help="Number of the first class."),
        click.option("--void", type=byte, default=255, show_default=True, help="Number of pixels to ignore."),
        click.option("--label-ending", default="", help='End of label image names before the suffix, as "_labels".'),
        click.option("--image-ending", default="", help='End of image names before the suffix, as "_image".'),
        click.option("--labels", type=_PATH, help="Folder of the label images, for --dataset folder."),
        click.option("--images", type=_PATH, help="Folder of the images, for --dataset folder."),
        click.option("--annotations", help=f"Kind of labels ({kinds}).  [default: the first]"),
        click.option("--split", help=f"Part of the dataset.  [default: {splits}]"),
        click.option("--root", type=_PATH, help="Folder the published dataset was unpacked to."),
        click.option(
            "--dataset",
            type=click.Choice((*DATASETS, FOLDER)),
            required=True,
            help="A published dataset in its own layout, or any two folders.",
        ),
    ):
        function = option(function)
    return function
