"""pydensecrf's published example and notebook, unchanged but for the name they import, against their own pictures.

Their files are not part of this project: $ATROUS_PYDENSECRF names a checkout of pydensecrf.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import atrous.runtime.crf.compat as dcrf
from atrous.runtime.images import read_image


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of examples, with the drop-in under pydensecrf's names."""
    folder = Path(os.environ.get("ATROUS_PYDENSECRF", "")) / "examples"
    if "ATROUS_PYDENSECRF" not in os.environ or not folder.is_dir():
        pytest.skip("pydensecrf's examples are not here (set ATROUS_PYDENSECRF to a checkout of it)")
    monkeypatch.setitem(sys.modules, "pydensecrf", dcrf)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", dcrf.densecrf)
    monkeypatch.setitem(sys.modules, "pydensecrf.utils", dcrf.utils)
    return folder


@pytest.mark.parametrize("two_dimensional", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_inference_script(
    examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, two_dimensional: bool
) -> None:
    pytest.importorskip("cv2")
    script = tmp_path / "inference.py"
    text = (examples / "inference.py").read_text()
    assert "use_2d = False\n# use_2d = True\n" in text  # the switch that its readers turn
    script.write_text(text.replace("# use_2d = True", "use_2d = True") if two_dimensional else text)
    output = tmp_path / "out.png"
    arguments = [examples / f"im{number}.png", examples / f"anno{number}.png", output]
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
    runpy.run_path(str(script), run_name="__main__")
    found, published = read_image(output), read_image(examples / f"out{number}.png")
    # The published pictures are of 2015: another normalization by default, so borders lie elsewhere.
    assert (found != published).any(axis=2).mean() < 0.05


class Bell:
    """A normal distribution, the same in all directions."""

    def __init__(self, mean: Any, variance: float) -> None:
        self.mean, self.variance = np.asarray(mean), variance

    def pdf(self, places: Any) -> Any:
        squares = ((np.asarray(places) - self.mean) ** 2).sum(axis=-1)
        return np.exp(-squares / (2 * self.variance)) / (2 * np.pi * self.variance)


def test_notebook(examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = ModuleType("scipy.stats")  # all it takes of scipy is one round bell
    stand_in.multivariate_normal = Bell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "scipy", ModuleType("scipy"))
    monkeypatch.setitem(sys.modules, "scipy.stats", stand_in)
    matplotlib: Any = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    cells = json.loads((examples / "Non RGB Example.ipynb").read_text())["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    names: dict[str, Any] = {}
    exec("\n".join(line for line in source.splitlines() if not line.startswith("%")), names)
    height, width = names["H"], names["W"]
    inside = np.zeros((height, width), bool)
    inside[height // 3 : 2 * height // 3, width // 4 : 3 * width // 4] = True
    # the bilateral image is a rectangle, and after many steps the foreground is that
    last = np.asarray(names["map_soln3"])
    assert min((last == inside).mean(), (last != inside).mean()) < 0.02
    assert names["kl3"] <= names["kl2"] <= names["kl1"]
