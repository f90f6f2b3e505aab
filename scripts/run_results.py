"""The files and lines of `atrous run`: pictures, JSON, arrays by image, and a table."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..bundle.files import write_file
from ..bundle.manifest import Manifest
from ..errors import InputError
from ..runtime.batch.images import ImageJob, Naming, find_jobs, list_images
from ..runtime.batch.results import measure_classes
from ..runtime.batch.streams import is_stream, name_stream, read_stream
from ..runtime.images import decode_image, read_image
from ..runtime.pictures import draw_points, encode_label_png, encode_png
from ..runtime.planes import read_array, read_plane
from ..runtime.run_outputs import RunResult
from ..runtime.runner import Runner
from . import console

Picture = npt.NDArray[np.uint8]

_ENDINGS = {"picture": ".png", "result": ".json", "arrays": ".npz"}
_PICTURES = ("points", "image", "colorize", "map", "segment")  # tasks whose results have one
_SHOWN = 8  # numbers or classes in a line
_SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".jpg")


class OtherInputs:
    """The inputs of a net beside the image, by name: a file for all images, or a folder with one for each."""

    def __init__(self, runner: Runner, paths: Mapping[str, Path]) -> None:
        """Check the names; InputError if one is missing or unknown."""
        wanted = runner.other_inputs
        if set(paths) != set(wanted):
            named = ", ".join(f"--input {name}=PATH ({source})" for name, source in wanted.items()) or "no --input"
            raise InputError(f"{runner.bundle.path}: this net needs {named}")
        self._sources, self._paths = wanted, paths

    def read(self, source: Path | str) -> dict[str, Any]:
        """The arrays that belong to an image."""
        image = name_stream(source) if is_stream(source) else Path(source)
        readers = {"depth": read_plane, "array": read_array}
        return {
            name: readers.get(source, read_image)(self._find(self._paths[name], image))
            for name, source in self._sources.items()
        }

    @staticmethod
    def _find(path: Path, image: Path) -> Path:
        if not path.is_dir():
            return path
        found = [path / f"{image.stem}{suffix}" for suffix in _SUFFIXES if (path / f"{image.stem}{suffix}").is_file()]
        if not found:
            raise InputError(f"{path}: has no file for {image.name}: that would be {image.stem}.png or .npy")
        return found[0]


def find_run_jobs(
    images: Sequence[str], out: Path | None, task: str, *, arrays: bool, recursive: bool, naming: Naming
) -> list[ImageJob]:
    """The images and their output files; none without an output folder."""
    if out is None:
        streams = [ImageJob(image, {}, identity=image) for image in images if is_stream(image)]
        files = [image for image in images if not is_stream(image)]
        found = list_images(files, recursive=recursive)
        return [*(ImageJob(item.image, {}, identity=item.identity) for item in found), *streams]
    kinds = [*(["picture"] if task in _PICTURES else []), "result", *(["arrays"] if arrays else [])]
    return find_jobs(images, out, kinds, recursive=recursive, naming=naming, endings=_ENDINGS)


def read_enlarged(source: Path | str, factor: int | None) -> Picture:
    """Read an image file or stream, enlarged by a whole factor with bicubic interpolation."""
    image = decode_image(read_stream(source), source) if is_stream(source) else read_image(source)
    if factor is None:
        return image
    height, width = image.shape[:2]
    return np.array(Image.fromarray(image).resize((width * factor, height * factor), Image.Resampling.BICUBIC))


def write_results(job: ImageJob, image: Picture, result: RunResult, manifest: Manifest) -> dict[str, Any]:
    """Write the files of an image; returns its record, also the content of its JSON file."""
    outputs = dict(job.outputs)
    if "arrays" in outputs and all(found is None for found in (result.labels, result.points, result.picture)):
        outputs.pop("picture", None)  # maps of several planes
    record: dict[str, Any] = {
        "image": str(job.image),
        "height": image.shape[0],
        "width": image.shape[1],
        "task": result.task,
        "classes": [vars(entry) for entry in result.classes],
        "values": None if result.values is None else result.values.tolist(),
        "points": None if result.points is None else result.points.tolist(),
        "label_shares": None if result.labels is None else measure_classes(result.labels, manifest.classes),
        "files": {kind: str(path) for kind, path in outputs.items()},
        "timings_ms": {stage: round(time_ms, 3) for stage, time_ms in result.timings_ms.items()},
    }
    for kind, path in outputs.items():
        if kind == "result":
            content = (json.dumps({"schema_version": 1, **record}, indent=1) + "\n").encode()
        elif kind == "arrays":
            content = _encode_arrays(result.outputs)
        else:
            content = _encode_picture(image, result, manifest)
        write_file(path, content)
    return record


def _encode_arrays(outputs: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name.replace("/", "_"): array for name, array in outputs.items()})
    return buffer.getvalue()


def _encode_picture(image: Picture, result: RunResult, manifest: Manifest) -> bytes:
    if result.labels is not None:
        return encode_label_png(result.labels, manifest.palette)
    if result.points is not None:
        return encode_png(draw_points(image, result.points))
    if result.picture is None:
        raise InputError(f"the net has no picture among its outputs {', '.join(result.outputs)}: use --arrays")
    return encode_png(result.picture)


def print_results(records: Sequence[Mapping[str, Any]]) -> None:
    """Print one line per image."""
    rows = []
    for record in records:
        time_ms = sum(record["timings_ms"].values())
        size = f"{record['width']}x{record['height']}"
        rows.append((Path(record["image"]).name, size, f"{time_ms:.0f} ms", _summarize(record)))
    if rows:
        console.print_table(("image", "size", "time", "result"), rows)


def _summarize(record: Mapping[str, Any]) -> str:
    if record["label_shares"] is not None:
        return ", ".join(f"{name} {share:.0%}" for name, share in list(record["label_shares"].items())[:_SHOWN])
    if record["points"] is not None:
        return " ".join(f"{x:.0f},{y:.0f}" for x, y in record["points"][:_SHOWN])
    if record["classes"]:
        return ", ".join(f"{entry['name']} {entry['probability']:.1%}" for entry in record["classes"][:_SHOWN])
    if record["values"] is not None:
        more = " ..." if len(record["values"]) > _SHOWN else ""
        return " ".join(f"{value:.4g}" for value in record["values"][:_SHOWN]) + more
    return str(record["files"].get("picture", ""))
