"""`atrous export`."""

from __future__ import annotations

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
    models = json.loads(capsys.readouterr().out)["models"]
    assert [model["name"] for model in models] == ["m-prepare", "m-network", "m-finish", "m"]
    for model in models:
        assert all((tmp_path / "repo" / model["name"] / file).is_file() for file in model["files"])
    finish = (tmp_path / "repo/m-finish/config.pbtxt").read_text()
    assert 'key: "crf"\n  value {\n    string_value: "off"' in finish
    assert "count: 2" in finish
    assert "max_queue_size: 9" in finish
    assert main([*line, "--name", "n"]) == 0
    assert capsys.readouterr().out.count(str(tmp_path / "repo" / "n")) == 3


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
