"""The check that weights are the stated model, and the prototxt written for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from atrous.converter import read_net
from atrous.converter.official.catalogue import OfficialModel
from atrous.converter.official.nets.fit import fit_net
from atrous.errors import FetchError

from .tiny import make_catalogue, register, write_weights


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> OfficialModel:
    register(monkeypatch)
    return make_catalogue()[1]


@pytest.mark.parametrize("experiment", ["voc12", "pascal", "exper/voc12", "v-1.0_x"])
def test_the_classifier_is_named_as_in_the_weights(model: OfficialModel, tmp_path: Path, experiment: str) -> None:
    path = tmp_path / "w.caffemodel"
    write_weights(path, experiment=experiment)
    text, warnings = fit_net(model, path)
    net = read_net(text, path)
    assert f"fc8_{experiment}" in {layer.name for layer in net.layers}
    assert (net.dialect, warnings) == ("deeplab_v1", ())
    assert text.startswith("# Tiny, 5 classes: written by atrous")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another number of classes": ({"labels": 7}, "has 7 classes, that of Tiny has 5"),
    "no classifier": ({"labels": 0}, "has no classifier"),
    "another width": ({"outputs": 6}, "it is not Tiny: the file does not hold"),
    "not a number": ({"value": float("nan")}, "not finite"),
    "infinity": ({"value": float("inf")}, "not finite"),
    "a name that breaks out of the text": ({"experiment": 'x" } layers { name: "y'}, "unlike any published one"),
    "a name of two lines": ({"experiment": "x\ny"}, "has no classifier such as fc8_voc12.*conv1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_weights_are_rejected(model: OfficialModel, tmp_path: Path, name: str) -> None:
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
    from atrous.wire import WireReader, encode_block

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


def test_random_bytes_are_rejected(model: OfficialModel, tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    whole = write_weights(path)
    for content in (os.urandom(2000), bytes(2000), b"<html>" + bytes(500), whole[:-1], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(FetchError, match=r"truncated or corrupt|it is not Tiny|no classifier"):
            fit_net(model, path)


def test_a_difference_to_the_structure_inside_the_weights_is_reported(model: OfficialModel, tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    write_weights(path, hole=4)
    _, (warning,) = fit_net(model, path)
    assert "dilation: (2,) in the prototxt, (4,) in the weights file" in warning


def test_an_initialization_needs_no_classifier_but_may_have_one(
    model: OfficialModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = make_catalogue(role="initialization", labels=0, classes=None)
    path = tmp_path / "w.caffemodel"
    for labels in (0, 7):
        write_weights(path, labels=labels)
        net = read_net(fit_net(model, path)[0], path)
        assert any(layer.name.startswith("fc8_voc12") for layer in net.layers) == bool(labels)
