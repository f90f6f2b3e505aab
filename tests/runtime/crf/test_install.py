"""`import pydensecrf` by programs that know nothing of atrous: `install()` and `python -m atrous.pydensecrf`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import multiprocessing, os, subprocess, sys
import numpy as np
import pydensecrf
from pydensecrf import densecrf as dcrf, eigen
import pydensecrf.densecrf
from pydensecrf.utils import unary_from_labels

def refine(seed):
    import pydensecrf.densecrf as again
    labels = np.random.default_rng(seed).integers(0, 3, (6, 7))
    crf = again.DenseCRF2D(7, 6, 3)
    crf.setUnaryEnergy(unary_from_labels(labels, 3, 0.7, zero_unsure=False))
    crf.addPairwiseGaussian(sxy=3, compat=3, kernel=dcrf.DIAG_KERNEL)
    return np.argmax(crf.inference(2), axis=0).tolist()

if __name__ == "__main__":
    import helper
    assert pydensecrf.densecrf is dcrf and dcrf.eigen is eigen
    expected = [refine(seed) for seed in range(3)]
    os.chdir("/")
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        assert pool.map(refine, range(3)) == expected
    code = "import pydensecrf.densecrf as d; print(d.DenseCRF2D.__module__)"
    print(subprocess.run([sys.executable, "-c", code], check=True, stdout=-1, text=True, cwd="/").stdout.strip())
    print(__name__, os.path.basename(sys.argv[0]), sys.argv[1:], helper.VALUE)
    sys.exit(7)
"""


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "atrous.pydensecrf", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("VALUE = 3\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path / "program.py"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_program_and_its_workers(program: Path, method: str) -> None:
    done = run(os.path.relpath(program, program.parent.parent), method, "--flag", folder=program.parent.parent)
    assert done.returncode == 7, done.stderr
    module, rest = done.stdout.splitlines()
    assert module == "atrous.runtime.crf.compat.densecrf"
    assert rest == f"__main__ program.py ['{method}', '--flag'] 3"


def test_module(program: Path) -> None:
    """`-m` finds the module in the current folder, even beside a folder with the original's sources."""
    (program.parent / "pydensecrf").mkdir()
    (program.parent / "pydensecrf" / "__init__.py").write_text("raise ImportError('the original, not compiled')\n")
    done = run("-m", "program", "spawn", folder=program.parent)
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines()[1] == "__main__ program.py ['spawn'] 3"


def test_joblib_workers(tmp_path: Path) -> None:
    pytest.importorskip("joblib", reason="joblib is not installed")
    (tmp_path / "program.py").write_text(
        "import joblib\nimport pydensecrf.densecrf as dcrf\n"
        "def make(n):\n    return dcrf.DenseCRF2D(n, 2, 2).__class__.__module__\n"
        "print(set(joblib.Parallel(2)(joblib.delayed(make)(n) for n in range(2, 6))))\n"
    )
    done = run("program.py", folder=tmp_path)
    assert done.stdout.strip() == "{'atrous.runtime.crf.compat.densecrf'}", done.stderr


@pytest.mark.parametrize("arguments", [(), ("-m",), ("--verbose",), ("absent.py",)])
def test_bad_command_lines(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_help(tmp_path: Path) -> None:
    assert "PROGRAM [ARGUMENTS]" in run("--help", folder=tmp_path).stdout


def test_install_after_the_original_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pydensecrf").mkdir()
    (tmp_path / "pydensecrf" / "__init__.py").touch()
    code = "import pydensecrf\nfrom atrous.runtime.crf.compat import install\ninstall()\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "CrfInputError: pydensecrf is already imported from" in done.stderr


def test_install_twice_and_its_file_names(tmp_path: Path) -> None:
    code = (
        "from atrous.runtime.crf.compat import install, densecrf\ninstall()\nimport pydensecrf.densecrf\ninstall()\n"
        "import sys, importlib.util\nassert importlib.util.find_spec('pydensecrf')\n"
        "assert pydensecrf.densecrf is densecrf\nprint(sum(path.endswith('path') for path in sys.path))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "1", done.stderr
