"""The images of a run, and the output files of each.

`find_jobs` takes files, folders and glob patterns. A result is named after its image: OUT/photo.png for photo.jpg,
OUT/sub/photo.png for an image in the subfolder `sub` of a folder. If two images would share a name, both keep more of
their path: first the suffix (photo.jpg.png), then the parent folders. This requires finding all images first.

`read_jobs` reads a list of any length lazily. No name may depend on later lines, so every result has the whole path of
its image, suffix included, below OUT.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ..images import SUFFIXES

#: what is appended to the name of a result, by kind
ENDINGS = {"labels": ".png", "overlay": "_overlay.png", "probabilities": ".npy"}


@dataclass(frozen=True)
class ImageJob:
    """An image and its output files by kind."""

    image: Path
    outputs: Mapping[str, Path]


@dataclass(frozen=True)
class FoundImage:
    """An image, and its path relative to the folder it was found in (for a single file, its name)."""

    image: Path
    relative: Path


def list_images(
    arguments: Sequence[str | Path], *, recursive: bool = False, exclude: Path | None = None
) -> list[FoundImage]:
    """Find the images of files, folders and glob patterns, each once, in a deterministic order.

    A file is accepted with any suffix, even if it does not exist: reading it raises the error. Of a folder, the files
    with a known suffix are taken.
    """
    found: dict[str, FoundImage] = {}
    for path in (path for argument in arguments for path in _expand_pattern(str(argument))):
        is_folder = os.path.isdir(path)
        items = list(_walk_folder(path, recursive, exclude)) if is_folder else [FoundImage(path, Path(path.name))]
        if not items:
            hint = "" if recursive else " (its subfolders are searched with --recursive)"
            raise InputError(f"there are no images in the folder {path}{hint}")
        for item in items:
            found.setdefault(os.path.abspath(item.image), item)
    return list(found.values())


def find_jobs(arguments: Sequence[str | Path], out: Path, kinds: Iterable[str], *, recursive: bool) -> list[ImageJob]:
    """Find images outside `out`, each with its own output files; InputError if a result would overwrite an image."""
    found = list_images(arguments, recursive=recursive, exclude=out)
    endings = [ENDINGS[kind] for kind in kinds]
    levels = [0] * len(found)
    names = [_name_result(item, 0, index) for index, item in enumerate(found)]
    while clashes := _find_clashes(names, endings):
        for index in clashes:
            levels[index] += 1
            names[index] = _name_result(found[index], levels[index], index)
    jobs = [ImageJob(item.image, _name_outputs(out, name, kinds)) for item, name in zip(found, names, strict=True)]
    images = {os.path.realpath(item.image) for item in found}
    for path in (path for job in jobs for path in job.outputs.values()):
        if os.path.realpath(path) in images:
            raise InputError(f"the result {path} would overwrite an input image: choose another output folder")
    return jobs


def read_jobs(paths: Iterable[str | Path], out: Path, kinds: Iterable[str]) -> Iterator[ImageJob]:
    """Make the jobs of image files lazily: OUT/folder/photo.jpg.png for folder/photo.jpg; skips blank lines."""
    results = os.path.realpath(out)
    for line in paths:
        path = str(line).rstrip("\r\n")
        if not path.strip():
            continue
        if Path(os.path.realpath(path)).is_relative_to(results):
            raise InputError(f"the list has {path}, which is inside the output folder: choose another output folder")
        whole = Path(os.path.normpath(path))
        name = os.path.join(*(part for part in whole.parts if part not in ("..", whole.anchor)))
        yield ImageJob(Path(path), _name_outputs(out, name, kinds))


def _name_outputs(out: Path, name: str, kinds: Iterable[str]) -> dict[str, Path]:
    return {kind: out / (name + ENDINGS[kind]) for kind in kinds}


def _expand_pattern(argument: str) -> list[Path]:
    if not glob.has_magic(argument) or os.path.lexists(argument):
        return [Path(argument)]
    matches = sorted(glob.glob(argument, recursive=True))
    if not matches:
        raise InputError(f"nothing matches the pattern {argument}")
    return [Path(match) for match in matches]


def _walk_folder(folder: Path, recursive: bool, exclude: Path | None) -> Iterator[FoundImage]:
    def refuse(error: OSError) -> None:
        raise InputError(f"the folder {error.filename} cannot be searched: {error.strerror}")

    for parent, folders, files in os.walk(folder, onerror=refuse):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if recursive and not _is_same(here / name, exclude))
        for name in sorted(files):
            # macOS leaves hidden "._photo.jpg" files beside photo.jpg on other file systems.
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield FoundImage(here / name, (here / name).relative_to(folder))


def _is_same(folder: Path, other: Path | None) -> bool:
    return other is not None and os.path.realpath(folder) == os.path.realpath(other)


def _name_result(item: FoundImage, level: int, index: int) -> str:
    """The result's name without its ending; every level keeps more of the image's own path."""
    if level == 0:
        return str(item.relative.with_suffix(""))
    if level == 1:
        return str(item.relative)
    parts = Path(os.path.abspath(item.image)).parts[1:]  # without the root
    name = os.path.join(*parts[-level:])
    # Beyond the whole path, names differ in case only: number them, for case-insensitive file systems.
    return name if level <= len(parts) else f"{name}-{index}"


def _find_clashes(names: Sequence[str], endings: Sequence[str]) -> set[int]:
    """The indices of names that share a file with another name on a case-insensitive file system."""
    owners: dict[str, set[int]] = {}
    for index, name in enumerate(names):
        for ending in endings:
            owners.setdefault((name + ending).casefold(), set()).add(index)
    return {index for claimants in owners.values() if len(claimants) > 1 for index in claimants}
