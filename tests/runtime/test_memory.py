"""The memory that a process may use, and images refused because they cannot fit."""

from __future__ import annotations

import math
import resource
from pathlib import Path

import numpy as np
import pytest

from atrous import runtime
from atrous.errors import MemoryLimitError
from atrous.runtime import memory
from atrous.runtime.backends.fake import FakeBackend
from atrous.runtime.tiles import planner

from .bundles import make_image, make_manifest, write_bundle

MEMINFO = "MemTotal: 900 kB\nMemAvailable:     400 kB\nSwapFree: 100 kB\nHugePages_Total: 0\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the files that describe a machine with 500 kB of free memory; this process holds 24 kB."""
    for name, variable in (("meminfo", "_MEMINFO"), ("status", "_STATUS"), ("memory.max", "_CGROUP")):
        monkeypatch.setattr(memory, variable, tmp_path / name)
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t      24 kB\nThreads:\t1\n")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return tmp_path


def test_free_and_held_memory(machine: Path) -> None:
    assert memory.find_limit_bytes() == 524 * 1024


@pytest.mark.parametrize(("content", "limit"), [("max\n", 524 * 1024), ("4096\n", 4096)])
def test_limit_of_a_container(machine: Path, content: str, limit: int) -> None:
    (machine / "memory.max").write_text(content)
    assert memory.find_limit_bytes() == limit


def test_limit_of_the_shell(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (5000, resource.RLIM_INFINITY))
    assert memory.find_limit_bytes() == 5000


def test_a_machine_without_proc(machine: Path) -> None:
    (machine / "meminfo").unlink()
    assert 1 << 28 < memory.find_limit_bytes() < math.inf


def test_an_image_that_cannot_fit_is_refused_before_the_network_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TIFF of 2.5 kB can have 67 million pixels, which took 7 GB until the network failed."""
    footprint = {"bytes_per_pixel": 512.0, "reach": 0, "effective_reach": 0, "stride": 1}
    deploy = {**make_manifest({})["deploy"], "footprint": footprint}
    image = np.zeros((8191, 8191, 3), np.uint8)
    monkeypatch.setattr(planner, "find_limit_bytes", lambda: 200e6)
    monkeypatch.setattr(planner, "find_used_bytes", lambda: 0)
    with runtime.load(write_bundle(tmp_path / "bundle", deploy=deploy)) as segmenter:
        with pytest.raises(MemoryLimitError, match=r"of 8191x8191 pixels needs about 0\.5 GB, .* have 0\.2 GB"):
            segmenter.prepare(image)
        assert segmenter(make_image(20, 30)).shape == (20, 30)
    monkeypatch.setattr(planner, "find_limit_bytes", lambda: 20e9)
    with runtime.load(tmp_path / "bundle") as segmenter:
        assert segmenter.memory_bytes == 15e9
        assert segmenter.prepare(image) == {}  # it takes 55 GB whole, and is labeled in tiles
    monkeypatch.setattr(planner, "find_limit_bytes", lambda: 100e9)
    with runtime.load(tmp_path / "bundle") as segmenter:
        assert segmenter.prepare(image)["image"].shape == (1, 8191, 8191, 3)


def test_a_network_on_a_device_gets_whole_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "find_limit_bytes", lambda: 100e6)
    monkeypatch.setattr(planner, "find_used_bytes", lambda: 0)
    network = FakeBackend(4)
    monkeypatch.setattr(network, "device", "cuda")
    with runtime.load(write_bundle(tmp_path), network) as segmenter:
        tiles = segmenter.plan(1000, 1000).tiles
        assert tiles is None or not tiles.network_in_tiles
        with pytest.raises(MemoryLimitError, match="5000x4000 pixels"):
            segmenter.plan(4000, 5000)
