"""A local server, without a proxy and without pauses; the weights and the folder of a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from atrous.converter.official import download

from .serving import Site, running_site
from .tiny import register, write_weights


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    monkeypatch.setattr(download, "WINDOW_S", 0.4)


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site() as running:
        yield running


@pytest.fixture
def tiny_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue knows the tiny nets."""
    register(monkeypatch)


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    return write_weights(tmp_path / "made.caffemodel")


@pytest.fixture
def other(tmp_path: Path) -> bytes:
    """Weights of the same net with other numbers."""
    return write_weights(tmp_path / "other.caffemodel", seed=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tiny"
