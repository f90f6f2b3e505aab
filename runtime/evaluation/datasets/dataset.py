"""A dataset: classes, pairs of files, and the coding of its label images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ....bundle.files import open_regular
from ....bundle.palettes import Color
from ....errors import DatasetError, InputError
from ....text_files import decode_text
from ...images import read_image
from ..confusion import VOID, LabelMap
from .class_maps import ClassMap
from .label_files import Coding, EitherCoding, IndexCoding, list_some, read_label_image

_MAX_LIST_BYTES = 64 << 20


@dataclass(frozen=True)
class Pair:
    """One image and its label image; `name` is the dataset's own name."""

    name: str
    image: Path
    labels: Path


@dataclass(frozen=True)
class Example:
    """A loaded pair."""

    name: str
    image: npt.NDArray[np.uint8]  # H x W x 3 RGB
    truth: LabelMap  # H x W, classes and `VOID`
    ignored: Mapping[str, int] = field(default_factory=dict)  # pixels by class that the dataset's mapping ignores


@dataclass(frozen=True)
class Dataset:
    """One split of a dataset; with a `mapping`, `classes` are those that its label images are mapped to."""

    key: str  # of `DATASETS`, or "folder"
    title: str  # in reports
    split: str
    root: Path
    classes: tuple[str, ...]  # names by label
    palette: tuple[Color, ...]  # by label
    pairs: tuple[Pair, ...]  # all files exist
    coding: Coding  # of the label images
    has_void_borders: bool = False  # whether void pixels are drawn around objects
    mapping: ClassMap | None = None  # from the classes of the label images

    @property
    def label(self) -> str:
        """Title and split, for reports."""
        return self.title if self.key == "folder" else f"{self.title} {self.split}"

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    def take(self, limit: int | None) -> Dataset:
        """Take at most `limit` pairs, evenly spread over the split and the same in every call."""
        if limit is None or limit >= len(self.pairs):
            return self
        if limit < 1:
            raise InputError(f"a limit of {limit} images leaves nothing to evaluate: use at least 1")
        chosen = [self.pairs[index * len(self.pairs) // limit] for index in range(limit)]
        return replace(self, pairs=tuple(chosen))

    def make_absolute(self) -> Dataset:
        """The same with absolute paths, for processes with other working folders."""
        pairs = [Pair(pair.name, pair.image.absolute(), pair.labels.absolute()) for pair in self.pairs]
        return replace(self, pairs=tuple(pairs))

    def find_numbers(self) -> dict[int, int]:
        """Numbers stored in label images -> label, without void; empty if they hold colors only."""
        coding = self.coding.numbers if isinstance(self.coding, EitherCoding) else self.coding
        meanings = coding.meanings if isinstance(coding, IndexCoding) else {}
        return {number: label for number, label in meanings.items() if label != VOID}

    def load_truth(self, pair: Pair) -> LabelMap:
        """Read the label map of a pair, H x W uint8; DatasetError if a pixel is not a label of this dataset."""
        return self._load_truth(pair)[0]

    def load(self, pair: Pair) -> Example:
        """Read image and label map, which must have one size."""
        image, (truth, ignored) = read_image(pair.image), self._load_truth(pair)
        if image.shape[:2] != truth.shape:
            raise DatasetError(_describe_sizes(image.shape[:2], truth.shape, pair.image), path=pair.labels)
        return Example(pair.name, image, truth, ignored)

    def _load_truth(self, pair: Pair) -> tuple[LabelMap, dict[str, int]]:
        """The label map, and the pixels that the mapping ignores by class."""
        labels = self.coding.decode(read_label_image(pair.labels), pair.labels)
        if self.mapping is None:
            return labels, {}
        return self.mapping.apply(labels), self.mapping.count_ignored(labels)


def check_pairs(pairs: Sequence[Pair], *, root: Path, what: str) -> tuple[Pair, ...]:
    """Return the pairs unchanged; DatasetError if there are none, a name occurs twice, or files are missing."""
    if not pairs:
        raise DatasetError(f"the split {what} is empty: check its list or folder", path=root)
    names = [pair.name for pair in pairs]
    if len(set(names)) != len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise DatasetError(f'the split {what} names "{twice}" twice: remove one of the lines', path=root)
    for kind, files in (("images", [p.image for p in pairs]), ("label images", [p.labels for p in pairs])):
        missing = [file for file in files if not file.is_file()]
        if missing:
            counts = f"{len(missing)} of {len(files)} {kind}"
            raise DatasetError(
                f"{counts} of the split {what} are missing ({list_some(missing)}): unpack the whole dataset here, or "
                "correct the list",
                path=root,
            )
    return tuple(pairs)


def read_lines(path: Path, what: str) -> list[str]:
    """Read the non-empty lines of a small text file; `what` ends the message if it does not exist."""
    try:
        with open_regular(path) as file:
            content = file.read(_MAX_LIST_BYTES + 1)
        if len(content) > _MAX_LIST_BYTES:
            raise DatasetError("is larger than 64 MiB, which is not a list of images", path=path)
        text = decode_text(content)
    except FileNotFoundError as error:
        raise DatasetError(f"no such file, which {what}", path=path) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot be read as text: {error}", path=path) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def require_folder(path: Path, what: str) -> Path:
    """Return the path of a folder; `what` ends the message if it does not exist."""
    if not path.is_dir():
        raise DatasetError(f"no such folder; {what}", path=path)
    return path


def _describe_sizes(image: tuple[int, ...], truth: tuple[int, ...], path: Path) -> str:
    sizes = f"is {truth[1]}x{truth[0]} pixels, its image {path.name} is {image[1]}x{image[0]}"
    if truth == image[::-1]:
        return f"{sizes}: one of them is rotated by 90 degrees"
    if truth[0] * image[1] == truth[1] * image[0]:
        return f"{sizes}: they are scaled differently; resize labels with nearest neighbor only"
    return f"{sizes}: both must cover the same pixels"
