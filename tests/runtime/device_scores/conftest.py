"""Fixtures of the tests of scores that stay on the device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from atrous.runtime.crf import gpu
from atrous.runtime.crf.gpu import engine

from ..backends.tensorrt.machines import SharedDriver
from ..bundles import CRF, write_bundle
from ..crf.gpu.conftest import open_emulation
from .engines import Emulation, make_driver, require_nothing_left


@pytest.fixture
def emulation(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulation]:
    """The CRF's device, none of whose memory is left at the end."""
    open_emulation(backward=False)
    emulated = Emulation()
    for module in (gpu, engine):
        monkeypatch.setattr(module, "open_driver", lambda: emulated)
    yield emulated
    require_nothing_left(emulated)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path, "lowres", crf=CRF)


@pytest.fixture(params=[None, 0], ids=lambda seed: "late" if seed is None else f"order {seed}")
def driver(request: pytest.FixtureRequest, emulation: Emulation) -> SharedDriver:
    return make_driver(emulation, request.param)


@pytest.fixture
def late(emulation: Emulation) -> SharedDriver:
    return make_driver(emulation, None)
