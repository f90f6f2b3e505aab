"""A folder to run `atrous segment` in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ...runtime.bundles import make_image, write_bundle
from ..running import run_with


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bundle `b` and two images in `photos`; the working folder of the test."""
    write_bundle(tmp_path / "b")
    (tmp_path / "photos").mkdir()
    (tmp_path / "list.txt").write_text("photos/one.png")
    for seed, name in enumerate(("one.png", "two.png")):
        Image.fromarray(make_image(20, 30 + seed, seed)).save(tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], workplace: Path) -> Any:
    """Run `atrous segment b ...` in this process: (exit code, stdout, stderr)."""

    def run_segment(*arguments: str, bundle: str = "b") -> tuple[int, str, str]:
        return run_with(capsys, "segment", bundle, *arguments)

    return run_segment
