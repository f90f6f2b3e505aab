"""`atrous bench crf`: the table and the JSON of a small measurement, and what it does when results differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atrous.errors import MemoryLimitError
from atrous.runtime.benchmark import crf_scaling
from atrous.runtime.benchmark.crf_scaling import choose_threads, measure_scaling
from atrous.runtime.crf.recipes import RECIPES
from atrous.scripts.main import main

SMALL = ["bench", "crf", "--size", "40x50x3", "--runs", "2", "--iterations", "2"]


def test_thread_counts() -> None:
    assert choose_threads(1) == [1]
    assert choose_threads(6) == [1, 2, 3, 4, 5, 6]
    assert choose_threads(20) == [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20]
    assert choose_threads(96)[-4:] == [32, 48, 64, 96]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--threads", "1,2,3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["crf"]
    own = [row for row in found["rows"] if row["name"] == "atrous"]
    assert [row["threads"] for row in own] == [1, 2, 3]
    assert own[0]["speedup"] == 1.0
    assert all(row["best_ms"] <= row["median_ms"] and sum(row["phases_ms"].values()) < row["best_ms"] for row in own)
    assert (found["height"], found["width"], found["labels"], found["bits_equal"]) == (40, 50, 3, True)
    assert found["parameters"]["iterations"] == 2
    assert (found["reference"] is None) == (len(found["rows"]) == 3)


def test_table_and_photo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = np.random.default_rng(0).integers(0, 255, (30, 60, 3)).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    assert main([*SMALL, "--image", str(tmp_path / "photo.png")]) == 0
    out = capsys.readouterr().out
    assert "40x50x3, 2 updates" in out
    assert "all thread counts: the same bits" in out


@pytest.mark.parametrize("option", [["--size", "40x50"], ["--size", "0x5x2"], ["--threads", "1,0"], ["--runs", "0"]])
def test_bad_options(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "crf", *option]) == 2
    assert option[0] in capsys.readouterr().err


def test_sizes_beyond_the_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "crf", "--size", "99999x99999x21"]) == 2
    assert "99999x99999x21 needs about" in capsys.readouterr().err


def test_results_of_all_threads_beyond_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crf_scaling, "find_limit_bytes", lambda: 30e6)
    image = np.zeros((100, 200, 3), np.uint8)
    with pytest.raises(MemoryLimitError, match="100x200x21 needs about"):
        measure_scaling(image, 21, RECIPES["irn"], threads=range(1, 17), runs=1)
    assert measure_scaling(image, 2, RECIPES["irn"], threads=[1], runs=1).bits_equal


def test_other_results_are_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = crf_scaling._make_run

    def make(*arguments: Any) -> Any:
        run = real(*arguments)
        return (lambda: run() * np.float32(0.5)) if arguments[3] == 2 else run

    monkeypatch.setattr(crf_scaling, "_make_run", make)
    assert main([*SMALL, "--threads", "1,2"]) == 1
    captured = capsys.readouterr()
    assert "OTHER BITS" in captured.out
    assert "results differ" in captured.err


def test_against_pydensecrf() -> None:
    pytest.importorskip("pydensecrf.densecrf", reason="the original is not installed (make pydensecrf-check)")
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    found = measure_scaling(image, 4, RECIPES["irn"], threads=[1, 2], runs=1)
    assert found.labels_equal
    assert found.reference == "1.1"
    assert [row.name for row in found.rows] == ["pydensecrf", "atrous", "atrous"]
    assert all(row.over_pydensecrf is not None for row in found.rows)
