"""docs/layers.md lists the registered types and the measured results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from atrous.converter import Operator, register_layer
from atrous.converter.graph.roles import DATA_SOURCES, ELSEWHERE, PYTHON_LAYER, TRAINING_ONLY, UNSUPPORTED
from atrous.converter.layers import base, registered_types
from tools.write_support_table import known_types, main, make_rows, own_types, write_page

from ..conftest import REPO

PAGE = REPO / "docs" / "layers.md"


def outcome(name: str, torch: str, onnx: str, opencv: str, worst: list[float], *families: str) -> dict[str, Any]:
    verdicts = {"torch": torch, "onnx": onnx, "opencv": opencv}
    return {"name": name, **verdicts, "worst": worst, "detail": "", "families": list(families)}


OUTCOMES = [
    outcome("tiny/relu", "passed", "passed", "passed", [1e-7, 2e-7], "ReLU"),
    outcome("nets/a", "conditioned", "failed", "skipped", [3e-4, 1.0], "ReLU", "DenseCRF"),
    outcome("nets/b", "failed", "failed", "skipped", [1.0, 1.0], "Pooling"),
]
FORKS = {"tiny/relu": "bvlc", "nets/a": "deeplab_v1", "nets/b": "ssd"}


def test_page_lists_exactly_the_registered_types() -> None:
    """Run `make conformance` and `python -m tools.write_support_table` after adding a type."""
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(own_types())
    for name in {*DATA_SOURCES, *TRAINING_ONLY, *UNSUPPORTED, *ELSEWHERE}:
        assert f"`{name}`" in text, name


def test_every_known_type_has_one_place() -> None:
    registered = set(own_types())
    listed = [registered, set(DATA_SOURCES), set(TRAINING_ONLY), set(UNSUPPORTED), set(ELSEWHERE)]
    assert sum(map(len, listed)) == len(set().union(*listed)), "a type is listed twice"
    assert known_types() - set().union(*listed) <= {"", PYTHON_LAYER}
    assert set(UNSUPPORTED) <= known_types()


def test_rows_count_what_is_equal_by_the_caffe_that_ran() -> None:
    rows = {row.type: row for row in make_rows(OUTCOMES, FORKS)}
    assert (rows["ReLU"].torch, rows["ReLU"].onnx, rows["ReLU"].opencv) == ({"bvlc": 1, "deeplab_v1": 1}, 1, 1)
    assert rows["ReLU"].worst == (1e-7, 2e-7), "a layer's own error comes from the tiny recordings"
    assert rows["DenseCRF"].worst == (3e-4, 1.0)
    assert not rows["DenseCRF"].has_onnx
    assert (rows["Pooling"].torch, rows["Pooling"].worst) == ({}, None)


def test_page_says_which_recordings_it_was_made_from() -> None:
    text = write_page(OUTCOMES, FORKS)
    assert "3 recordings of real Caffe (1 `tiny`, 2 `nets`)" in text
    assert "Those of kind `real` were not run." in text
    assert "and the outputs of 1 in OpenCV 5." in text
    assert "| `ReLU` | yes | yes | bvlc 1, deeplab_v1 1 | 1 | 1 | 1.0e-07, 2.0e-07 |" in text
    assert "| `DenseCRF` | yes | no | deeplab_v1 1 |  |  | 3.0e-04 |" in text
    assert "| `Pooling` | yes | yes | none |  |  |  |" in text


def test_plugins_are_not_in_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @register_layer("MyOwn")
    class MyOwn(Operator):
        """A plug-in."""

    assert "MyOwn" in registered_types()
    assert "MyOwn" not in own_types()


def test_command_writes_the_page(goldens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "outcomes.json").write_text(json.dumps(OUTCOMES[:1]))
    arguments = [str(tmp_path / "outcomes.json"), str(goldens), "-o", str(tmp_path / "layers.md")]
    assert main(arguments) == 0
    assert "(1 `tiny`)" in (tmp_path / "layers.md").read_text(encoding="utf-8")
    assert "1 recordings" in capsys.readouterr().out
