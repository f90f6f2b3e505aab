"""The launcher of an emulated Python keeps the name it was started by; missing packages are named at once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from tools import debian_python


def test_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "qemu-aarch64").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    launcher = tmp_path / "a root" / "python"
    launcher.parent.mkdir()
    launcher.write_text(debian_python.write_launcher(launcher.parent))
    for file in (launcher, tmp_path / "qemu-aarch64"):
        file.chmod(0o755)
    link = tmp_path / "environment"  # as in the bin folder of a virtual environment
    link.symlink_to(launcher)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    words = subprocess.check_output([link, "-c", "a  b"], text=True).splitlines()
    root = str(launcher.parent)
    assert words == ["-L", root, "-0", str(link), f"{root}/usr/bin/python3.13", "-c", "a  b"]


def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian_python.shutil, "which", lambda name: None if "aarch64" in name else name)
    monkeypatch.setattr(debian_python.Path, "is_file", lambda path: False)
    kept = tmp_path / "kept"
    kept.touch()
    result = CliRunner().invoke(debian_python.command, [str(tmp_path)])
    assert result.exit_code == 1
    assert "apt-get install qemu-user g++-aarch64-linux-gnu" in result.output
    assert kept.exists()
