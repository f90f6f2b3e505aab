"""pydensecrf's own tests, example and notebook, unchanged, by `python -m atrous.pydensecrf`.

Their files are not part of this project: $ATROUS_PYDENSECRF names a checkout of pydensecrf (`make pydensecrf-check`
fetches it), or the sources of pydensecrf2, which have fewer.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from atrous.runtime.images import read_image


@pytest.fixture(scope="module")
def checkout() -> Path:
    folder = os.environ.get("ATROUS_PYDENSECRF", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("pydensecrf's sources are not here (set ATROUS_PYDENSECRF to a checkout of it)")
    return Path(folder)


def find(checkout: Path, name: str) -> Path:
    if not (checkout / name).exists():
        pytest.skip(f"{name} is not in {checkout}: only a checkout of pydensecrf's repository has it")
    return checkout / name


def run(*arguments: object, folder: Path, drop_in: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-m", "atrous.pydensecrf"] if drop_in else []), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)


@pytest.mark.parametrize(
    "name", ["tests/test_utils.py", "pydensecrf/tests/test_dcrf.py", "pydensecrf/tests/test_eigen.py"]
)
def test_its_own_tests(checkout: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(find(checkout, name), tmp_path)  # away from this project's pytest settings
    done = run("-m", "pytest", "-q", Path(name).name, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_issue_29_raises(checkout: Path, tmp_path: Path) -> None:
    """A unary of another size than the CRF, which crashed pydensecrf once."""
    done = run(find(checkout, "tests/issue29.py"), folder=tmp_path)
    assert done.returncode == 1
    assert "CrfInputError: unary energy must be (labels, points) = (5, 253368), got (5, 3400)" in done.stderr


@pytest.mark.parametrize("two_dimensional", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_inference_script(checkout: Path, tmp_path: Path, number: int, two_dimensional: bool) -> None:
    pytest.importorskip("cv2")
    examples = find(checkout, "examples")
    script = tmp_path / "inference.py"
    text = (examples / "inference.py").read_text()
    assert "use_2d = False\n# use_2d = True\n" in text  # the switch that its readers turn
    script.write_text(text.replace("# use_2d = True", "use_2d = True") if two_dimensional else text)
    output, expected = tmp_path / "out.png", tmp_path / "original.png"
    inputs = [examples / f"im{number}.png", examples / f"anno{number}.png"]
    done = run(script, *inputs, output, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    found, published = read_image(output), read_image(examples / f"out{number}.png")
    # The published pictures are of 2015: another normalization by default, so borders lie elsewhere.
    assert (found != published).any(axis=2).mean() < 0.05
    if run("-c", "import pydensecrf.densecrf", folder=tmp_path, drop_in=False).returncode == 0:
        assert run(script, *inputs, expected, folder=tmp_path, drop_in=False).returncode == 0
        np.testing.assert_array_equal(found, read_image(expected))


#: all that the notebook takes of scipy: one round normal distribution
SCIPY = """
import sys, types
import numpy as np
class Normal:
    def __init__(self, mean, variance):
        self.mean, self.variance = np.asarray(mean), variance
    def pdf(self, places):
        squares = ((np.asarray(places) - self.mean) ** 2).sum(axis=-1)
        return np.exp(-squares / (2 * self.variance)) / (2 * np.pi * self.variance)
sys.modules["scipy"] = types.ModuleType("scipy")
sys.modules["scipy.stats"] = types.ModuleType("scipy.stats")
sys.modules["scipy.stats"].multivariate_normal = Normal
import matplotlib
matplotlib.use("Agg")
"""


def test_notebook(checkout: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    cells = json.loads(find(checkout, "examples/Non RGB Example.ipynb").read_text())["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    program = tmp_path / "notebook.py"
    lines = [line for line in source.splitlines() if not line.startswith("%")]
    results = "\nnp.savez('results.npz', size=(H, W), labels=map_soln3, divergences=[kl1, kl2, kl3])\n"
    program.write_text(SCIPY + "\n".join(lines) + results)
    done = run(program, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "results.npz") as data:
        (height, width), last, divergences = data["size"], data["labels"], data["divergences"]
    inside = np.zeros((height, width), bool)
    inside[height // 3 : 2 * height // 3, width // 4 : 3 * width // 4] = True
    # the bilateral image is a rectangle, and after many steps the foreground is that
    assert min((last == inside).mean(), (last != inside).mean()) < 0.02
    assert divergences[2] <= divergences[1] <= divergences[0]
