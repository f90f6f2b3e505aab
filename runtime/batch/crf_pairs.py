"""The image of each array of `crf_files`, and the files of its results."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import InputError
from .arrays import SUFFIXES
from .images import list_images

#: kind of result -> what is appended to the array's name
SAVED = {"labels": ".png", "probabilities": ".npy"}
AnyPaths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class UnaryFile:
    """A file of probabilities or scores, and the files of its results by kind."""

    path: Path
    outputs: dict[str, Path]


@dataclass(frozen=True)
class ImageUnaries:
    """An image and its arrays, which are refined together, so that its lattices are built once."""

    image: Path
    unaries: list[UnaryFile] = field(default_factory=list)


def pair_files(
    images: AnyPaths, arrays: AnyPaths, out: Path, kinds: Sequence[str]
) -> tuple[list[ImageUnaries], list[Path]]:
    """Find the arrays of each image, in the order of the arrays, and the arrays without an image.

    Raises:
        InputError: nothing is found, numbers differ, two results would share a file or one would overwrite an input.
    """
    if isinstance(images, str | Path):
        pairs = list(_match_names(Path(images), [arrays] if isinstance(arrays, str | Path) else arrays))
    else:
        if isinstance(arrays, str | Path) or len(arrays) != len(images):
            raise InputError("beside a list of images, give a list of as many arrays; or a folder of each")
        pairs = [(Path(image), Path(array), Path(array).stem) for image, array in zip(images, arrays, strict=True)]
    groups: dict[Path, ImageUnaries] = {}
    taken: dict[Path, Path] = {}
    inputs = {os.path.realpath(path) for image, array, _ in pairs for path in (image, array) if path is not None}
    for image, array, name in pairs:
        if image is None:
            continue
        outputs = {kind: out / f"{name}{SAVED[kind]}" for kind in kinds}
        for output in outputs.values():
            if output in taken:
                raise InputError(f"{taken[output]} and {array} would share the result {output}: rename one")
            if os.path.realpath(output) in inputs:
                raise InputError(f"the result {output} would overwrite an input: choose another output folder")
            taken[output] = array
        groups.setdefault(image, ImageUnaries(image)).unaries.append(UnaryFile(array, outputs))
    if not pairs:
        raise InputError("there are no arrays to refine")
    return list(groups.values()), [array for image, array, _ in pairs if image is None]


def _match_names(images: Path, folders: Sequence[str | Path]) -> list[tuple[Path | None, Path, str]]:
    """(image or None, array, name of its results) of every array in the folders."""
    if not images.is_dir():
        raise InputError(f"{images} is not a folder: give a folder of images, or a list of image files")
    by_name: dict[str, Path] = {}
    for found in list_images([images]):
        name = found.relative.stem
        if name in by_name:
            raise InputError(f"{by_name[name]} and {found.image} have the same name: which belongs to {name}.npy?")
        by_name[name] = found.image
    names = [Path(folder).resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise InputError(f"results go to a folder of each name, and {', '.join(names)} repeat: rename a folder")
    pairs: list[tuple[Path | None, Path, str]] = []
    for folder, prefix in zip(map(Path, folders), names, strict=True):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder of .npy and .npz files")
        arrays = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
        if not arrays:
            raise InputError(f"there are no .npy and .npz files in {folder}")
        for path in arrays:
            name = path.stem if len(folders) == 1 else f"{prefix}/{path.stem}"
            pairs.append((by_name.get(path.stem), path, name))
    return pairs
