"""Output that cannot be written: full disks, closed pipes, characters that the terminal lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..processes import child_env


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A prototxt of two layers."""
    path = tmp_path / "net.prototxt"
    path.write_text(
        'input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8\n'
        'layer { name: "r" type: "ReLU" bottom: "data" top: "r" }\n'
        'layer { name: "p" type: "Pooling" bottom: "r" top: "p" pooling_param { kernel_size: 2 stride: 2 } }\n'
    )
    return path


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("flags", [[], ["--json"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_stdout_is_one_line(net: Path, flags: list[str], unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "atrous.scripts.main", "inspect", str(net), *flags],
            stdout=full, stderr=subprocess.PIPE, text=True, env=child_env(PYTHONUNBUFFERED=unbuffered), check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "atrous: the output cannot be written: No space left on device\n")


def test_a_closed_pipe_is_silent(net: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "atrous.scripts.main", "inspect", str(net)],
        stdout=writer, stderr=subprocess.PIPE, text=True, env=child_env(), check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("name", ["größe.prototxt", b"gr\xf6\xdfe.prototxt"])
def test_a_name_that_the_terminal_cannot_encode(net: Path, name: str | bytes) -> None:
    """On an ASCII terminal, and for a name that is not UTF-8, the characters are written as escapes."""
    path = os.path.join(os.fsencode(net.parent), os.fsencode(name))
    for encoding in ("ascii", "utf-8"):
        missing = subprocess.run(
            [sys.executable, "-m", "atrous.scripts.main", "inspect", path],
            capture_output=True, text=True, env=child_env(PYTHONIOENCODING=encoding), encoding="utf-8", check=False,
        )  # fmt: skip
        assert missing.returncode == 2
        assert missing.stderr.count("\n") == 1
        assert "does not exist" in missing.stderr


def test_a_result_that_the_terminal_cannot_encode(net: Path) -> None:
    net.write_text(net.read_text().replace('"r"', '"größe"'), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "atrous.scripts.main", "inspect", str(net)],
        capture_output=True, text=True, env=child_env(PYTHONIOENCODING="ascii"), check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "gr\\xf6\\xdfe" in done.stdout
