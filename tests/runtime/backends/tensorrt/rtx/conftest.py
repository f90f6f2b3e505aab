"""Fixtures of the tests of TensorRT for RTX."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from atrous.runtime.backends.tensorrt.rtx import library


@pytest.fixture
def sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stub of NVIDIA's SDK that this process and its child processes import."""
    folder = tmp_path / "sdk"
    folder.mkdir()
    source = Path(__file__).with_name("sdk_stub.py").read_text(encoding="utf-8")
    (folder / f"{library.SDK_MODULE}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, library.SDK_MODULE, raising=False)
    yield
    sys.modules.pop(library.SDK_MODULE, None)


@pytest.fixture
def wheel() -> library.RtxLibrary:
    """The library in the pinned wheel; skips without it."""
    if importlib.util.find_spec(library.PACKAGE) is None:
        pytest.skip(f'{library.DISTRIBUTION} is not installed: pip install "atrous[rtx]"')
    return library.find_library()
