"""The images of a run, and the output files of each.

`find_jobs` takes files, folders, glob patterns and streams (standard input, web addresses). A result is named after its
image, whatever its neighbors:

* by `stem`: OUT/photo.png for photo.jpg, OUT/sub/photo.png for an image in the subfolder `sub` of a folder;
* by `path`: OUT/folder/photo.jpg.png for folder/photo.jpg.

Two images that would share a file are an error that names both.

`read_jobs` reads a list of any length lazily, and names results by path.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from ...errors import ImageError, InputError
from ..images import SUFFIXES, count_frames
from .storage import is_store, list_store, locate
from .streams import STDIN, is_stream, name_stream

Naming = Literal["stem", "path"]
Place = TypeVar("Place", Path, str)
#: what is appended to the name of a result, by kind
ENDINGS = {
    "labels": ".png",
    "overlay": "_overlay.png",
    "masks": "_masks",
    "coco": "_coco.json",
    "probabilities": ".npy",
}


@dataclass(frozen=True)
class ImageJob:
    """An image (a file, or a stream as text), its output files by kind, and the frame to read.

    `identity` is the same on all machines that share the images; see `shards`.
    """

    image: Path | str
    outputs: Mapping[str, Path]
    frame: int = 0
    identity: str = ""


@dataclass(frozen=True)
class FoundImage(Generic[Place]):
    """An image (a file, or an object's address as text), its path below the place it was found in, and the frame.

    `relative` is the name for a single image; `identity` is the path below the place, or as it was given; see `shards`.
    """

    image: Place
    relative: Path
    frame: int = 0
    identity: str = ""


def list_images(
    arguments: Sequence[str | Path], *, recursive: bool = False, exclude: Path | None = None
) -> list[FoundImage[Path]]:
    """Find the images of files, folders and glob patterns, each once, in a deterministic order.

    A file is accepted with any suffix, even if it does not exist: reading it raises the error. Of a folder, the files
    with a known suffix are taken.
    """
    found: dict[str, FoundImage[Path]] = {}
    for path in (path for argument in arguments for path in _expand_pattern(str(argument))):
        is_folder = os.path.isdir(path)
        items = list(_walk_folder(path, recursive, exclude)) if is_folder else [_take_file(path)]
        if not items:
            hint = "" if recursive else " (its subfolders are searched with --recursive)"
            raise InputError(f"there are no images in the folder {path}{hint}")
        for item in items:
            found.setdefault(os.path.abspath(item.image), item)
    return list(found.values())


def list_objects(addresses: Iterable[str], *, recursive: bool, exclude: Path) -> list[FoundImage[str]]:
    """Find the images of addresses in object stores, each once, in a deterministic order."""
    found: dict[str, FoundImage[str]] = {}
    for address in addresses:
        for image, below in list_store(address, recursive=recursive):
            identity = below if image.removesuffix(below) == f"{address.rstrip('/')}/" else image
            is_result = str(exclude).startswith(f"{address.rstrip('/')}/") and image.startswith(f"{exclude}/")
            if not is_result:
                found.setdefault(image, FoundImage(image, Path(below), identity=identity))
    return list(found.values())


def find_jobs(
    arguments: Sequence[str | Path],
    out: Path,
    kinds: Iterable[str],
    *,
    recursive: bool,
    naming: Naming = "stem",
    all_frames: bool = False,
    endings: Mapping[str, str] = ENDINGS,
) -> list[ImageJob]:
    """Find images outside `out`, each with its own output files; streams come last.

    With `all_frames`, every frame of an animation or page of a file is an image: photo_0000, photo_0001 and so on.

    Raises:
        InputError: if two images would share a file, or a result would overwrite an image.
    """
    files = [argument for argument in arguments if not is_stream(argument)]
    streams = [argument for argument in arguments if is_stream(argument)]
    objects = list_objects(filter(is_store, streams), recursive=recursive, exclude=out)
    found: list[FoundImage[Any]] = [*list_images(files, recursive=recursive, exclude=out), *objects]
    images = {locate(item.image) for item in found}
    jobs = []
    for item in _split_frames(found) if all_frames else found:
        place = name_stream(item.image) if isinstance(item.image, str) else _name_path(item.image)
        whole = place.with_name(item.relative.name)
        name = str(whole if naming == "path" else item.relative.with_suffix(""))
        jobs.append(ImageJob(item.image, _name_outputs(out, name, kinds, endings), item.frame, item.identity))
    for stream in dict.fromkeys(stream for stream in streams if not is_store(stream)):
        name = str(name_stream(stream) if naming == "path" else name_stream(stream).with_suffix("").name)
        jobs.append(ImageJob(stream, _name_outputs(out, name, kinds, endings), identity=stream))
    _check_clashes(jobs, naming)
    for path in (path for job in jobs for path in job.outputs.values()):
        if locate(path) in images:
            raise InputError(f"the result {path} would overwrite an input image: choose another output folder")
    return jobs


def read_jobs(
    paths: Iterable[str | Path],
    out: Path,
    kinds: Iterable[str],
    endings: Mapping[str, str] = ENDINGS,
    takes: Callable[[str], bool] = lambda identity: True,
) -> Iterator[ImageJob]:
    """Make the jobs of image files lazily: OUT/folder/photo.jpg.png for folder/photo.jpg; skips blank lines.

    Lines whose identity `takes` refuses are passed over, in about a tenth of the time.
    """
    results = locate(out)
    for line in paths:
        path = str(line).rstrip("\r\n")
        if not path.strip():
            continue
        is_object = is_stream(path) and path != STDIN
        identity = path if is_object else _identify(path)
        if not takes(identity):
            continue
        if is_object:
            if path.startswith(f"{results}/"):
                raise InputError(f"the list has {path}, which is inside the output folder: choose another")
            yield ImageJob(path, _name_outputs(out, str(name_stream(path)), kinds, endings), identity=identity)
            continue
        if Path(os.path.realpath(path)).is_relative_to(results):
            raise InputError(f"the list has {path}, which is inside the output folder: choose another output folder")
        outputs = _name_outputs(out, str(_name_path(path)), kinds, endings)
        yield ImageJob(Path(path), outputs, identity=identity)


def _split_frames(found: Iterable[FoundImage[Any]]) -> Iterator[FoundImage[Any]]:
    for item in found:
        try:
            count = 1 if isinstance(item.image, str) else count_frames(item.image)  # of an object, the first frame
        except ImageError:
            count = 1  # reading it raises the error
        for frame in range(count):
            number = f"_{frame:04}" if count > 1 else ""
            name = f"{item.relative.stem}{number}{item.relative.suffix}"
            identity = f"{item.identity}#{frame}" if frame else item.identity
            yield replace(item, relative=item.relative.with_name(name), frame=frame, identity=identity)


def _take_file(path: Path) -> FoundImage[Path]:
    return FoundImage(path, Path(path.name), identity=_identify(path))


def _identify(path: str | Path) -> str:
    return os.path.normpath(path).replace(os.sep, "/")


def _name_path(path: str | Path) -> Path:
    """The path of an image below the output folder, suffix included."""
    whole = Path(os.path.normpath(path))
    return Path(*(part for part in whole.parts if part not in ("..", whole.anchor)))


def _name_outputs(out: Path, name: str, kinds: Iterable[str], endings: Mapping[str, str]) -> dict[str, Path]:
    return {kind: out / (name + endings[kind]) for kind in kinds}


def _check_clashes(jobs: Sequence[ImageJob], naming: Naming) -> None:
    """Refuse two images with one file, letter case aside, for case-insensitive file systems."""
    owners: dict[str, ImageJob] = {}
    for job in jobs:
        for path in job.outputs.values():
            other = owners.setdefault(str(path).casefold(), job)
            if other is not job:
                advice = (
                    'keep their paths in the names (--name path, naming="path")'
                    if naming == "stem"
                    else "rename one of them, or choose another output folder for it"
                )
                raise InputError(f"{other.image} and {job.image} would both be written to {path}: {advice}")


def _expand_pattern(argument: str) -> list[Path]:
    if not glob.has_magic(argument) or os.path.lexists(argument):
        return [Path(argument)]
    matches = sorted(glob.glob(argument, recursive=True))
    if not matches:
        raise InputError(f"nothing matches the pattern {argument}")
    return [Path(match) for match in matches]


def _walk_folder(folder: Path, recursive: bool, exclude: Path | None) -> Iterator[FoundImage[Path]]:
    def refuse(error: OSError) -> None:
        raise InputError(f"the folder {error.filename} cannot be searched: {error.strerror}")

    for parent, folders, files in os.walk(folder, onerror=refuse):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if recursive and not _is_same(here / name, exclude))
        for name in sorted(files):
            # macOS leaves hidden "._photo.jpg" files beside photo.jpg on other file systems.
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                relative = (here / name).relative_to(folder)
                yield FoundImage(here / name, relative, identity=relative.as_posix())


def _is_same(folder: Path, other: Path | None) -> bool:
    return other is not None and locate(folder) == locate(other)
