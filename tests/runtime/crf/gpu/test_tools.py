"""The programs that a GPU will run, on the emulation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.bench_crf_gpu import main as bench
from tools.cuda_on_cpu.driver import EmulatedDriver
from tools.cuda_on_cpu.settings import main as compare


def test_bench(forward: EmulatedDriver, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench(["--emulate", "--json", str(tmp_path / "figures.json")])
    assert capsys.readouterr().out.count("\n") == 3
    (row,) = json.loads((tmp_path / "figures.json").read_text())
    assert row["image_ms"] > row["update_ms"] > 0


def test_settings(forward: EmulatedDriver, capsys: pytest.CaptureFixture[str]) -> None:
    compare(["--settings", "2", "--seed", "40", "--backward"])
    assert capsys.readouterr().out == "2 settings, CPU against GPU source on the CPU: all bits equal\n"
