"""A local server, short patience, and a model small enough to be served a hundred times."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .serving import Site, running_site


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site() as running:
        yield running
