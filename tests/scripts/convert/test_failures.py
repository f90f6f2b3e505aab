"""Failures of `atrous convert`: one clear line and exit 2."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.converter.files.prototxt import read_prototxt
from atrous.converter.files.writer import write_caffemodel

from ...converter.nets import DEEPLAB, conv, data
from ...converter.test_read import write_net
from .results import MEAN, assert_one_line


def test_truncated_caffemodel(run: Any) -> None:
    content = Path("net.caffemodel").read_bytes()
    Path("net.caffemodel").write_bytes(content[: len(content) // 2])
    assert_one_line(
        run(*MEAN), "net.caffemodel", "is incomplete", f"the file has {len(content) // 2}", "Fetch it again"
    )


def test_lfs_pointer(run: Any) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 82000000\n"
    Path("net.caffemodel").write_text(pointer)
    assert_one_line(run(*MEAN), "net.caffemodel", "Git LFS pointer", "git lfs pull")
    Path("net.prototxt").write_text(pointer)
    assert_one_line(run(*MEAN), "Git LFS pointer", "git lfs pull")


def test_unknown_field(run: Any) -> None:
    text = Path("net.prototxt").read_text().replace("kernel_size: 3 pad: 2", "kernel_syze: 3 pad: 2")
    Path("net.prototxt").write_text(text)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if "kernel_syze" in row)
    assert_one_line(run(*MEAN), f"net.prototxt:{line}", '"kernel_syze"', '"kernel_size"')


def test_weights_of_another_net(run: Any, workplace: Path) -> None:
    (workplace / "other").mkdir()
    write_net(workplace / "other", re.sub(r"conv(\d)", r"conv_\1", DEEPLAB))
    assert_one_line(
        run(*MEAN, weights="other/net.caffemodel"),
        "net.caffemodel does not hold the weights of this net",
        '"conv1": the file has no blobs of this name; it has "conv_1"',
        "give the prototxt these weights were trained with",
    )


@pytest.mark.parametrize("out", ["file/b", "file/deeper/b"])
def test_output_folder_that_cannot_be_written(run: Any, out: str) -> None:
    Path("file").write_text("")
    assert_one_line(run(*MEAN, out=out), f"{out}: cannot be written", "choose a folder you may write")


def test_nan_weights_are_named_before_anything_is_written(run: Any, workplace: Path) -> None:
    _, caffemodel, weights = write_net(workplace)
    weights["conv2"][0][:1] = np.nan
    write_caffemodel(caffemodel, read_prototxt(DEEPLAB), weights, format="V1")
    before = os.listdir()
    assert_one_line(run(*MEAN), "NaN or infinite weights", '"conv2": blob 0')
    assert os.listdir() == before


def test_unsupported_layers_are_listed_with_their_lines(run: Any) -> None:
    with open("net.prototxt", "a") as file:
        file.write('layers { name: "odd" type: BIAS_CHANNEL bottom: "fc8_interp" top: "z" }\n')
    code, _, err = run(*MEAN)
    assert code == 2
    assert '"odd"' in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--mean", "1,2"), "needs 1 or 3 or 4 numbers, 2 were given"),
        (("--mean", "blue"), '"blue" is not 1 or 3 or 4 numbers'),
        (("--mean", "nan,1,1"), "is not finite"),
        (("--scale", "inf"), "is not finite"),
        (("--minimum-size", "0,9"), "is not a height and a width"),
        (("--minimum-size", "9.5,9"), "is not a height and a width"),
        (("--fixed", "8x9x9"), "needs 2 numbers"),
        (("--fixed", "40x40"), "the net pads 40x40 images to 41x41: give that as the fixed size"),
        (("--batch", "2"), "--batch needs --fixed"),
        (("--opset", "12"), "12"),
        (("--classes", "nowhere.txt"), "is not a file, and not one of voc, cityscapes, camvid"),
        (("--classes", "voc", *MEAN), "21 class names were given, the net scores 5 classes"),
        (("--classes", "net.caffemodel"), "cannot be read as text"),
        (("--crf-mode", "deeplab"), "--crf-mode alone defines no CRF"),
        (("--crf-iterations", "5"), "--crf-iterations alone defines no CRF"),
        (("--crf-gaussian", "-3,3"), "CRF parameters: gaussian.0.sxy"),
        (("--crf-bilateral", "3,3"), "needs 3 numbers"),
        (("--dialect", "deeplab"), "choose one of: bvlc"),
        (("--set", "X"), '"X" is not NAME=VALUE'),
        (("--input", "data=1,3,a,b"), "is not a shape"),
        (("--input", "image=1,3,9,9"), "the net has no input image; its inputs are: data"),
        (("--input", "data=1,4,41,41"), "blob 0 has shape (6, 3, 3, 3) in the file, (6, 4, 3, 3) in the net"),
        (("--input", "data=1,3,0,41"), "impossible shape"),
        (("--info", "nowhere.json"), "nowhere.json: cannot be read: No such file"),
        (("--info", "net.prototxt"), "net.prototxt: Invalid JSON"),
    ],
)
def test_bad_options(run: Any, arguments: tuple[str, ...], words: str) -> None:
    assert_one_line(run(*arguments), words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "Input should be an object"),
        ({"mean": [1, "2"]}, "info.json: mean"),
        ({"mean": "104"}, "info.json: mean"),
        ({"scale": True}, "info.json: scale"),
        ({"classes": "voc"}, "info.json: classes"),
        ({"palette": [[0, 0, 256]]}, "info.json: palette.0.2"),
        ({"classes": ["a"] * 5, "palette": [[0, 0, 0]] * 4}, "info.json: 4 colors for 5 classes"),
        ({"minimum_size": [0, 1]}, "info.json: minimum_size.0"),
        ({"crf": {"mode": "potts"}}, "CRF parameters: mode"),
        ({"crf": [1]}, "info.json: crf"),
    ],
)
def test_bad_info_files(run: Any, content: Any, words: str) -> None:
    Path("info.json").write_text(json.dumps(content))
    assert_one_line(run("--info", "info.json", *MEAN), words)


@pytest.mark.parametrize(
    ("net", "weights"), [("no.prototxt", "net.caffemodel"), ("net.prototxt", "no.caffemodel"), (".", "net.caffemodel")]
)
def test_files_that_are_not_there(run: Any, net: str, weights: str) -> None:
    assert_one_line(run(*MEAN, net=net, weights=weights))


def test_errors_as_json(run: Any) -> None:
    Path("net.caffemodel").write_text("version https://git-lfs.github.com/spec/v1\n")
    code, out, _ = run("--json", *MEAN)
    error = json.loads(out)["error"]
    assert code == error["exit_code"] == 2
    assert error["type"] == "CaffemodelError"


def test_head_that_the_net_does_not_have(run: Any, workplace: Path) -> None:
    for path in workplace.iterdir():
        path.unlink()
    write_net(workplace, data(1, 3, 9, 9) + conv("c", "data", "y", 4), version="V2")
    assert_one_line(run("--head", "lowres", *MEAN), "it has no lowres head; use scores")
