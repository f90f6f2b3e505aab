"""The memory that a process may use, and images refused because they cannot fit."""

from __future__ import annotations

import math
import resource
from pathlib import Path

import numpy as np
import pytest

from atrous import runtime
from atrous.errors import InputError
from atrous.runtime import memory

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
    deploy = {**make_manifest({})["deploy"], "bytes_per_pixel": 512}
    image = np.zeros((8191, 8191, 3), np.uint8)
    monkeypatch.setattr(memory, "find_limit_bytes", lambda: 34e9)
    with runtime.load(write_bundle(tmp_path / "bundle", deploy=deploy)) as segmenter:
        with pytest.raises(InputError, match=r"is 8191x8191 pixels, which takes more than 34\.4 GB; .* have 34\.0 GB"):
            segmenter.prepare(image)
        assert segmenter(make_image(20, 30)).shape == (20, 30)
        monkeypatch.setattr(memory, "find_limit_bytes", lambda: 35e9)
        assert segmenter.prepare(image)["image"].shape == (1, 8191, 8191, 3)


def test_scores_count_if_the_layers_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((5000, 4000, 3), np.uint8)
    with runtime.load(write_bundle(tmp_path / "a")) as segmenter:
        monkeypatch.setattr(memory, "find_limit_bytes", lambda: 4 * 4 * 20e6 - 1)
        with pytest.raises(InputError, match=r"4000x5000 pixels, which takes more than 0\.3 GB"):
            segmenter.prepare(image)
    with runtime.load(write_bundle(tmp_path / "b", "labels")) as segmenter:
        segmenter.prepare(image)
