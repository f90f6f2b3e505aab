"""The models of a server: loaded bundles by name, and how a request's parameters change the labeling."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ...bundle.folder import read_bundle
from ...errors import InputError, RequestError
from ..crf_request import NAMES as CRF_NAMES
from ..crf_request import choose_crf
from ..loading import load
from ..resizing import Sizing, choose_sizing
from ..segmenter import Segmenter
from .settings import ServeSettings

VERSION = "1"
INPUT = "image"
OUTPUTS = {"labels": "UINT8", "labels_png": "BYTES", "probabilities": "FP32"}
PARAMETERS = (*CRF_NAMES, "size", "max_side")

_MOST_VARIANTS = 64  # combinations of parameters that are kept
_WARM_UP_SIDE = 321
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")


class Model:
    """A loaded bundle under a name.

    Attributes:
        name: of the model.
        segmenter: labels as the bundle says.
        classes: names by label.
        palette: RGB by label.
    """

    def __init__(self, name: str, segmenter: Segmenter, max_pixels: int) -> None:
        self.name, self.segmenter, self._max_pixels = name, segmenter, max_pixels
        manifest = segmenter.bundle.manifest
        self.classes, self.palette = manifest.classes, manifest.palette
        self._derive = lru_cache(_MOST_VARIANTS)(lambda crf, sizing: segmenter.derive(crf=crf, sizing=sizing))

    @property
    def outputs(self) -> Sequence[str]:
        """The names of the outputs; a head of labels has no probabilities."""
        return [name for name in OUTPUTS if name != "probabilities" or self.segmenter.head != "labels"]

    def describe(self) -> dict[str, Any]:
        """The model's metadata, as the protocol has it."""
        shapes = {"labels": [1, -1, -1], "labels_png": [1, 1], "probabilities": [1, len(self.classes), -1, -1]}
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": "atrous",
            "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [1, -1, -1, 3]}],
            "outputs": [{"name": name, "datatype": OUTPUTS[name], "shape": shapes[name]} for name in self.outputs],
        }

    def choose(self, parameters: Mapping[str, Any]) -> Segmenter:
        """The segmenter for a request's parameters.

        Raises:
            InputError: if a parameter is unknown or out of range.
        """
        unknown = sorted(parameters.keys() - set(PARAMETERS))
        if unknown:
            raise RequestError(f'there is no parameter "{unknown[0]}"; the parameters are {", ".join(PARAMETERS)}')
        wanted = {name: value for name, value in parameters.items() if name in CRF_NAMES}
        crf = choose_crf(self.segmenter.crf, wanted)
        sizing = self._choose_sizing(parameters.get("size"), parameters.get("max_side"))
        if crf == self.segmenter.crf and sizing == self.segmenter.sizing:
            return self.segmenter
        return self._derive(crf, sizing)

    def warm_up(self) -> None:
        """Label an image of the size that the net was made for, so that the first request is as fast as others."""
        height, width = self.segmenter.sizing.made_for or (_WARM_UP_SIDE, _WARM_UP_SIDE)
        rows, columns = np.mgrid[:height, :width]
        image = np.stack([rows, columns, rows + columns], axis=2).astype(np.uint8)  # (H, W, 3)
        self.segmenter(image)

    def _choose_sizing(self, size: Any, max_side: Any) -> Sizing:
        if size is None and max_side is None:
            return self.segmenter.sizing
        sides: Any = size
        if size is not None and size != "native":
            match = _SIZE.fullmatch(size) if isinstance(size, str) else None
            if match is None or "0" in (match[1], match[2]):
                raise RequestError('"size" must be "native" or HEIGHTxWIDTH in pixels, such as "321x321"')
            sides = int(match[1]), int(match[2])
            if sides[0] * sides[1] > self._max_pixels:
                raise RequestError(f'"size" has more than {self._max_pixels} pixels')
        if max_side is not None and (isinstance(max_side, bool) or not str(max_side).isdecimal()):
            raise RequestError(f'"max_side" must be a number of pixels, got {max_side!r}')
        return choose_sizing(self.segmenter.bundle.preprocessing, sides, None if max_side is None else int(max_side))


class Models:
    """The models by name, in the order they were given."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = {model.name: model for model in models}

    def __iter__(self) -> Any:
        """The models."""
        return iter(self._models.values())

    def find(self, name: str, version: str = "") -> Model:
        """The model of a name and version ("" for any).

        Raises:
            RequestError: with the status 404 if there is none.
        """
        model = self._models.get(name)
        if model is None or version not in ("", VERSION):
            what = f"unknown model: '{name}' is" if model is None else f"unknown version {version} of '{name}': it is"
            raise RequestError(f"Request for {what} not found", status=404)
        return model

    @property
    def first(self) -> Model:
        """The model of requests that name none."""
        return next(iter(self._models.values()))

    def close(self) -> None:
        """Free the networks."""
        for model in self._models.values():
            model.segmenter.close()


def name_bundles(arguments: Sequence[str]) -> dict[str, str]:
    """The names and folders of bundles given as FOLDER or NAME=FOLDER; a name is the manifest's if none is given.

    Raises:
        InputError: if two bundles have one name, or a name does not fit into an address.
        BundleError: if a bundle cannot be read.
    """
    named: dict[str, str] = {}
    for argument in arguments:
        name, separator, folder = argument.partition("=")
        if not separator or not _NAME.fullmatch(name):
            name, folder = "", argument
        name = name or read_bundle(folder).manifest.name
        if not _NAME.fullmatch(name):
            raise InputError(f'"{name}" does not fit into a web address: give the bundle a name, as in seg={folder}')
        if name in named:
            raise InputError(f'two bundles have the name "{name}": give one another name, as in {name}-2={folder}')
        named[name] = folder
    return named


def load_models(settings: ServeSettings, cores: int) -> Models:
    """Load the bundles of a server; errors as of `runtime.load`."""
    models: list[Model] = []
    try:
        for name, folder in settings.bundles.items():
            segmenter = load(folder, threads=cores, **settings.load)
            models.append(Model(name, segmenter, settings.max_pixels))
    except BaseException:
        Models(models).close()
        raise
    return Models(models)
