"""`atrous export`."""

from __future__ import annotations

import configparser
import json
from pathlib import Path

import pytest

from atrous.scripts.main import main

from ..runtime import bundles


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundles.write_bundle(tmp_path / "bundle", crf=bundles.CRF)


def test_triton(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["export", "triton", str(bundle), "-o", str(tmp_path / "repo")]
    options = ["--name", "m", "--no-crf", "--max-side", "200", "--instances", "2", "--delay-us", "0", "--queue", "9"]
    assert main([*line, *options, "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert {file.partition("/")[0] for file in files} == {"m-prepare", "m-network", "m-finish", "m"}
    assert all((tmp_path / "repo" / file).is_file() for file in files)
    finish = (tmp_path / "repo/m-finish/config.pbtxt").read_text()
    assert 'key: "crf"\n  value {\n    string_value: "off"' in finish
    assert "count: 2" in finish
    assert "max_queue_size: 9" in finish
    assert main([*line, "--name", "n"]) == 0
    assert f"{tmp_path / 'repo' / 'n' / 'labels.txt'}\n" in capsys.readouterr().out


def test_errors_are_those_of_export(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["export", "triton", str(bundle), "-o", str(tmp_path / "repo"), "--json"]
    assert main([*line, "--network", "tensorrt"]) == 2
    printed = json.loads(capsys.readouterr().out)
    assert printed["command"] == "export"
    assert "atrous build" in printed["error"]["message"]
    assert main([*line, "--native", "--max-side", "9"]) == 2
    assert json.loads(capsys.readouterr().out)["command"] == "export"


def test_settings_of_its_own(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.ini").write_text("[atrous]\nthreads = 3\n[export-triton]\ninstances = 5\n")
    monkeypatch.setenv("ATROUS_CONFIG", str(tmp_path / "config.ini"))
    assert main(["export", "triton", str(bundle), "-o", str(tmp_path / "repo"), "--name", "m"]) == 0
    config = (tmp_path / "repo/m-finish/config.pbtxt").read_text()
    assert "count: 5" in config
    assert 'key: "threads"\n  value {\n    string_value: "3"' in config


def test_deepstream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = bundles.write_bundle(tmp_path / "bundle", contents={"model.onnx": bundles.make_model()})
    line = ["export", "deepstream", str(source), "-o", str(tmp_path / "out")]
    assert main(line) == 2
    assert "give one with --size" in capsys.readouterr().err
    assert main([*line, "--size", "30x41"]) == 2
    assert "give --size 33x41" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*line, "--size", "33x41", "--batch", "4"]) == 0
    settings = configparser.ConfigParser()
    settings.read(tmp_path / "out" / "nvinfer.txt")
    found = settings["property"]
    assert (found["infer-dims"], found["batch-size"], found["model-color-format"]) == ("3;33;41", "4", "1")
    assert tuple(map(float, found["offsets"].split(";"))) == bundles.MEAN
    assert (tmp_path / "out" / found["onnx-file"]).read_bytes() == bundles.make_model()
    assert (tmp_path / "out" / found["labelfile-path"]).read_text().split(";") == bundles.CLASSES
    assert main([*line, "--size", "33x41"]) == 2
    assert "--force" in capsys.readouterr().err


def test_openvino(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["export", "openvino", str(bundle), "-o", str(tmp_path / "out")]
    assert main([*line, "--name", "a"]) == 0
    assert main([*line, "--name", "b", "--json"]) == 0
    assert main([*line, "--name", "b"]) == 2
    assert "--force" in capsys.readouterr().err
    listed = json.loads((tmp_path / "out" / "config.json").read_text())["model_config_list"]
    assert [entry["config"]["base_path"] for entry in listed] == ["/models/a", "/models/b"]
    assert (tmp_path / "out" / "a" / "1" / "model.onnx").read_bytes() == bundles.make_model()
    (tmp_path / "out" / "config.json").write_text("[]")
    assert main([*line, "--name", "c"]) == 2
    assert not (tmp_path / "out" / "c").exists()
