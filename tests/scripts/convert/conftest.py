"""A folder to run `atrous convert` in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ...converter.test_read import write_net
from ..running import run_with


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with net.prototxt and net.caffemodel; the working folder of the test."""
    write_net(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], workplace: Path) -> Any:
    """Run `atrous convert net.prototxt net.caffemodel -o b ...` in this process: (exit code, stdout, stderr)."""

    def run_convert(
        *arguments: str, net: str = "net.prototxt", weights: str = "net.caffemodel", out: str = "b"
    ) -> tuple[int, str, str]:
        return run_with(capsys, "convert", net, weights, "-o", out, *arguments)

    return run_convert
