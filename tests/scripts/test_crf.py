"""`atrous crf` on folders of saved arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.runtime.crf import BilateralTerm, CrfParameters, GaussianTerm, dense_crf
from atrous.scripts.main import main

from ..runtime.crf.conftest import make_problem
from .running import run_atrous


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("photos", "cams"):
        (tmp_path / name).mkdir()
    for seed in range(3):
        image, probabilities = make_problem(20, 30, 4, seed)
        Image.fromarray(image).save(tmp_path / f"photos/{seed}.png")
        np.save(tmp_path / f"cams/{seed}.npy", probabilities)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folders")
def test_json_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--recipe",
        "irn",
        "--mode",
        "deeplab",
        "--iterations",
        "4",
        "--gaussian",
        "2,1",
        "--bilateral",
        "30,9,5",
    ]
    assert main(["crf", "photos", "cams", "-o", "out", "--save", "probabilities", *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["command"], found["refined"], len(found["files"])) == ("crf", 3, 3)
    parameters = CrfParameters("deeplab", 4, (GaussianTerm(2.0, 1.0),), (BilateralTerm(30.0, 9.0, 5.0),))
    assert found["parameters"] == parameters.to_dict()
    for file in found["files"]:
        image, probabilities = make_problem(20, 30, 4, int(Path(file["unary"]).stem))
        expected = dense_crf(image, probabilities, parameters=parameters)
        np.testing.assert_array_equal(np.load(file["outputs"]["probabilities"]), expected)


@pytest.mark.usefixtures("folders")
def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crf", "photos", "cams", "-o", "out"]) == 0
    assert capsys.readouterr().out == "3 refined -> out\n"
    Path("cams/1.npy").write_bytes(b"hello")
    assert main(["crf", "photos", "cams", "-o", "out"]) == 1
    captured = capsys.readouterr()
    assert (
        captured.out
        == "0 refined, 1 failed (see failures.jsonl) -> out\n2 were done before (--again does them again)\n"
    )
    assert "1.npy is not a sound" in captured.err
    for path in Path("cams").iterdir():
        path.write_bytes(b"hello")
    assert main(["crf", "photos", "cams", "-o", "out"]) == 2
    assert main(["crf", "photos", "absent", "-o", "out"]) == 2
    assert main(["crf", "photos", "cams", "-o", "out", "--bilateral", "3,4"]) == 2
    assert '"3,4" is not SXY,SRGB,WEIGHT' in capsys.readouterr().err


def test_in_a_process_of_its_own(folders: Path) -> None:
    done = run_atrous("crf", "photos", "cams", "-o", "out", "--threads", "2", folder=folders)
    assert (done.code, done.stderr) == (0, "")
    assert sorted(path.name for path in (folders / "out").glob("*.png")) == ["0.png", "1.png", "2.png"]
