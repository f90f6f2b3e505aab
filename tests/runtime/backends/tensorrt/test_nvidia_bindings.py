"""The real bindings of several lines have the names and the capabilities that builds and runs here use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools.nvidia_check.harness import BINDINGS, Nvidia, find_bindings


@pytest.mark.parametrize("version", BINDINGS)
def test_names_and_capabilities(nvidia: Nvidia, version: str) -> None:
    """`test_installed.py`, with the bindings of a version as the installed TensorRT."""
    bindings = find_bindings(version)
    if bindings is None:
        pytest.skip(f"no bindings of {version} for Python {sys.version_info.major}.{sys.version_info.minor}")
    tests = Path(__file__).with_name("test_installed.py")
    code = "import sys, pytest, tensorrt; print(tensorrt.__version__); sys.exit(pytest.main(sys.argv[1:]))"
    options = ["-q", "-rs", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(tests.parents[4])]
    done = nvidia.run(["-c", code, *options, str(tests)], bindings)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[0] == version
    assert "TensorRT is not installed" not in done.stdout
