"""`atrous convert`: what it writes and what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous import runtime
from atrous.bundle.palettes import VOC_CLASSES
from atrous.converter.files.blob import encode_blob
from atrous.converter.files.caffemodel import read_caffemodel
from atrous.converter.files.prototxt import read_prototxt
from atrous.converter.files.writer import write_caffemodel
from atrous.scripts.main import main

from ...converter.nets import CLASSES, DEEPLAB, conv, data, layer
from ...converter.test_read import write_net
from ...processes import child_env
from ..running import run_atrous
from .results import MEAN, assert_one_line, manifest

# ---- what it writes


def test_size_the_net_was_made_for(run: Any) -> None:
    code, out, _ = run(*MEAN, "--size", "64x96")
    assert code == 0
    assert "made for 64x96 pixels (height x width): images are resized to it by default" in out
    preprocessing = json.loads(Path("b/manifest.json").read_text())["preprocessing"]
    assert preprocessing["made_for"] == {"size": [64, 96], "source": "option", "resize": True}
    for name, key, resize in (("c", "minimum_size", False), ("d", "size", True)):
        Path("info.json").write_text(json.dumps({key: [57, 65]}))
        assert run(*MEAN, "--info", "info.json", out=name)[0] == 0
        preprocessing = json.loads(Path(name, "manifest.json").read_text())["preprocessing"]
        assert preprocessing["made_for"] == {"size": [57, 65], "source": "info", "resize": resize}


def test_one_size_and_batch(run: Any) -> None:
    code, out, _ = run(*MEAN, "--fixed", "41x49", "--batch", "2")
    assert code == 0
    assert "takes 41x49 pixels (height x width) only: images are resized to it" in out
    manifest = json.loads(Path("b/manifest.json").read_text())
    assert manifest["preprocessing"]["size_rule"] == {"fixed": [41, 49]}
    assert manifest["graphs"]["deploy.onnx"]["inputs"]["image"]["shape"] == [2, 41, 49, 3]


def test_bundle_is_written_and_works(run: Any) -> None:
    code, out, err = run(*MEAN)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("model.onnx equals torch on 1x3x97x129: 14 blobs, largest error ")
    assert lines[1].startswith("model.onnx equals torch on 2x3x64x96: 14 blobs")
    assert lines[2] == "made for 41x49 pixels (height x width): images run at their own size by default"
    assert lines[3].startswith("b: mini-deeplab, 4 files, ")
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    with runtime.load("b", threads=1) as segmenter:
        assert segmenter(image).shape == (30, 40)


def test_sources_are_recorded(run: Any) -> None:
    run(*MEAN)
    assert [(s.role, s.file, s.format, s.dialect) for s in manifest().sources] == [
        ("prototxt", "net.prototxt", "V1", "deeplab_v1"),
        ("caffemodel", "net.caffemodel", "V1", "deeplab_v1"),
    ]
    runtime.read_bundle("b").verify_files()


def test_guessed_mean_is_a_warning_on_stderr_and_in_the_manifest(run: Any) -> None:
    code, _, err = run()
    assert code == 0
    assert err.startswith("warning: the file does not say the mean of its training images")
    assert any("does not say the mean" in warning for warning in manifest().warnings)
    code, _, err = run("--force", "--minimum-size", "57,65")
    assert (code, "does not say the mean" in err) == (0, True)


def test_json(run: Any) -> None:
    code, out, _ = run("--json", *MEAN)
    found = json.loads(out)
    assert code == 0
    assert (found["command"], found["bundle"]) == ("convert", "b")
    assert found["manifest"] == json.loads(Path("b/manifest.json").read_text())
    assert found["seconds"] > 0


def test_options_reach_the_bundle(run: Any) -> None:
    code, _, err = run(
        *("--name", "mine", "--mean", "1,2,3", "--scale", "0.5", "--color-order", "RGB", "--minimum-size", "57,65"),
        *("--head", "lowres", "--opset", "21", "--no-verify"),
        *("--crf-mode", "pydensecrf", "--crf-gaussian", "3,2.5", "--crf-bilateral", "50,10,4", "--crf-iterations", "7"),
    )
    assert (code, err) == (0, "")
    found = manifest()
    assert found.name == "mine"
    assert found.preprocessing is not None
    assert found.preprocessing.mean == (1, 2, 3)
    assert (found.preprocessing.scale, found.preprocessing.color_order) == (0.5, "RGB")
    assert found.preprocessing.size_rule.minimum == (57, 65)
    assert found.deploy is not None
    assert (found.deploy.head, found.verification) == ("lowres", ())
    assert found.crf is not None
    assert (found.crf.mode, found.crf.iterations) == ("pydensecrf", 7)
    assert [(t.sxy, t.weight) for t in found.crf.gaussian] == [(3, 2.5)]
    assert [(t.sxy, t.srgb, t.weight) for t in found.crf.bilateral] == [(50, 10, 4)]
    onnx = pytest.importorskip("onnx")
    assert onnx.load("b/model.onnx").opset_import[0].version == 21


def write_mean(path: str, image: np.ndarray[Any, Any]) -> None:
    """A mean image as Caffe's compute_image_mean writes it."""
    before, after = encode_blob((1, *image.shape), legacy=True, data_bytes=4 * image.size)
    Path(path).write_bytes(before + image.astype("<f4").tobytes() + after)


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_image_of_one_pixel(run: Any, channels: int) -> None:
    write_mean("mean.binaryproto", np.full((channels, 4, 5), np.reshape([104, 117, 123][:channels], (-1, 1, 1))))
    code, _, err = run("--mean", "mean.binaryproto")
    assert (code, err) == (0, "")
    found = manifest()
    assert found.preprocessing.mean == ((104, 117, 123) if channels == 3 else (104, 104, 104))
    assert [source.role for source in found.sources] == ["prototxt", "caffemodel", "mean"]
    assert found.sources[2].file == "mean.binaryproto"
    assert runtime.load("b", backend="onnxruntime")(np.zeros((20, 30, 3), np.uint8)).shape == (20, 30)


def test_mean_image_becomes_its_mean_pixel_with_a_warning(run: Any) -> None:
    image = np.zeros((3, 2, 2))
    image[1] = [[10, 20], [30, 40]]
    write_mean("mean.binaryproto", image)
    code, _, err = run("--mean", "mean.binaryproto")
    assert (code, manifest().preprocessing.mean) == (0, (0, 25, 0))
    assert "differ by up to 30 gray levels" in err
    assert any("mean pixel 0, 25, 0 is subtracted" in warning for warning in manifest().warnings)


@pytest.mark.parametrize("shape", [(3,), (3, 2, 2), (1, 3, 2, 2), (2, 5, 3)])
def test_mean_of_numpy(run: Any, shape: tuple[int, ...]) -> None:
    """pycaffe's scripts load `ilsvrc_2012_mean.npy`."""
    axes = [-1 if size == 3 else 1 for size in shape]
    np.save("mean.npy", np.broadcast_to(np.reshape([104.0, 117.0, 123.0], axes), shape))
    code, _, err = run("--mean", "mean.npy")
    assert (code, err) == (0, "")
    assert manifest().preprocessing.mean == (104, 117, 123)
    assert (manifest().sources[2].format, manifest().sources[2].file) == ("npy", "mean.npy")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 4)), "of shape (2, 4)"),
        (np.zeros((4, 5, 6)), "4 channels"),
        (np.array(["a"]), "<U1"),
        (np.array([1, None]), "damaged NumPy array"),
    ],
)
def test_numpy_files_that_are_no_mean(run: Any, array: Any, words: str) -> None:
    np.save("mean.npy", array)
    assert_one_line(run("--mean", "mean.npy"), words)


def test_mean_images_that_are_none(run: Any, workplace: Path) -> None:
    assert_one_line(run("--mean", "none.binaryproto"), "none.binaryproto does not exist")
    assert_one_line(run("--mean", "net.prototxt"), "is text: a prototxt? Give the mean image")
    assert_one_line(run("--mean", "net.caffemodel.binaryproto"), "does not exist")
    Path("wrong.binaryproto").write_bytes(Path("net.caffemodel").read_bytes())
    assert_one_line(run("--mean", "wrong.binaryproto"), "wrong.binaryproto")
    write_mean("two.binaryproto", np.zeros((2, 4, 5)))
    assert_one_line(run("--mean", "two.binaryproto"), "2 channels", "--mean B,G,R")
    write_mean("nan.binaryproto", np.full((3, 4, 5), np.nan))
    assert_one_line(run("--mean", "nan.binaryproto"), "not finite")


def test_templates_sizes_and_stages(run: Any, workplace: Path) -> None:
    text = 'input: "data"\n' + conv("c_${EXP}", "data", "y", 5).replace("num_output: 5", "num_output: ${LABELS}")
    text += layer("ReLU", "r", "y", "z", 'include { stage: "deploy" }')
    prototxt, caffemodel = workplace / "t.prototxt", workplace / "t.caffemodel"
    prototxt.write_text(text)
    saved = read_prototxt(text, variables={"EXP": "voc", "LABELS": "4"})
    blobs = [np.ones((4, 3, 1, 1), np.float32), np.zeros(4, np.float32)]
    write_caffemodel(caffemodel, saved, {"c_voc": blobs})
    options = ("--set", "EXP=voc", "--set", "LABELS=4", "--input", "data=1,3,16,24", "--stage", "deploy")
    code, _, err = run(*options, *MEAN, net="t.prototxt", weights="t.caffemodel")
    assert (code, err) == (0, "")
    assert len(manifest().classes) == 4
    assert [blob.name for blob in manifest().outputs] == ["z"]


def test_caffemodel_alone(capsys: pytest.CaptureFixture[str], workplace: Path) -> None:
    code = main(["convert", "net.caffemodel", "-o", "b", *MEAN])
    assert code == 0, capsys.readouterr().err
    assert [source.role for source in manifest().sources] == ["caffemodel"]


def test_hdf5_weights(run: Any, workplace: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(workplace / "net.caffemodel.h5", "w") as file:
        for entry in read_caffemodel(workplace / "net.caffemodel"):
            for index, blob in enumerate(entry.blobs):
                file[f"data/{entry.name}/{index}"] = blob.array
    code, _, err = run(*MEAN, weights="net.caffemodel.h5")
    assert (code, err) == (0, "")
    assert manifest().sources[1].format == "HDF5"


# ---- classes and colors


def test_classes_without_names_are_numbered_in_distinct_colors(run: Any) -> None:
    run(*MEAN)
    assert manifest().classes == tuple(f"class {index}" for index in range(CLASSES))
    assert len(set(manifest().palette)) == CLASSES


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
def test_classes_of_a_file(run: Any, codec: str) -> None:
    Path("names.txt").write_bytes("sky\r\nground\n\n  water  \ntree\nhouse\n".encode(codec))
    run("--classes", "names.txt", *MEAN)
    assert manifest().classes == ("sky", "ground", "water", "tree", "house")
    assert len(set(manifest().palette)) == CLASSES


def test_classes_of_a_data_set(run: Any, workplace: Path) -> None:
    for path in workplace.iterdir():
        path.unlink()
    write_net(workplace, DEEPLAB.replace("num_output: 5", "num_output: 21"))
    code, _, err = run("--classes", "voc", *MEAN)
    assert (code, err) == (0, "")
    assert manifest().classes == VOC_CLASSES
    assert manifest().palette[15] == (192, 128, 128)


def test_info_file_and_options_before_it(run: Any) -> None:
    info = {
        "name": "from info",
        "classes": ["a", "b", "c", "d", "e"],
        "palette": [[index, 0, 0] for index in range(5)],
        "mean": [1, 2, 3],
        "scale": 2,
        "minimum_size": [41, 41],
        "crf": {"mode": "deeplab", "iterations": 5, "gaussian": [{"sxy": 3, "weight": 3}], "bilateral": []},
        "license": "left to others",
    }
    Path("info.json").write_text(json.dumps(info))
    code, _, err = run("--info", "info.json", "--mean", "7,8,9", "--crf-iterations", "6")
    assert (code, err) == (0, "")
    found = manifest()
    assert (found.name, found.classes, found.palette[4]) == ("from info", tuple("abcde"), (4, 0, 0))
    assert found.preprocessing is not None
    assert (found.preprocessing.mean, found.preprocessing.scale) == ((7, 8, 9), 2)
    assert found.crf is not None
    assert (found.crf.iterations, [term.weight for term in found.crf.gaussian]) == (6, [3])


# ---- an existing target


def test_existing_bundle_needs_force(run: Any, workplace: Path) -> None:
    assert run(*MEAN)[0] == 0
    code, _, err = run(*MEAN)
    assert (code, err.count("\n")) == (2, 1)
    assert "a bundle is there already; give --force" in err
    assert run("--force", "--name", "second", *MEAN)[0] == 0
    assert manifest().name == "second"
    assert sorted(path.name for path in workplace.iterdir()) == ["b", "net.caffemodel", "net.prototxt"]


def test_other_folders_are_never_replaced(run: Any) -> None:
    Path("photos").mkdir()
    Path("photos/one.png").write_bytes(b"a photo")
    assert_one_line(run("--force", *MEAN, out="photos"), "photos: exists and is not a bundle")
    assert Path("photos/one.png").read_bytes() == b"a photo"


def test_net_without_scores_is_deployed_for_another_task(run: Any, workplace: Path) -> None:
    for path in workplace.iterdir():
        path.unlink()
    ip = layer("InnerProduct", "ip", "data", "y", "inner_product_param { num_output: 4 }")
    write_net(workplace, data(1, 3, 6, 6) + ip, version="V2")
    code, out, err = run()
    assert code == 0
    assert "using that of ImageNet" in err
    assert "task: regress, by atrous run; outputs: y (values)" in out
    assert (manifest().deploy, manifest().task) == (None, "regress")
    assert run("--task", "points", "--points", "xxyy", "--force", *MEAN)[0] == 0
    assert manifest().task == "points"
    code, _, err = run("--task", "colorize", "--force", *MEAN)
    assert (code, err.count("\n")) == (2, 1)
    assert "no output of the net suits the task" in err


def test_command_line_as_a_user_types_it(workplace: Path) -> None:
    found = run_atrous("convert", "net.prototxt", "net.caffemodel", "-o", "b", "--no-verify", *MEAN, folder=workplace)
    assert (found.code, found.stderr) == (0, "")
    assert (workplace / "b" / "manifest.json").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")
def test_kill_9_in_the_middle(run: Any, workplace: Path) -> None:
    """The old bundle stays byte for byte, and the next run leaves nothing but the new one."""
    assert run("--no-verify", *MEAN)[0] == 0
    before = {path.name: path.read_bytes() for path in Path("b").iterdir()}
    entries = set(os.listdir())
    line = [sys.executable, "-m", "atrous.scripts.main", "convert", "net.prototxt", "net.caffemodel", "-o", "b"]
    process = subprocess.Popen([*line, "--force", *MEAN], env=child_env())
    while not list(workplace.glob(".b.*/model.onnx")) and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert {path.name: path.read_bytes() for path in Path("b").iterdir()} == before
    assert len(os.listdir()) == len(entries) + 1
    assert run("--no-verify", "--force", "--name", "new", *MEAN)[0] == 0
    assert set(os.listdir()) == entries
    assert manifest().name == "new"
