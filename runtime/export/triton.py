"""A bundle as a model repository of Triton: an ensemble of its network and of Python steps around it.

::

    REPOSITORY/
      Dockerfile                       Triton with atrous, which the Python steps import
      NAME/config.pbtxt, labels.txt    the ensemble: image in, labels out
      NAME-prepare/                    a Python step that resizes images; only for nets of one size
      NAME-network/1/model.onnx        Triton's onnxruntime or tensorrt backend
      NAME-finish/1/model.py           a Python step: upsampling, dense CRF, labels

A request holds one image. Triton joins images of equal size before the network, if the graph takes any number of
them; the Python steps take one at a time, in several processes. Every queue is bounded. A head that gives labels, of
a net that takes every size, needs no Python step: then the network alone is exported, as NAME.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...bundle.files import prepare_folder, temporary_name, write_file
from ...bundle.folder import read_bundle
from ...dependencies import read_version
from ...errors import InputError, OutputError
from .text_format import write_text
from .triton_models import CONFIG, TritonOptions, make_models

__all__ = ["TRITON_IMAGE", "TritonOptions", "export_triton"]

TRITON_IMAGE = "nvcr.io/nvidia/tritonserver:25.10-py3"
_DOCKERFILE = """FROM {image}
RUN pip install --no-cache-dir "{requirement}"
"""
_RELEASE = re.compile(r"\d+(\.\d+)*")
_MOST = {"batch": 1024, "delay_us": 10_000_000, "queue": 1 << 20, "instances": 1024, "threads": 1024}


def _name_release(version: str) -> str:
    """The requirement of this version; unpinned for a version between releases, which no index has."""
    return f"atrous=={version}" if _RELEASE.fullmatch(version) else "atrous"


def export_triton(
    source: str | Path, target: str | Path, options: TritonOptions | None = None, *, replace: bool = False
) -> dict[str, tuple[str, ...]]:
    """Write a bundle into a model repository of Triton; other models there stay as they are.

    Args:
        source: a bundle that labels RGB images.
        target: the repository's folder.
        options: how Triton serves it.
        replace: whether models of these names may be replaced.

    Returns:
        The repository's new models, the one for requests last: name -> files.

    Raises:
        BundleError: if the source labels no RGB images, or its graph takes several images a run and no other number.
        EngineError: if there is no engine for the tensorrt backend.
        InputError: if an option is invalid.
        OutputError: if a model is there and is not to be replaced, or the folder cannot be written.
    """
    bundle, options = read_bundle(source), options or TritonOptions()
    _check_options(options)
    models = make_models(bundle, options)
    folder = prepare_folder(target)
    _check_places(folder, [model.name for model in models], replace)
    with _temporary_folder(folder) as place:
        for model in models:
            for name, content in {**model.files, CONFIG: write_text(model.config).encode()}.items():
                write_file(place / model.name / name, content)
        for model in models:
            _move(place, folder, model.name)
    if not (folder / "Dockerfile").exists():
        version = read_version("atrous") or ""
        write_file(
            folder / "Dockerfile", _DOCKERFILE.format(image=TRITON_IMAGE, requirement=_name_release(version)).encode()
        )
    return {model.name: tuple(sorted((CONFIG, *model.files))) for model in models}


def _check_options(options: TritonOptions) -> None:
    for field, most in _MOST.items():
        least, value = (0 if field == "delay_us" else 1), getattr(options, field)
        if not least <= value <= most:
            raise InputError(f"{field} must be {least} to {most}, got {value}")


def _check_places(folder: Path, names: Sequence[str], replace: bool) -> None:
    for path in (folder / name for name in names):
        if not path.exists():
            continue
        if not (path / CONFIG).is_file():
            raise OutputError("exists and is not a model of Triton: choose another name", path=path)
        if not replace:
            raise OutputError("a model is there already: give --force to replace it", path=path)


@contextlib.contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """A folder beside the repository, where Triton does not look for models; removed at the end."""
    place = temporary_name(folder.absolute())
    try:
        place.mkdir()
        yield place
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", path=folder) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _move(place: Path, folder: Path, name: str) -> None:
    """Put a written model in place; an old one ends up in the temporary folder."""
    if (folder / name).exists():
        os.replace(folder / name, place / f"{name}.old")
    os.replace(place / name, folder / name)
