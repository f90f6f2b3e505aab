"""Weights files: against protobuf's own parser on every real file, and damaged ones."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.converter import read_net
from atrous.converter.files.caffemodel import read_caffemodel, read_mean
from atrous.converter.files.prototxt import read_prototxt
from atrous.converter.files.weight_file import WeightFile
from atrous.converter.files.writer import write_caffemodel
from atrous.errors import CaffemodelError, ConverterError
from atrous.proto import schema
from atrous.wire import encode_block


def write(path: Path, net: Any) -> Path:
    path.write_bytes(net.SerializeToString())
    return path


def refuse(path: Path) -> CaffemodelError:
    with pytest.raises(CaffemodelError) as caught:
        read_caffemodel(path)
    assert caught.value.path == path
    return caught.value


def small_net() -> Any:
    net = schema.message("NetParameter")(name="net")
    layer = net.layer.add(name="conv", type="Convolution", bottom=["data"], top=["conv"])
    layer.blobs.add(data=range(6)).shape.dim.extend([2, 3])
    layer.blobs.add(data=range(2)).shape.dim.append(2)
    return net


# Against protobuf's own parser --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "pattern", "least"),
    [("goldens", "goldens/tiny/*/weights.caffemodel", 170), ("shared_dir", "weights/*/*.caffemodel", 1600)],
)
def test_equal_to_protobufs_parser_on_every_real_file(
    request: pytest.FixtureRequest, folder: str, pattern: str, least: int
) -> None:
    blobs = 0
    for path in sorted(request.getfixturevalue(folder).glob(pattern)):
        net = schema.message("NetParameter").FromString(path.read_bytes())
        with read_caffemodel(path) as ours:
            assert ours.net_name == net.name
            entries = net.layer or net.layers
            assert len(ours.layers) == len(entries)
            for mine, theirs in zip(ours.layers, entries, strict=True):
                assert mine.name == theirs.name
                assert list(mine.bottoms) == list(theirs.bottom)
                assert list(mine.tops) == list(theirs.top)
                assert ours.format == "V1" or mine.type == theirs.type
                assert mine.indices == tuple(range(len(theirs.blobs)))
                for view, blob in zip(mine.blobs, theirs.blobs, strict=True):
                    legacy = blob.HasField("num")
                    shape = (blob.num, blob.channels, blob.height, blob.width) if legacy else tuple(blob.shape.dim)
                    assert (view.shape, view.legacy) == (shape, legacy)
                    np.testing.assert_array_equal(view.array.ravel(), np.array(blob.data, np.float32))
                    blobs += 1
    assert blobs > least


def test_published_files_have_their_known_contents(shared_dir: Path) -> None:
    for source_file in sorted((shared_dir / "weights").glob("*/source.json")):
        for entry in json.loads(source_file.read_text())["files"]:
            facts = entry.get("caffemodel")
            if facts is None or not entry["file"].endswith(".caffemodel"):
                continue
            with read_caffemodel(source_file.parent / entry["file"]) as ours:
                assert ours.sha256 == entry["sha256"]
                assert (ours.net_name, ours.format) == (facts["net_name"] or "", facts["format"])
                assert (len(ours.layers), ours.count) == (facts["layers"], facts["params"])
                assert sum(blob.legacy for layer in ours for blob in layer.blobs) == facts["legacy_4d_shape_blobs"]


def test_arrays_are_views_into_the_file_and_outlive_it(shared_dir: Path) -> None:
    path = shared_dir / "weights" / "cifar10-quick-2014" / "cifar10_quick_iter_5000.caffemodel"
    with read_caffemodel(path) as file:
        conv = file.by_name("conv1")
        assert conv is not None
        array = conv.blobs[0].array
    assert (conv.type, array.shape, conv.blobs[0].legacy) == ("CONVOLUTION", (32, 3, 5, 5), True)
    base: Any = array
    while getattr(base, "base", None) is not None:
        base = base.base
    assert isinstance(getattr(base, "obj", base), mmap.mmap)
    assert not array.flags.writeable
    assert np.isfinite(array).all()


def test_the_last_of_repeated_names_is_found(tmp_path: Path) -> None:
    net = small_net()
    net.layer.add(name="conv", type="ReLU")
    file = read_caffemodel(write(tmp_path / "w.caffemodel", net))
    last = file.by_name("conv")
    assert last is not None
    assert last.type == "ReLU"
    assert file.by_name("none") is None


def test_v0_weights_are_inside_the_inner_layer(tmp_path: Path) -> None:
    net = schema.message("NetParameter")(name="old")
    entry = net.layers.add(bottom=["x"], top=["c"])
    entry.layer.name, entry.layer.type, entry.layer.num_output, entry.layer.kernelsize = "c", "conv", 2, 3
    entry.layer.blobs.add(num=1, channels=1, height=1, width=2, data=[1, 2])
    file = read_caffemodel(write(tmp_path / "w.caffemodel", net))
    (layer,) = file.layers
    assert (file.format, layer.name, layer.type, layer.bottoms, layer.tops) == ("V0", "c", "conv", ("x",), ("c",))
    np.testing.assert_array_equal(layer.blobs[0].array, [[[[1, 2]]]])
    structure = file.read_structure()
    assert structure.net.layer[0].type == "Convolution"
    assert list(structure.net.layer[0].convolution_param.kernel_size) == [3]


# The structure ------------------------------------------------------------------------------------------------------


def test_the_structure_is_that_of_the_prototxt(goldens: Path) -> None:
    """For every recorded net with its own weights, text and binary give the same structure."""
    compared = 0
    for case_file in sorted((goldens / "goldens" / "tiny").glob("*/case.json")):
        case = json.loads(case_file.read_text())
        weights = case_file.with_name("weights.caffemodel")
        if not weights.exists() or "weights_from" in case or "expected_error" in case:
            continue
        text = read_prototxt(case_file.with_name("net.prototxt"))
        with read_caffemodel(weights) as file:
            structure = file.read_structure()
        assert not structure.warnings
        saved = iter(structure.net.layer)
        for layer in text.net.layer:
            twin = next(found for found in saved if (found.name, found.type) == (layer.name, layer.type))
            for field, value in layer.ListFields():
                if field.name.endswith("_param"):
                    assert getattr(twin, field.name) == value, (case_file.parent.name, layer.name, field.name)
        compared += 1
    assert compared > 60


def test_hole_is_read_from_deeplab_v1s_own_number(goldens: Path) -> None:
    with read_caffemodel(goldens / "goldens/tiny/dl1-largefov-mini/weights.caffemodel") as file:
        assert file.dialect.name == "deeplab_v1"
        structure = file.read_structure()
    types = [layer.type for layer in structure.net.layer]
    assert "Interp" in types
    holes = [layer.convolution_param.hole for layer in structure.net.layer if layer.convolution_param.HasField("hole")]
    assert holes
    assert structure.net.layer[types.index("Interp")].interp_param.zoom_factor == 2


def test_unknown_fields_of_the_structure_are_named(shared_dir: Path) -> None:
    with read_caffemodel(shared_dir / "weights/triplet-3dobj/3d_triplet_iter_30000.caffemodel") as file:
        structure = file.read_structure()
    assert 'ignoring unknown field 137 of LayerParameter of type "TripletLoss"' in structure.warnings


def test_a_damaged_structure_leaves_the_weights_readable(tmp_path: Path) -> None:
    layer = small_net().layer[0].SerializeToString() + encode_block(106, b"\xff\xff")
    path = tmp_path / "w.caffemodel"
    path.write_bytes(encode_block(100, layer))
    file = read_caffemodel(path)
    assert file.layers[0].blobs[0].size == 6
    with pytest.raises(CaffemodelError, match="cannot be read"):
        file.read_structure("bvlc")


# Damage -------------------------------------------------------------------------------------------------------------


def test_every_truncation_is_detected(tmp_path: Path) -> None:
    data = small_net().SerializeToString()
    path = tmp_path / "w.caffemodel"
    for size in range(1, len(data)):
        path.write_bytes(data[:size])
        error = str(refuse(path))
        assert "incomplete" in error or "no layers" in error or "damaged" in error
    path.write_bytes(data[:-10])
    error = str(refuse(path))
    assert f"needs at least {len(data)} bytes, the file has {len(data) - 10}" in error
    assert "Fetch it again" in error


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 81917000\n",
            'to 81,917,000 bytes.*"git lfs pull"',
        ),
        (b"<!DOCTYPE html>\n<html>404</html>", "the download failed"),
        (b"  \n<html>", "the download failed"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"\x1f\x8b\x08", "gzip"),
        (b'name: "VGG"\nlayer {', "is text: a prototxt"),
        (b'# comment\nname: "VGG"', "is text: a prototxt"),
        (b"\x89PNG\r\n\x1a\n", "PNG image: give the caffemodel"),
        (b"\x08\xe8\x07\x12\x01a", "solver state or a mean image"),
        (b"\x89HDF\r\n\x1a\ngarbage", "damaged HDF5"),
        (b"\x0a\x03net", "holds no layers"),
        (b"\xff\xff\xff\xff", "incomplete"),
    ],
)
def test_other_files_are_recognized(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "w.caffemodel"
    path.write_bytes(content)
    if content.startswith(b"\x89HDF"):
        pytest.importorskip("h5py")
    assert re.search(words, str(refuse(path)))


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "cannot be read" in str(refuse(tmp_path / "none.caffemodel"))
    assert "cannot be read" in str(refuse(tmp_path))


def test_numbers_that_do_not_fill_the_shape_name_layer_and_blob(tmp_path: Path) -> None:
    net = small_net()
    net.layer[0].blobs[1].shape.dim[0] = 3
    error = str(refuse(write(tmp_path / "w.caffemodel", net)))
    assert 'layer "conv": blob 1: the shape (3) needs 3 numbers, the file has 2' in error


def test_layers_of_two_formats_are_rejected(tmp_path: Path) -> None:
    net = small_net()
    net.layers.add(name="old")
    assert "mixes layers of V1 and V2" in str(refuse(write(tmp_path / "w.caffemodel", net)))


def test_counts_are_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "w.caffemodel", small_net())
    monkeypatch.setattr("atrous.converter.files.caffemodel.MAX_BLOBS", 1)
    assert "more than 1 blobs" in str(refuse(path))
    monkeypatch.undo()
    monkeypatch.setattr("atrous.converter.files.caffemodel.MAX_LAYERS", 0)
    assert "more than 0 layers" in str(refuse(path))


def test_many_inner_layers_take_linear_time(tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    path.write_bytes(encode_block(2, encode_block(1, b"") * 32_000))
    start = time.process_time()
    assert read_caffemodel(path).format == "V0"
    assert time.process_time() - start < 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no FIFOs")
@pytest.mark.parametrize("read", [read_caffemodel, read_mean, read_prototxt, read_net])
def test_a_fifo_is_rejected_without_waiting(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    path = tmp_path / "w.caffemodel"
    os.mkfifo(path)
    with pytest.raises(ConverterError, match="cannot be read: not a regular file"):
        read(path)


# Mean images --------------------------------------------------------------------------------------------------------


def test_mean_images_are_read(shared_dir: Path) -> None:
    for path in sorted((shared_dir / "weights").glob("*/*.binaryproto")):
        blob = schema.message("BlobProto").FromString(path.read_bytes())
        mean = read_mean(path)
        assert mean.shape == (blob.channels, blob.height, blob.width)
        np.testing.assert_array_equal(mean.ravel(), np.array(blob.data, np.float32))


def test_other_files_are_rejected_as_mean_images(tmp_path: Path) -> None:
    path = tmp_path / "mean.binaryproto"
    for content, kind in (
        (b"<html></html>", "HTML"),
        (b"104.0, 116.7\r\n122.7\n", "is text, not a mean image: give its mean pixel, as in --mean"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "is a MATLAB file, not a mean image"),
        (b"PK\x03\x04" + bytes(60), "is a zip archive, not a mean image"),
    ):
        path.write_bytes(content)
        with pytest.raises(CaffemodelError, match=kind):
            read_mean(path)
    path.write_bytes(schema.message("BlobProto")(num=2, channels=1, height=1, width=1, data=[1, 2]).SerializeToString())
    with pytest.raises(CaffemodelError, match="a mean image has"):
        read_mean(path)
    write(path, small_net())
    with pytest.raises(CaffemodelError):
        read_mean(path)


# Cost ---------------------------------------------------------------------------------------------------------------


def test_reading_copies_nothing(tmp_path: Path) -> None:
    """An open file of 40 MB uses less than 1 MB until its numbers are read."""
    import tracemalloc

    path = tmp_path / "w.caffemodel"
    arrays = [np.ones((512, 512, 3, 3), np.float32), np.ones(512, np.float32)]
    write_caffemodel(path, "big", [(f"conv{index}", "Convolution", arrays) for index in range(4)])
    read_caffemodel(path)
    tracemalloc.start()
    file: WeightFile = read_caffemodel(path)
    total = sum(float(blob.array[..., -1].sum()) for layer in file for blob in layer.blobs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total > 0
    assert peak < 1 << 20


def test_sha256_is_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "w.caffemodel", small_net())
    assert read_caffemodel(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
