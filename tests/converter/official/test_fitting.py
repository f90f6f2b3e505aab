"""Telling a model's weights from another's and from rubbish, and writing the prototxt that fits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.converter import read_net, run_blobs, to_torch
from atrous.converter.official.catalogue import OfficialModel
from atrous.converter.official.fitting import fit_net, fit_published
from atrous.errors import ConverterError, FetchError

from .tiny import PUBLISHED, make_catalogue, register, write_weights


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> OfficialModel:
    register(monkeypatch)
    return make_catalogue()[1]


@pytest.mark.parametrize("experiment", ["voc12", "pascal", "exper/voc12", "v-1.0_x"])
def test_the_classifier_is_named_as_in_the_weights(model: OfficialModel, tmp_path: Path, experiment: str) -> None:
    path = tmp_path / "w.caffemodel"
    write_weights(path, experiment=experiment)
    fitted = fit_net(model, path)
    net = read_net(fitted.text, path)
    assert f"fc8_{experiment}" in {layer.name for layer in net.layers}
    assert fitted.dialect == "deeplab_v1"
    assert fitted.warnings == ()
    assert fitted.text.startswith("# Tiny, 5 classes: written by atrous")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another number of classes": ({"labels": 7}, "knows 7 classes, that of Tiny 5"),
    "no classifier": ({"labels": 0}, "has no classifier"),
    "another width": ({"outputs": 6}, "it is not Tiny: the file does not hold"),
    "not a number": ({"value": float("nan")}, "not finite"),
    "infinity": ({"value": float("inf")}, "not finite"),
    "a name that breaks out of the text": ({"experiment": 'x" } layers { name: "y'}, "no published net has"),
    "a name of two lines": ({"experiment": "x\ny"}, "has no classifier such as fc8_voc12.*conv1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_weights_are_refused(model: OfficialModel, tmp_path: Path, name: str) -> None:
    changes, words = REFUSED[name]
    if "experiment" in changes:
        experiment, changes = changes["experiment"], {"experiment": "@@@"}
    path = tmp_path / "w.caffemodel"
    content = write_weights(path, **changes)
    if changes.get("experiment") == "@@@":
        path.write_bytes(_rename(content, experiment))
    with pytest.raises(FetchError, match=words):
        fit_net(model, path)


def _rename(content: bytes, experiment: str) -> bytes:
    """Rename the classifier inside a caffemodel, keeping its length fields right."""
    from atrous.converter.files.wire import WireReader, encode_block

    parts = []
    for field in WireReader(content).fields(0, len(content)):
        if field.number != 2:
            parts.append(content[field.at : field.stop])
            continue
        inner = []
        for item in WireReader(content).fields(field.start, field.stop):
            text = content[item.start : item.stop]
            is_name = item.number == 4 and text == b"fc8_@@@"
            inner.append(encode_block(4, f"fc8_{experiment}".encode()) if is_name else content[item.at : item.stop])
        parts.append(encode_block(2, b"".join(inner)))
    return b"".join(parts)


def test_rubbish_is_refused(model: OfficialModel, tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    content = write_weights(path)
    for rubbish in (os.urandom(2000), bytes(2000), b"<html>" + bytes(500), content[:-1], content[: len(content) // 2]):
        path.write_bytes(rubbish)
        with pytest.raises(FetchError, match=r"is no whole caffemodel|it is not Tiny|no classifier"):
            fit_net(model, path)


def test_a_difference_to_the_structure_inside_the_weights_is_reported(model: OfficialModel, tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    write_weights(path, hole=4)
    (warning,) = fit_net(model, path).warnings
    assert "dilation: (2,) in the prototxt, (4,) in the weights file" in warning


def test_an_initialization_needs_no_classifier_but_may_have_one(
    model: OfficialModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = make_catalogue(role="initialization", labels=0, classes=None)
    path = tmp_path / "w.caffemodel"
    for labels in (0, 7):
        write_weights(path, labels=labels)
        net = read_net(fit_net(model, path).text, path)
        assert any(layer.name.startswith("fc8_voc12") for layer in net.layers) == bool(labels)


def test_a_published_prototxt_gets_its_placeholders_from_the_weights(model: OfficialModel, tmp_path: Path) -> None:
    path, prototxt = tmp_path / "w.caffemodel", tmp_path / "test.prototxt"
    write_weights(path, experiment="pascal")
    prototxt.write_text(PUBLISHED)
    fitted = fit_published(model, prototxt, path)
    assert fitted.variables == {"NET_ID": "Tiny", "EXP": "pascal", "NUM_LABELS": "5"}
    assert fitted.warnings == ()
    published = read_net(prototxt, path, variables=fitted.variables)
    ours = read_net(fit_net(model, path).text, path)
    image = {"data": np.random.default_rng(0).standard_normal((1, 3, 33, 33)).astype("f") * 50}
    name = "fc8_interp:fc8_interp"
    np.testing.assert_array_equal(run_blobs(to_torch(published), image)[name], run_blobs(to_torch(ours), image)[name])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("num_output: 4", "num_output: 6"),
        ('name: "conv1"', 'name: "conv2"'),
        ("num_output: ${NUM_LABELS}", "num_output: 6"),
        ("layers {", "layers }"),
        ("kernel_size: 3 pad: 2", "kernel_size: ${SIZE} pad: 2"),
        ('bottom: "conv1" top: "pool1"', 'bottom: "conv9" top: "pool1"'),
    ],
)
def test_a_published_prototxt_of_another_net_is_refused(
    model: OfficialModel, tmp_path: Path, old: str, new: str
) -> None:
    path, prototxt = tmp_path / "w.caffemodel", tmp_path / "test.prototxt"
    write_weights(path)
    assert old in PUBLISHED
    prototxt.write_text(PUBLISHED.replace(old, new))
    with pytest.raises(ConverterError):
        fit_published(model, prototxt, path)


def test_a_published_prototxt_without_scores_is_refused(model: OfficialModel, tmp_path: Path) -> None:
    path, prototxt = tmp_path / "w.caffemodel", tmp_path / "test.prototxt"
    write_weights(path)
    prototxt.write_text(PUBLISHED[: PUBLISHED.index('layers { name: "fc8_$')])
    with pytest.raises(FetchError, match="does not end in the scores of 5 classes"):
        fit_published(model, prototxt, path)
