"""A model with a few hundred parameters, and its catalogue."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.converter.files.prototxt import read_prototxt
from atrous.converter.files.writer import write_caffemodel
from atrous.converter.official.catalogue import Catalogue, OfficialModel
from atrous.converter.official.fetch import Fetch
from atrous.converter.official.nets import ARCHITECTURES, Architecture, Head
from atrous.converter.official.nets.text import NetText
from atrous.converter.official.record import ModelRecord

LABELS = 5
MEMBER = "train2_iter_20000.caffemodel"
WHOLE = ["model.json", "tiny.caffemodel", "tiny.prototxt"]


def write_tiny(name: str, head: Head | None) -> str:
    net = NetText(name, "V1", 33)
    blob = net.add_convolution("conv1", "data", 4, 3, pad=2, dilation=2)
    net.add_relu("relu1", blob)
    blob = net.add_pooling("pool1", blob, 3, 2)
    if head is not None:
        blob = net.add_convolution(f"fc8_{head.experiment}", blob, head.labels, 1)
        net.add("Interp", "fc8_interp", blob, interp_param={"zoom_factor": 2})
    return str(net)


def register(patch: pytest.MonkeyPatch) -> None:
    """Add the architecture `tiny`."""
    architecture = Architecture("tiny", re.compile(r"fc8_(?P<experiment>.+)"), "fc8_voc12", write_tiny, "this test")
    patch.setitem(ARCHITECTURES, "tiny", architecture)


def write_weights(
    path: Path,
    *,
    seed: int = 0,
    labels: int = LABELS,
    experiment: str = "voc12",
    outputs: int = 4,
    hole: int = 2,
    value: float | None = None,
) -> bytes:
    """A caffemodel as Caffe saves it; returns its bytes. Without labels it has no classifier."""
    random = np.random.default_rng(seed)
    blobs: dict[str, list[Any]] = {
        "conv1": [random.standard_normal((outputs, 3, 3, 3)).astype("f"), random.standard_normal(outputs).astype("f")]
    }
    head = Head(experiment, labels) if labels else None
    if head is not None:
        blobs[f"fc8_{experiment}"] = [
            random.standard_normal((labels, outputs, 1, 1)).astype("f"),
            random.standard_normal(labels).astype("f"),
        ]
    if value is not None:
        blobs["conv1"][0][0, 0, 0, 0] = value
    text = write_tiny("saved", head).replace("num_output: 4", f"num_output: {outputs}")
    text = text.replace("pad: 2 hole: 2", f"pad: {hole} hole: {hole}")
    write_caffemodel(path, read_prototxt(text).net, blobs, format="V1", dialect="deeplab_v1")
    return path.read_bytes()


def make_zip(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def make_catalogue(*urls: str, size_bytes: int | None = 1200, **changes: Any) -> tuple[Catalogue, OfficialModel]:
    """A catalogue of one model with these addresses of its weights."""
    weights = {"file": "w.caffemodel", "size_bytes": size_bytes, "addresses": _addresses(urls)}
    weights |= {key: changes.pop(key) for key in ("file", "member", "sha256") if key in changes}
    model: dict[str, Any] = {
        "name": "tiny",
        "title": "Tiny",
        "role": "segmentation",
        "about": "for tests",
        "architecture": "tiny",
        "labels": LABELS,
        "classes": "five",
        "input_size": 33,
        "mean": [104.008, 116.669, 122.675],
        "crf": {
            "mode": "deeplab",
            "iterations": 10,
            "gaussian": [{"sxy": 3, "weight": 3}],
            "bilateral": [{"sxy": 121, "srgb": 5, "weight": 4}],
        },
        "crf_source": "this test",
        "verified": False,
        "weights": weights,
        **changes,
    }
    content = {
        "schema_version": 1,
        "page": "http://models.invalid/",
        "about": "of a test",
        "class_sets": {
            "five": {
                "classes": ["background", "a", "b", "c", "d"],
                "palette": [[0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9], [9, 9, 9]],
            }
        },
        "models": [model],
    }
    catalogue = Catalogue.model_validate(content)
    return catalogue, catalogue.models[0]


def _addresses(urls: Sequence[str]) -> list[dict[str, str]]:
    return [{"url": url, "basis": "seen"} for url in urls] or [{"url": "http://127.0.0.1:9/", "basis": "seen"}]


def fetch(made: tuple[Catalogue, OfficialModel], folder: Path, **options: Any) -> tuple[str, ModelRecord]:
    return Fetch(*made, folder, timeout_s=1.0, **options).run()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
