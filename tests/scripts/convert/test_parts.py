"""`atrous convert --until, --outputs, --rename, -o NAME.onnx`: the part of a net that is converted, and its names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from atrous.bundle.manifest import parse_manifest
from atrous.converter import read_net, read_prototxt, run_blobs, to_torch, verify_bundle, write_caffemodel
from atrous.scripts.main import main

from ...converter.nets import conv, data, layer, random_weights, relu

TEXT = (
    data(1, 3, 16, 20)
    + conv("first", "data", "a", 4, 3, "pad: 1")
    + relu("relu", "a")
    + conv("second", "a", "b", 5)
    + conv("side", "a", "c", 2)
    + layer("Softmax", "prob", "b", "p")
)
TAIL = layer("Python", "decode", ["b", "c"], "boxes", "python_param { module: 'my.code' layer: 'Decode' }")


@pytest.fixture
def convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)
    write_caffemodel("net.caffemodel", read_prototxt(TEXT), random_weights(read_net(TEXT)))

    def run(*arguments: str, text: str = TEXT, out: str = "b") -> tuple[int, str]:
        Path("net.prototxt").write_text(text)
        code = main(["convert", "net.prototxt", "net.caffemodel", "-o", out, "--mean", "0,0,0", *arguments])
        return code, capsys.readouterr().err

    return run


def ends(path: str = "b/model.onnx") -> tuple[list[str], list[str]]:
    graph = onnx.load(path).graph
    return [value.name for value in graph.input], [value.name for value in graph.output]


def test_until_a_layer(convert: Any) -> None:
    assert convert("--until", "second") == (0, "")
    assert ends() == (["data"], ["b"])
    assert [blob.name for blob in parse_manifest(Path("b/manifest.json").read_bytes()).outputs] == ["b"]
    assert "self.side" not in Path("b/model.py").read_text()


def test_chosen_outputs_in_their_order(convert: Any) -> None:
    assert convert("--outputs", "c, a")[0] == 0
    assert ends() == (["data"], ["c", "a"])


def test_until_and_outputs_together(convert: Any) -> None:
    assert convert("--until", "prob", "--outputs", "c")[0] == 0
    assert ends() == (["data"], ["p", "c"])


@pytest.mark.parametrize("options", [("--until", "second"), ("--outputs", "b,c")])
def test_a_tail_without_a_conversion_is_cut_off(convert: Any, options: tuple[str, ...]) -> None:
    assert convert(*options, text=TEXT + TAIL)[0] == 0
    assert set(ends()[1]) <= {"b", "c"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--until", "secnd"), 'there is no layer "secnd"; did you mean "second"?'),
        (("--outputs", "bb"), 'no layer writes the blob "bb"'),
        (("--outputs", "boxes"), 'layer "decode" (Python) arbitrary code (my.code.Decode)'),
        (("--until", "decode"), 'layer "decode" (Python) arbitrary code'),
        (("--rename", "a=x"), '"a" is neither an input nor an output; these are c, data, p'),
        (("--rename", "p=data"), '"p" cannot become "data": the name is taken'),
        (("--rename", "p=first/x", "--rename", "c=first/x"), "the name is taken"),
        (("--rename", "p"), "is not NAME=VALUE"),
    ],
)
def test_names_that_do_not_fit(convert: Any, options: tuple[str, ...], words: str) -> None:
    code, err = convert(*options, text=TEXT + (TAIL if "boxes" in options or "decode" in options else ""))
    assert code == 2
    assert words in err
    assert not Path("b").exists()


def test_renamed_inputs_and_outputs(convert: Any) -> None:
    assert convert("--rename", "data=input", "--rename", "p=scores", "--rename", "c=p")[0] == 0
    inputs, outputs = ends()
    assert (inputs, sorted(outputs)) == (["input"], ["p", "scores"])
    manifest = parse_manifest(Path("b/manifest.json").read_bytes())
    assert [blob.name for blob in manifest.inputs] == ["input"]
    assert sorted(blob.name for blob in manifest.outputs) == ["p", "scores"]
    assert all(report.passed for report in verify_bundle(Path("b")))
    x = np.random.default_rng(0).normal(size=(1, 3, 16, 20)).astype(np.float32)
    session = onnxruntime.InferenceSession("b/model.onnx", providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], {"input": x})
    wanted = run_blobs(to_torch(read_net(TEXT, "net.caffemodel")), {"data": x})["prob:p"]
    np.testing.assert_allclose(scores, wanted, atol=1e-5)


def test_one_onnx_file(convert: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert("--until", "second", "--opset", "19", out="net.onnx") == (0, "")
    assert sorted(path.name for path in Path().iterdir()) == ["net.caffemodel", "net.onnx", "net.prototxt"]
    model = onnx.load("net.onnx")
    assert model.opset_import[0].version == 19
    assert ends("net.onnx") == (["data"], ["b"])
    code, err = convert(out="net.onnx")
    assert (code, "--force" in err) == (2, True)
    assert convert("--force", out="net.onnx")[0] == 0
    assert sorted(ends("net.onnx")[1]) == ["c", "p"]


def test_one_onnx_file_in_json(convert: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.prototxt").write_text(TEXT)
    assert main(["convert", "net.prototxt", "net.caffemodel", "-o", "net.onnx", "--mean", "0,0,0", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["bundle"], report["manifest"]["outputs"][0]["name"]) == ("net.onnx", "c")


def test_a_net_without_an_onnx_form_writes_no_file(convert: Any) -> None:
    text = data(1, 3, 8, 8) + data(1, 1, 8, 8, name="edges") + data(1, 1, 1, 2, name="dim")
    text += layer("DomainTransform", "d", ["data", "edges", "dim"], "y")
    code, err = convert(text=text, out="net.onnx")
    assert code == 2
    assert 'no model.onnx: layer "d": DomainTransform' in err
    assert not Path("net.onnx").exists()
