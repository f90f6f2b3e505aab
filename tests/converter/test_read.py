"""read_net from files: prototxt, caffemodel, and both at fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.converter import read_net
from atrous.converter.files.caffemodel import read_caffemodel
from atrous.converter.files.prototxt import read_prototxt
from atrous.converter.files.writer import write_caffemodel
from atrous.converter.graph.net import ParameterKey
from atrous.errors import CaffemodelError, ConverterError, NetError, PrototxtError

from .nets import DEEPLAB, conv, data, layer, random_weights, read_seeded


def write_net(folder: Path, text: str = DEEPLAB, version: str = "V1") -> tuple[Path, Path, dict[str, Any]]:
    """A prototxt, its caffemodel, and the arrays in it."""
    prototxt, caffemodel = folder / "net.prototxt", folder / "net.caffemodel"
    prototxt.write_text(text)
    weights = random_weights(read_net(text))
    write_caffemodel(caffemodel, read_prototxt(text), weights, format=version)
    return prototxt, caffemodel, weights


def test_a_net_and_its_weights(tmp_path: Path) -> None:
    prototxt, caffemodel, weights = write_net(tmp_path)
    net = read_net(prototxt, caffemodel)
    assert (net.name, net.dialect, net.warnings) == ("mini-deeplab", "deeplab_v1", ())
    for name, blobs in weights.items():
        for index, blob in enumerate(blobs):
            assert (net.parameters[ParameterKey(name, index)] == blob).all(), (name, index)


def test_parameters_are_views_of_the_file(tmp_path: Path) -> None:
    prototxt, caffemodel, _ = write_net(tmp_path)
    arrays = list(read_net(str(prototxt), str(caffemodel)).parameters.values())
    assert arrays
    for array in arrays:
        assert not array.flags.owndata
        assert not array.flags.writeable
    assert len({id(_root(array)) for array in arrays}) == 1


def _root(array: Any) -> Any:
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array.obj if isinstance(array, memoryview) else array


def test_open_weights_and_text_are_taken_too(tmp_path: Path) -> None:
    _, caffemodel, weights = write_net(tmp_path)
    with read_caffemodel(caffemodel) as source:
        net = read_net(DEEPLAB, source)
    assert (net.parameters[ParameterKey("fc8", 1)] == weights["fc8"][1]).all()


def test_variables(tmp_path: Path) -> None:
    text = data(1, 3, 4, 4) + conv("fc8_${EXP}", "data", "y", 21).replace("num_output: 21", "num_output: ${LABELS}")
    net = read_net(text, variables={"EXP": "voc12", "LABELS": "5"})
    assert net.layers[0].name == "fc8_voc12"
    assert net.outputs[0].shape == (1, 5, 4, 4)
    with pytest.raises(PrototxtError, match=r"\$\{LABELS\} \(line 2\).*--set LABELS=VALUE"):
        read_net(text)


def test_hdf5_weights_with_a_shared_blob(tmp_path: Path) -> None:
    """Caffe writes a shared blob once; index 0 of "b" is not in the file."""
    h5py = pytest.importorskip("h5py")
    extra = 'param { name: "w" } param { name: "bias_%s" }'
    text = data(1, 3, 4, 4) + conv("a", "data", "x", 3, extra=extra % "a") + conv("b", "x", "y", 3, extra=extra % "b")
    weight = np.arange(9, dtype=np.float32).reshape(3, 3, 1, 1)
    with h5py.File(tmp_path / "w.caffemodel.h5", "w") as file:
        file["data/a/0"], file["data/a/1"], file["data/b/1"] = weight, np.ones(3), np.full(3, 2)
    net = read_net(text, tmp_path / "w.caffemodel.h5")
    assert {str(key) for key in net.parameters} == {"a/0", "a/1", "b/1"}
    assert net.parameters[ParameterKey("b", 1)].tolist() == [2, 2, 2]


def test_wrong_pair_of_files_is_reported(tmp_path: Path) -> None:
    """The same shapes, another dilation: only the structure saved with the weights shows it."""
    _, caffemodel, _ = write_net(tmp_path)
    net = read_net(DEEPLAB.replace("pad: 3 hole: 3", "pad: 1"), caffemodel)
    assert any("fc6" in warning and "structure saved with the weights differ" in warning for warning in net.warnings)


def test_a_caffemodel_alone(tmp_path: Path) -> None:
    prototxt, caffemodel, _ = write_net(tmp_path)
    whole, alone = read_net(prototxt, caffemodel), read_net(None, caffemodel)
    assert [(entry.name, entry.type) for entry in alone.layers] == [(entry.name, entry.type) for entry in whole.layers]
    assert [blob.shape for blob in alone.blobs()] == [blob.shape for blob in whole.blobs()]
    with pytest.raises(NetError, match="no structure was given"):
        read_net(None)


def test_legacy_file_for_a_net_of_today(tmp_path: Path) -> None:
    text = data(1, 6) + layer("InnerProduct", "ip", "data", "y", "inner_product_param { num_output: 4 }")
    blobs = [np.arange(24, dtype=np.float32).reshape(4, 6), np.arange(4, dtype=np.float32)]
    write_caffemodel(tmp_path / "v1.caffemodel", "old", [("ip", "InnerProduct", blobs)], format="V1")
    assert read_caffemodel(tmp_path / "v1.caffemodel").layers[0].blobs[0].shape == (1, 1, 4, 6)
    net = read_net(text, tmp_path / "v1.caffemodel")
    assert (net.parameters[ParameterKey("ip", 0)] == blobs[0]).all()


# ---- bad input: one clear line


def read_error(tmp_path: Path, content: bytes) -> str:
    prototxt, caffemodel, _ = write_net(tmp_path)
    caffemodel.write_bytes(content)
    with pytest.raises(ConverterError) as caught:
        read_net(prototxt, caffemodel)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert str(caffemodel) in str(caught.value)
    return str(caught.value)


def test_truncated_caffemodel(tmp_path: Path) -> None:
    _, caffemodel, _ = write_net(tmp_path)
    content = caffemodel.read_bytes()
    message = read_error(tmp_path, content[: len(content) // 2])
    assert "is incomplete" in message
    assert f"the file has {len(content) // 2}" in message


@pytest.mark.parametrize("cut", [1, 10, 100, 1000])
def test_caffemodel_cut_anywhere_is_no_traceback(tmp_path: Path, cut: int) -> None:
    _, caffemodel, _ = write_net(tmp_path)
    content = caffemodel.read_bytes()
    for length in {cut, len(content) - cut}:
        caffemodel.write_bytes(content[:length])
        with pytest.raises(ConverterError):
            read_net(tmp_path / "net.prototxt", caffemodel)


def test_lfs_pointer(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 82000000\n"
    assert "git lfs pull" in read_error(tmp_path, pointer)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html></html>", b"layer { name: 'x' }", bytes(64)])
def test_what_is_no_caffemodel(tmp_path: Path, content: bytes) -> None:
    read_error(tmp_path, content)


def test_missing_files_are_named(tmp_path: Path) -> None:
    prototxt, _, _ = write_net(tmp_path)
    with pytest.raises(PrototxtError, match=r"nowhere\.prototxt.*No such file"):
        read_net(tmp_path / "nowhere.prototxt")
    with pytest.raises(CaffemodelError, match=r"nowhere\.caffemodel.*No such file"):
        read_net(prototxt, tmp_path / "nowhere.caffemodel")


def test_unknown_field_has_line_and_nearest_name() -> None:
    with pytest.raises(PrototxtError, match=r"<text>:2.*kernel_siz\b.*kernel_size"):
        read_net(data(1, 3, 4, 4) + conv("c", "data", "y", 2).replace("kernel_size:", "kernel_siz:"))


def test_dialect_of_a_caffemodel_alone_has_evidence(tmp_path: Path) -> None:
    net = read_seeded(DEEPLAB)
    path = tmp_path / "net.caffemodel"
    blobs = {layer.name: [net.parameters[key] for key in layer.parameters] for layer in net.layers if layer.parameters}
    write_caffemodel(path, read_prototxt(DEEPLAB), blobs, format="V1", dialect="deeplab_v1")
    found = read_net(path)
    assert found.dialect == "deeplab_v1"
    assert any("hole" in sentence or "INTERP" in sentence for sentence in found.dialect_evidence), (
        found.dialect_evidence
    )
    assert read_net(path, dialect="deeplab_v1").dialect_evidence == ("given by the caller",)
