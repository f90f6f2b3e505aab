"""Multiprocessors and driver versions, with a stub of NVIDIA's driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atrous.runtime import devices


class StubDriver:
    """A driver with one GPU of 132 multiprocessors, for CUDA 12.4."""

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        return 0 if index == 0 else 101  # CUDA_ERROR_INVALID_DEVICE

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = {16: 132}[attribute]
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 12040
        return 0


def test_multiprocessors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_open_driver", StubDriver)
    assert devices.count_multiprocessors() == 132
    assert devices.count_multiprocessors(1) == 0
    monkeypatch.setattr(devices, "_open_driver", lambda: None)
    assert devices.count_multiprocessors() == 0


def test_driver_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n")
    monkeypatch.setattr(devices, "_DRIVER_FILE", version)
    assert devices.read_driver_version() == "550.54.15"
    version.write_text("NVRM version: Open Kernel Module for x86_64  570.124.06  Release Build\nGCC version: 13.2.0\n")
    assert devices.read_driver_version() == "570.124.06"
    version.unlink()
    monkeypatch.setattr(devices, "_open_driver", StubDriver)
    assert devices.read_driver_version() == "CUDA 12.4"
    monkeypatch.setattr(devices, "_open_driver", lambda: None)
    assert devices.read_driver_version() is None
