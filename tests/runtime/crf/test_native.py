"""Parts of the native core that Python cannot reach, by small C++ programs against its sources."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[3] / "runtime" / "crf" / "src"
PROGRAMS = Path(__file__).resolve().parent / "native"


@pytest.mark.parametrize(("program", "source"), [("team", "threads"), ("fork", "memory")])
def test_native_program(program: str, source: str, tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler (set CXX)")
    binary = tmp_path / program
    command = [compiler, "-std=c++17", "-O1", "-pthread", "-I", str(SOURCES)]
    files = [PROGRAMS / f"{program}.cpp", SOURCES / f"{source}.cpp"]
    subprocess.run([*command, *map(str, files), "-o", str(binary)], check=True, timeout=120)
    ended = subprocess.run([str(binary)], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
