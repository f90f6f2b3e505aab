"""A data set: classes, pairs of files, and how a label image becomes a label map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ....bundle.palettes import Color
from ....errors import DatasetError, InputError
from ...images import read_image
from ..confusion import LabelMap
from .label_files import Coding, read_label_image

_SHOWN = 3  # missing files named in a message


@dataclass(frozen=True)
class Pair:
    """One image and its label image; `name` is the data set's own name of it."""

    name: str
    image: Path
    labels: Path


@dataclass(frozen=True)
class Example:
    """A loaded pair.

    Attributes:
        name: the data set's own name of it.
        image: H x W x 3 uint8 RGB.
        truth: H x W uint8, classes and `VOID`.
    """

    name: str
    image: npt.NDArray[np.uint8]
    truth: LabelMap


@dataclass(frozen=True)
class Dataset:
    """One split of a data set.

    Attributes:
        key: "voc2012", "cityscapes", "camvid", "sun-rgbd" or "folder".
        title: what reports call it.
        split: such as "val".
        root: its folder.
        classes: names by label.
        palette: RGB by label.
        pairs: image and label files, all of which exist.
        coding: what the label images hold.
    """

    key: str
    title: str
    split: str
    root: Path
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    pairs: tuple[Pair, ...]
    coding: Coding

    @property
    def label(self) -> str:
        """Title and split, as reports name it."""
        return self.title if self.key == "folder" else f"{self.title} {self.split}"

    def __len__(self) -> int:
        return len(self.pairs)

    def take(self, limit: int | None) -> Dataset:
        """At most `limit` pairs, evenly spread over the split, the same ones each time.

        Raises:
            InputError: if `limit` is below 1.
        """
        if limit is None or limit >= len(self.pairs):
            return self
        if limit < 1:
            raise InputError(f"a limit of {limit} images leaves nothing to evaluate: give at least 1")
        chosen = [self.pairs[index * len(self.pairs) // limit] for index in range(limit)]
        return replace(self, pairs=tuple(chosen))

    def load_truth(self, pair: Pair) -> LabelMap:
        """The label map of a pair, H x W uint8.

        Raises:
            DatasetError: if the file is unreadable, or holds what is no label of this data set.
        """
        return self.coding.decode(read_label_image(pair.labels), pair.labels)

    def load(self, pair: Pair) -> Example:
        """Read image and label map.

        Raises:
            ImageError: if the image is unreadable.
            DatasetError: as `load_truth`, and if the two differ in size.
        """
        image, truth = read_image(pair.image), self.load_truth(pair)
        if image.shape[:2] != truth.shape:
            raise DatasetError(_describe_sizes(image.shape[:2], truth.shape, pair.image), path=pair.labels)
        return Example(pair.name, image, truth)


def check_pairs(pairs: Sequence[Pair], *, root: Path, what: str) -> tuple[Pair, ...]:
    """Return the pairs if there are any, each of another name, and all their files exist.

    Raises:
        DatasetError: naming the first missing files and how many there are.
    """
    if not pairs:
        raise DatasetError(f"the split {what} is empty: check its list or folder", path=root)
    names = [pair.name for pair in pairs]
    if len(set(names)) != len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise DatasetError(f'the split {what} names "{twice}" twice: an image counts once', path=root)
    for kind, files in (("images", [p.image for p in pairs]), ("label images", [p.labels for p in pairs])):
        missing = [file for file in files if not file.is_file()]
        if missing:
            named = ", ".join(map(str, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
            raise DatasetError(
                f"{len(missing)} of {len(files)} {kind} of the split {what} are missing ({named}): unpack the whole "
                "data set here, or correct the list",
                path=root,
            )
    return tuple(pairs)


def read_lines(path: Path, what: str) -> list[str]:
    """The non-empty lines of a small text file, as the lists of splits are.

    Raises:
        DatasetError: if it is missing or no text.
    """
    try:
        if path.stat().st_size > 64 << 20:
            raise DatasetError("is larger than 64 MiB: that is no list of images", path=path)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DatasetError(f"there is no such file, which {what}", path=path) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot be read as text: {error}", path=path) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def require_folder(path: Path, what: str) -> Path:
    """Return a folder that exists.

    Raises:
        DatasetError: saying `what` it would hold.
    """
    if not path.is_dir():
        raise DatasetError(f"there is no such folder; {what}", path=path)
    return path


def _describe_sizes(image: tuple[int, ...], truth: tuple[int, ...], path: Path) -> str:
    told = f"is {truth[1]}x{truth[0]} pixels, its image {path.name} is {image[1]}x{image[0]}"
    if truth == image[::-1]:
        return f"{told}: one of them is turned by 90 degrees"
    if truth[0] * image[1] == truth[1] * image[0]:
        return f"{told}: they are scaled differently; scale labels by nearest neighbour only"
    return f"{told}: they must cover the same pixels"
