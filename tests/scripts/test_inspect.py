"""`atrous inspect`: what a net is made of, what becomes an input or is dropped, and what cannot be converted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atrous.scripts.main import main

from ..converter.graph.test_definition import TRAIN_VAL
from ..converter.nets import DEEPLAB, conv, data, layer, relu
from ..converter.test_read import write_net
from .running import run_atrous, run_with


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `atrous inspect net.prototxt ...` on a text in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run_inspect(text: str, *arguments: str) -> tuple[int, str, str]:
        Path("net.prototxt").write_text(text)
        return run_with(capsys, "inspect", "net.prototxt", *arguments)

    return run_inspect


def test_table(run: Any) -> None:
    code, out, err = run(DEEPLAB)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("mini-deeplab: dialect deeplab_v1 (ConvolutionParameter.hole (line ")
    assert lines[1].split() == ["line", "layer", "type", "shape", "parameters", "multiply-adds", "field", "stride"]
    row = next(line.split() for line in lines if " fc6 " in f" {line} ")
    assert row[1:5] == ["fc6", "Convolution", "1x8x6x7", "584"]
    assert "layers: 14, parameters: 1,821, multiply-adds: " in out
    assert "input   data  1x3x41x49  declared input" in out
    assert "output  fc8_interp  1x5x41x49" in out


def test_json_has_it_all(run: Any) -> None:
    code, out, _ = run(TRAIN_VAL, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["inputs"] == [
        {"name": "data", "type": "ImageSegData", "layer": "source", "line": 2, "shape": [1, 3, 49, 49]}
    ]
    assert found["outputs"] == [{"name": "fc8", "shape": [1, 5, 49, 49]}]
    assert [row["name"] for row in found["layers"]] == ["fc8"]
    assert found["parameters"] == 20
    assert found["multiply_adds"] == 49 * 49 * 5 * 3
    assert {row["name"] for row in found["dropped"]} >= {"label_shrink", "loss", "accuracy", "silence", "fc8_mat"}
    assert all(row["reason"] for row in found["dropped"])
    assert found["unsupported"] == []
    assert (found["weights_problem"], found["weights_problems"]) == (None, [])


def test_what_is_dropped_is_said_with_the_reason(run: Any) -> None:
    _, out, _ = run(TRAIN_VAL)
    assert "input   data  1x3x49x49  top of the ImageSegData layer (line 2)" in out
    assert 'dropped "accuracy" SegAccuracy (line 6): measures against labels' in out
    assert 'dropped "label_shrink" Interp (line 4): prepares labels' in out


def test_every_unsupported_layer_at_once(run: Any) -> None:
    text = data(1, 3, 9, 9) + conv("c", "data", "x", 4) + layer("Mystery", "m", "x", "y") + relu("after", "y", "z")
    text += layer("Python", "p", "x", "q", 'python_param { module: "my.layers" layer: "Roi" }')
    code, out, _ = run(text)
    assert code == 1
    assert 'UNSUPPORTED "m" Mystery (line 3): unknown type' in out
    assert 'UNSUPPORTED "p" Python (line 5): arbitrary code (my.layers.Roi)' in out
    assert 'dropped "after" ReLU (line 4): reads the output of a layer without a conversion' in out
    found = json.loads(run(text, "--json")[1])
    assert [row["line"] for row in found["unsupported"]] == [3, 5]
    assert [row["name"] for row in found["layers"]] == ["c"]


def test_weights_that_fit(run: Any, tmp_path: Path) -> None:
    write_net(tmp_path)
    code, out, err = run(DEEPLAB, "net.caffemodel")
    assert (code, err) == (0, "")
    assert "WEIGHTS" not in out


def test_every_layer_that_weights_do_not_fit(run: Any, tmp_path: Path) -> None:
    write_net(tmp_path)
    code, out, err = run(DEEPLAB.replace("num_output: 8", "num_output: 9"), "net.caffemodel")
    assert code == 1
    assert 'WEIGHTS "conv2": blob 0 has shape (8, 6, 3, 3) in the file, (9, 6, 3, 3) in the net' in out
    assert out.count('WEIGHTS "') == 4
    assert err.count("\n") == 1
    assert "net.caffemodel does not hold the weights of this net: 4 layer(s) disagree" in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("layer { nam: 'x' }", "net.prototxt:1"),
        (
            data(1, 3, 9, 9) + relu("r", "dat", "y"),
            'reads blob "dat", which no layer before it writes; did you mean "data"?',
        ),
        ('input: "data"\n' + relu("r", "data", "y"), "--input data=1,3,321,321"),
        ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("", "is empty"),
    ],
)
def test_bad_input_is_one_line(run: Any, text: str, words: str) -> None:
    code, out, err = run(text)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_binary_in_the_place_of_the_prototxt(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_net(tmp_path)
    assert main(["inspect", str(tmp_path / "nowhere.prototxt")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_command_line_as_a_user_types_it(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(DEEPLAB)
    found = run_atrous("inspect", "net.prototxt", "--json", folder=tmp_path)
    assert (found.code, found.stderr) == (0, "")
    assert found.json["dialect"] == "deeplab_v1"
