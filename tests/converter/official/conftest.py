"""A local server, without a proxy and without pauses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from atrous.converter.official import download

from .serving import Site, running_site


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
