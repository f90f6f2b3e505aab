"""Whether a caffemodel is the model it is said to be, and the prototxt that fits it.

The classifier's layer is named after the experiment it was trained in (`fc8_voc12`, `fc8_pascal`), so its name and its
number of outputs are read from the weights. The net written for them must then take every blob: that, and that all
numbers are finite, is what tells a model from another one and from rubbish.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ... import __version__
from ...errors import CaffemodelError, ConverterError, FetchError
from ..files.caffemodel import WeightFile, read_caffemodel
from ..files.prototxt import read_prototxt
from ..graph.net import Net
from ..read import read_net
from .catalogue import OfficialModel
from .nets import Head, find_architecture

_EXPERIMENT = re.compile(r"[\w./-]{1,64}", re.ASCII)


@dataclass(frozen=True)
class FittedNet:
    """A net that takes a weights file.

    Attributes:
        text: the prototxt.
        variables: values of its `${NAME}` placeholders.
        dialect: which Caffe it is written for.
        warnings: of reading net and weights together, such as differences to the structure inside the weights.
    """

    text: str
    variables: Mapping[str, str]
    dialect: str
    warnings: tuple[str, ...]


def fit_net(model: OfficialModel, weights: Path) -> FittedNet:
    """Check a caffemodel and write the prototxt for it.

    Raises:
        FetchError: it is not this model, or no caffemodel.
    """
    architecture = find_architecture(model.architecture)
    with _open_weights(weights) as file:
        _require_finite(model, file)
        head = _find_head(model, file)
        text = _describe(model, head, architecture.basis) + architecture.write(model.title, head)
        net = _read_together(model, text, file, {})
    return FittedNet(text, {}, net.dialect, net.warnings)


def fit_published(model: OfficialModel, prototxt: Path, weights: Path) -> FittedNet:
    """Check a published prototxt against the weights.

    Raises:
        ConverterError: it does not belong to them.
    """
    with read_caffemodel(weights) as file:
        head = _find_head(model, file)
        known = {"NET_ID": model.title}
        if head is not None:
            known |= {"EXP": head.experiment, "NUM_LABELS": str(head.labels)}
        text = prototxt.read_bytes()
        used = {name: value for name, value in known.items() if b"${%s}" % name.encode() in text}
        read_prototxt(prototxt, variables=used)
        net = read_net(prototxt, file, variables=used)
    if not any(len(blob.shape) == 4 and blob.shape[1] in (1, model.labels) for blob in net.outputs):
        raise FetchError(f"{prototxt}: its net does not end in the scores of {model.labels} classes")
    return FittedNet("", used, net.dialect, net.warnings)


def _open_weights(path: Path) -> WeightFile:
    """Open weights; what is wrong with them is said without their path, which is a temporary one."""
    try:
        return read_caffemodel(path)
    except CaffemodelError as error:
        text = str(error).replace(f"{path}: ", "").replace(f"{path} at", "at")
        raise FetchError(f"it is no whole caffemodel: {text}") from None


def _read_together(model: OfficialModel, text: str, file: WeightFile, variables: Mapping[str, str]) -> Net:
    try:
        return read_net(text, file, variables=variables)
    except ConverterError as error:
        text = " ".join(str(error).splitlines()[:4]).replace(file.path.name, "the file")
        raise FetchError(f"it is not {model.title}: {text.partition('; give the prototxt')[0]}") from None


def _find_head(model: OfficialModel, file: WeightFile) -> Head | None:
    """The classifier, told by its layer in the weights.

    Raises:
        FetchError: a model that must have one has none, or another number of classes.
    """
    architecture = find_architecture(model.architecture)
    for layer in file.layers:
        found = architecture.head_layer.fullmatch(layer.name)
        if found is None or not layer.blobs or len(layer.blobs[0].shape) != 4:
            continue
        experiment, labels = found["experiment"], layer.blobs[0].shape[0]
        if not _EXPERIMENT.fullmatch(experiment):
            raise FetchError(f"its classifier has a name that no published net has: {layer.name[:80]!r}")
        if model.labels and labels != model.labels:
            raise FetchError(f"its classifier knows {labels} classes, that of {model.title} {model.labels}")
        return Head(experiment, labels)
    if model.role == "segmentation":
        names = ", ".join(repr(layer.name[:40]) for layer in file.layers if layer.blobs)
        like = architecture.head_example
        raise FetchError(f"it has no classifier such as {like}; its layers with weights are {names[:200] or 'none'}")
    return None


def _require_finite(model: OfficialModel, file: WeightFile) -> None:
    for layer in file.layers:
        for index, blob in enumerate(layer.blobs):
            if not np.isfinite(blob.array).all():
                raise FetchError(f"its layer {layer.name[:80]!r} holds numbers that are not finite (blob {index})")


def _describe(model: OfficialModel, head: Head | None, basis: str) -> str:
    end = f"{head.labels} classes" if head is not None else "no classifier"
    return (
        f"# {model.title}, {end}: written by atrous {__version__} to fit its weights.\n# Layers known from {basis}.\n"
    )
