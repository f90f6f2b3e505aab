"""The native core: its argument checks, and small C++ programs for parts that Python cannot reach."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.runtime.crf import _lattice

SOURCES = Path(__file__).resolve().parents[3] / "runtime" / "crf" / "src"
PROGRAMS = Path(__file__).resolve().parent / "native"


@pytest.mark.parametrize(
    ("program", "sources"),
    [("team", "threads fork placement"), ("fork", "memory fork system_pages"), ("affinity", "placement")],
)
def test_native_program(program: str, sources: str, tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler (set CXX)")
    binary = tmp_path / program
    command = [compiler, "-std=c++17", "-O1", "-pthread", "-I", str(SOURCES)]
    files = [PROGRAMS / f"{program}.cpp", *(SOURCES / f"{source}.cpp" for source in sources.split())]
    subprocess.run([*command, *map(str, files), "-o", str(binary)], check=True, timeout=120)
    ended = subprocess.run([str(binary)], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("compiler", "version", "accepted"),
    [("GNU", "11.4.0", False), ("GNU", "12.2.0", True), ("MSVC", "19.40", False), ("AppleClang", "15.0", True)],
)
def test_the_compiler_is_checked(compiler: str, version: str, accepted: bool) -> None:
    if (cmake := shutil.which("cmake")) is None:
        pytest.skip("no cmake")
    found = [f"-DCMAKE_CXX_COMPILER_ID={compiler}", f"-DCMAKE_CXX_COMPILER_VERSION={version}"]
    ended = subprocess.run([cmake, *found, "-P", str(SOURCES / "CMakeLists.txt")], capture_output=True, text=True)
    message = f"needs GCC 12 or newer, or Clang, but CMake found {compiler} {version}"
    assert (message in " ".join(ended.stderr.split())) is not accepted  # a script ends later, for want of nanobind


ORDER = _lattice.PixelOrder.tiled(4, 4)


def enter_field(order: Any = ORDER, labels: int = 2, threads: int = 1) -> Any:
    field = _lattice.MeanField(order, labels, False, "", threads)
    field.__enter__()
    return field


@pytest.mark.parametrize(
    "call",
    [
        lambda: _lattice.PixelOrder.tiled(65536, 65536),  # 2^32 pixels
        lambda: _lattice.PixelOrder.tiled(0, 4),
        lambda: _lattice.PixelOrder.linear(0),
        lambda: enter_field(labels=0),
        lambda: enter_field(labels=70000),
        lambda: enter_field(threads=0),
        lambda: enter_field().set_coarse_scores(np.zeros((1, 1, 2), np.float32), 2**63 + 8, 4, 2**64 - 1, 9.0),
        lambda: enter_field().set_coarse_scores(np.zeros((1, 1, 2), np.float32), 4, 3, 4, 9.0),  # padded to less
        lambda: enter_field().set_unary(np.zeros((2, 8), np.float32), 2**64 - 4, 0, 9.0),
        lambda: enter_field().run(1, False, False, 0.0, 0.0, None),  # no unary
        lambda: _lattice.Lattice.from_grid(ORDER, [2**31, 2**31, 4], [1.0] * 3, None, [], 0, None, 1),
        lambda: _lattice.Lattice.from_grid(ORDER, [4, 4], [1.0] * 2, None, [], 7, None, 1),
        lambda: _lattice.Lattice.from_grid(ORDER, [4, 4], [1.0] * 2, None, [1.0], 0, None, 1),
        lambda: _lattice.Lattice.from_grid(ORDER, [4, 4], [1.0] * 2, None, [], 0, None, 0),
        lambda: _lattice.Lattice.from_features(ORDER, np.zeros((65, 16), np.float32), 0, None, 1),
    ],
)
def test_native_sizes_are_checked(call: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        call()


def test_a_band_may_be_longer_than_32_bits_times_32_rows() -> None:
    assert _lattice.PixelOrder.tiled(1, 2**27).band == 2**27


def test_a_field_works_only_while_entered() -> None:
    field = _lattice.MeanField(ORDER, 2, False, "", 1)
    with pytest.raises(RuntimeError, match="enter"):
        field.clear_terms()
    with field, pytest.raises(_lattice.InUseError), field:
        pass
    with field:  # free again
        field.clear_terms()
