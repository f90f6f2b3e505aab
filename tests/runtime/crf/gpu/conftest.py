"""The GPU's kernels on the CPU: `device="cuda"` runs on the emulation in these tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from atrous.runtime.crf.gpu import engine
from atrous.runtime.crf.terms import forget_lattices
from tools.cuda_on_cpu.driver import EmulatedDriver


def open_emulation(*, backward: bool) -> EmulatedDriver:
    """A driver, compiled at the first call; skips without a compiler."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler (set CXX)")
    return EmulatedDriver(backward=backward)


@pytest.fixture(params=["forward", "backward"])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedDriver]:
    """Threads and blocks in both orders, which give the same bits if nothing depends on the order."""
    emulation = open_emulation(backward=request.param == "backward")
    monkeypatch.setattr(engine, "open_driver", lambda: emulation)
    yield emulation
    forget_lattices()
    emulation.check_guards()


@pytest.fixture
def forward(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedDriver]:
    """The emulation in one order."""
    emulation = open_emulation(backward=False)
    monkeypatch.setattr(engine, "open_driver", lambda: emulation)
    yield emulation
    forget_lattices()
    emulation.check_guards()
