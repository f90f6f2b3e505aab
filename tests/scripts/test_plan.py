"""`atrous plan`: text, JSON, result files of `bench`, wrong usage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from atrous.scripts.main import main

from ..runtime.bundles import CRF, make_image, write_bundle


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a bundle `b` and images in `photos`."""
    write_bundle(tmp_path / "b", crf=CRF)
    (tmp_path / "photos").mkdir()
    for number in range(4):
        Image.fromarray(make_image(20, 30, number)).save(tmp_path / f"photos/{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("workplace")
def test_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "b", "--images", "1e6", "--sample", "photos", "--nodes", "8", "--cores", "4"]) == 0
    text = capsys.readouterr().out
    assert "1000000 images" in text
    assert "bottleneck" in text
    arguments = ["--images", "1e6", "--size", "33x33", "--measured", "4", "--gpus", "1", "--gpu-ms", "2", "--json"]
    assert main(["plan", "b", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["nodes"]["gpus"]) == (1_000_000, 1)
    assert found["plan"]["hours"] > 0
    assert 0 < found["plan"]["gpu_share"] <= 1.2


@pytest.mark.usefixtures("workplace")
def test_a_result_of_bench(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--images", "photos", "--duration", "0", "--min-samples", "4", "--warmup", "0", "--quick"]
    code = main(["bench", "run", "b", *arguments, "--pipeline-rounds", "2", "-o", "result.json"])
    if code != 0:
        pytest.fail(capsys.readouterr().err)
    capsys.readouterr()
    assert main(["plan", "--bench", "result.json", "--images", "1000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["plan"]["read_bytes"] is None
    assert found["cost"]["core_ms"].keys() >= {"decode", "network", "crf", "encode"}


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["b", "--images", "no", "--size", "9x9"], "is not a number of images"),
        (["--images", "10"], "give a BUNDLE to measure"),
        (["b", "--images", "10"], "give --size HxW"),
        (["b", "--images", "10", "--size", "33x33", "--gpus", "1"], "--gpu-ms"),
    ],
)
def test_wrong_usage(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *arguments]) == 2
    assert line in capsys.readouterr().err
