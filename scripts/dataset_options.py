"""The options that name a labelled data set, shared by `evaluate` and `tune-crf`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ..runtime import Bundle
    from ..runtime.evaluation.datasets import Dataset

Command = TypeVar("Command", bound=Callable[..., Any])
FOLDER = "folder"
DATASETS = ("voc2012", "cityscapes", "camvid", "sun-rgbd", FOLDER)
_PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class DatasetChoice:
    """What was said about the data set; the fields are the options."""

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
    label_colours: bool
    limit: int | None

    def open(self, bundle: Bundle) -> Dataset:
        """Open the data set; a plain folder takes the bundle's classes and palette.

        Raises:
            click.UsageError: if options are missing or do not go together.
            DatasetError: if the files are not as the data set's layout says.
        """
        from ..runtime.evaluation import datasets

        self._check()
        if self.dataset == FOLDER:
            assert self.images is not None
            assert self.labels is not None
            opened = datasets.open_folders(
                self.images,
                self.labels,
                bundle.manifest.classes,
                bundle.manifest.palette,
                image_ending=self.image_ending,
                label_ending=self.label_ending,
                void=self.void,
                offset=self.label_offset,
                colours=self.label_colours,
            )
        else:
            assert self.root is not None
            opened = datasets.open_dataset(self.dataset, self.root, self.split, self.annotations)
        return opened.take(self.limit)

    def _check(self) -> None:
        if self.dataset == FOLDER:
            if self.images is None or self.labels is None:
                raise click.UsageError("--dataset folder needs --images and --labels")
            if self.root is not None or self.split is not None or self.annotations is not None:
                raise click.UsageError("--root, --split and --annotations belong to the published data sets")
        else:
            if self.root is None:
                raise click.UsageError(f"--dataset {self.dataset} needs --root, the folder it was unpacked to")
            is_said = self.images or self.labels or self.image_ending or self.label_ending or self.label_colours
            if is_said or self.void != 255 or self.label_offset:
                raise click.UsageError("--images, --labels and what they look like belong to --dataset folder")


def dataset_options(function: Command) -> Command:
    """Give a command the options of `DatasetChoice`, as arguments of the same names."""
    for option in (
        click.option("--limit", type=click.IntRange(min=1), help="At most this many images, spread over the split."),
        click.option("--label-colours", is_flag=True, help="Label images hold the bundle's colours, not numbers."),
        click.option(
            "--label-offset", type=click.IntRange(0, 255), default=0, help="Number of the first class.  [default: 0]"
        ),
        click.option(
            "--void", type=click.IntRange(0, 255), default=255, help="Number of pixels not judged.  [default: 255]"
        ),
        click.option("--label-ending", default="", help='What names of label images have in addition, as "_labels".'),
        click.option("--image-ending", default="", help='What names of images have in addition, as "_image".'),
        click.option("--labels", type=_PATH, help="Folder of the label images."),
        click.option("--images", type=_PATH, help="Folder of the images, for --dataset folder."),
        click.option("--annotations", help="SegmentationClassAug of voc2012, labelTrainIds of cityscapes."),
        click.option("--split", help="[default: val of voc2012 and cityscapes, test of camvid and sun-rgbd]"),
        click.option("--root", type=_PATH, help="Where the data set was unpacked."),
        click.option(
            "--dataset", type=click.Choice(DATASETS), required=True, help="Which, in the layout it is published in."
        ),
    ):
        function = option(function)
    return function
