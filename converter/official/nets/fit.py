"""Check that a caffemodel is the stated model, and write the prototxt for it.

The classifier's layer is named after its experiment (`fc8_voc12`, `fc8_pascal`), so its name and number of outputs are
read from the weights. The net written for them must accept every blob, and all numbers must be finite: that is how a
model is distinguished from another one and from random bytes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .... import __version__
from ....errors import CaffemodelError, ConverterError, FetchError
from ...files.caffemodel import read_caffemodel
from ...files.weight_file import WeightFile
from ...read import read_net
from .architecture import Head, find_architecture

if TYPE_CHECKING:
    from ..catalogue import OfficialModel

_EXPERIMENT = re.compile(r"[\w./-]{1,64}", re.ASCII)


def fit_net(model: OfficialModel, weights: Path) -> tuple[str, tuple[str, ...]]:
    """Check a caffemodel; returns the prototxt for it, and warnings such as differences to the saved structure.

    Raises FetchError if it is another model, or not a caffemodel.
    """
    architecture = find_architecture(model.architecture)
    try:
        file = read_caffemodel(weights)
    except CaffemodelError as error:
        reason = str(error).replace(f"{weights}: ", "").replace(f"{weights} at", "at")
        raise FetchError(f"the caffemodel is truncated or corrupt: {reason}") from None
    with file:
        for layer in file.layers:
            if not all(np.isfinite(blob.array).all() for blob in layer.blobs):
                raise FetchError(f"its layer {layer.name[:80]!r} holds numbers that are not finite")
        head = _find_head(model, file)
        end = f"{head.labels} classes" if head is not None else "no classifier"
        text = f"# {model.title}, {end}: written by atrous {__version__} for its weights.\n"
        text += f"# Layers known from {architecture.basis}.\n{architecture.write(model.title, head)}"
        try:
            return text, read_net(text, file).warnings
        except ConverterError as error:
            reason = " ".join(str(error).splitlines()[:4]).replace(weights.name, "the file")
            raise FetchError(f"it is not {model.title}: {reason.partition('; give the prototxt')[0]}") from None


def _find_head(model: OfficialModel, file: WeightFile) -> Head | None:
    """The classifier, by its layer; raises FetchError for another number of classes, or if it must not be missing."""
    architecture = find_architecture(model.architecture)
    for layer in file.layers:
        found = architecture.head_layer.fullmatch(layer.name)
        if found is None or not layer.blobs or len(layer.blobs[0].shape) != 4:
            continue
        experiment, labels = found["experiment"], layer.blobs[0].shape[0]
        if not _EXPERIMENT.fullmatch(experiment):
            raise FetchError(f"its classifier has a name unlike any published one: {layer.name[:80]!r}")
        if model.labels and labels != model.labels:
            raise FetchError(f"its classifier has {labels} classes, that of {model.title} has {model.labels}")
        return Head(experiment, labels)
    if model.role == "segmentation":
        names = ", ".join(repr(layer.name[:40]) for layer in file.layers if layer.blobs)[:200] or "none"
        raise FetchError(f"it has no classifier such as {architecture.head_example}; its layers with weights: {names}")
    return None
