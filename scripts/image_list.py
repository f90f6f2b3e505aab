"""Which images a command works on, and where the results of each go.

Arguments are files, folders and glob patterns. A result is named after its image: OUT/photo.png for photo.jpg,
OUT/sub/photo.png for an image found in the subfolder `sub` of a folder. Where two images would share a name, both
keep more of their own: first the suffix (photo.jpg.png), then the folders above. For that all of them are found first.

A list of any length is read line by line instead (`read_list`), and no name can depend on later ones: every result has
its image's whole path, suffix included, below OUT.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from ..runtime.images import SUFFIXES


@dataclass(frozen=True)
class ImageJob:
    """One image and the files its results go to, by kind."""

    image: Path
    outputs: Mapping[str, Path]


@dataclass(frozen=True)
class _Found:
    image: Path
    relative: Path  # below the folder it was found in; its name alone for a file


def list_images(arguments: Sequence[str], *, recursive: bool = False, exclude: Path | None = None) -> list[_Found]:
    """Find the images that arguments stand for, each once, in a stable order.

    A file is taken whatever its suffix, even if it does not exist: reading it will tell. A folder gives the files
    with a known suffix. `exclude` is a folder to leave out, the one results go to.

    Raises:
        click.UsageError: if a pattern or a folder gives nothing.
    """
    found: dict[str, _Found] = {}
    for path in (path for argument in arguments for path in _expand_pattern(argument)):
        items = list(_walk_folder(path, recursive, exclude)) if os.path.isdir(path) else [_Found(path, Path(path.name))]
        if not items:
            hint = "" if recursive else " (its subfolders are searched with --recursive)"
            raise click.UsageError(f"there are no images in the folder {path}{hint}")
        for item in items:
            found.setdefault(os.path.abspath(item.image), item)
    return list(found.values())


def plan_outputs(found: Sequence[_Found], out: Path, endings: Mapping[str, str]) -> list[ImageJob]:
    """Give every image its own output files.

    Args:
        found: what `list_images` gave.
        out: the folder of the results.
        endings: what is appended to a result's name, by kind, such as {"labels": ".png"}.

    Raises:
        click.UsageError: if a result would overwrite one of the images.
    """
    detail = [0] * len(found)
    names = [_name_result(item, 0, index) for index, item in enumerate(found)]
    while clashes := _find_clashes(names, endings):
        for index in clashes:
            detail[index] += 1
            names[index] = _name_result(found[index], detail[index], index)
    jobs = []
    images = {os.path.realpath(item.image) for item in found}
    for item, name in zip(found, names, strict=True):
        outputs = {kind: out / (name + ending) for kind, ending in endings.items()}
        for path in outputs.values():
            if os.path.realpath(path) in images:
                raise click.UsageError(f"the result {path} would overwrite an input image: choose another folder")
        jobs.append(ImageJob(item.image, outputs))
    return jobs


def read_list(lines: Iterable[str], out: Path, endings: Mapping[str, str]) -> Iterator[ImageJob]:
    """The jobs of a list, one path a line, as they are asked for; blank lines are skipped.

    Args:
        lines: paths, absolute or from the working folder; `a/../b` counts as `b`, and `..` at the start is dropped.
        out: the folder of the results: OUT/folder/photo.jpg.png for folder/photo.jpg or /folder/photo.jpg.
        endings: what is appended to a result's name, by kind.

    Raises:
        click.UsageError: at a path inside the folder of the results.
    """
    results = os.path.realpath(out)
    for line in lines:
        path = line.rstrip("\r\n")
        if not path.strip():
            continue
        if Path(os.path.realpath(path)).is_relative_to(results):
            raise click.UsageError(f"the list names {path}, which is inside the folder of the results: choose another")
        whole = Path(os.path.normpath(path))
        name = os.path.join(*(part for part in whole.parts if part not in ("..", whole.anchor)))
        yield ImageJob(Path(path), {kind: out / (name + ending) for kind, ending in endings.items()})


def _expand_pattern(argument: str) -> list[Path]:
    if not glob.has_magic(argument) or os.path.lexists(argument):
        return [Path(argument)]
    matches = sorted(glob.glob(argument, recursive=True))
    if not matches:
        raise click.UsageError(f"nothing matches the pattern {argument}")
    return [Path(match) for match in matches]


def _walk_folder(folder: Path, recursive: bool, exclude: Path | None) -> Iterator[_Found]:
    def refuse(error: OSError) -> None:
        raise click.UsageError(f"the folder {error.filename} cannot be searched: {error.strerror}")

    for parent, folders, files in os.walk(folder, onerror=refuse):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if recursive and not _is_same(here / name, exclude))
        for name in sorted(files):
            # macOS leaves "._photo.jpg" beside photo.jpg on foreign disks; hidden files are nobody's photos.
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield _Found(here / name, (here / name).relative_to(folder))


def _is_same(folder: Path, other: Path | None) -> bool:
    return other is not None and os.path.realpath(folder) == os.path.realpath(other)


def _name_result(item: _Found, level: int, index: int) -> str:
    """The result's name without its ending; every level keeps more of the image's own path."""
    if level == 0:
        return str(item.relative.with_suffix(""))
    if level == 1:
        return str(item.relative)
    parts = Path(os.path.abspath(item.image)).parts[1:]  # without the root
    name = os.path.join(*parts[-level:])
    # Beyond the whole path only capitals differ: number them, for file systems that hold them for equal.
    return name if level <= len(parts) else f"{name}-{index}"


def _find_clashes(names: Sequence[str], endings: Mapping[str, str]) -> set[int]:
    """The indices of names whose files meet another's, on any file system."""
    owners: dict[str, set[int]] = {}
    for index, name in enumerate(names):
        for ending in endings.values():
            owners.setdefault((name + ending).casefold(), set()).add(index)
    return {index for claimants in owners.values() if len(claimants) > 1 for index in claimants}
