"""The notebook with widgets, for which nbmake waits without end, run by a kernel of its own; no outputs are stored."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))
nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")
pytest.importorskip("ipywidgets", reason="ipywidgets is not installed")


def execute(path: Path, folder: Path, *cells: str) -> Any:
    """The notebook after its cells, and further ones, have run."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "remove the outputs before a commit"
    notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kernel's libraries
        NotebookClient(
            notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        ).execute()
    return notebook


def read_output(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def test_crf_sliders(tmp_path: Path) -> None:
    path = next(path for path in NOTEBOOKS if path.stem == "crf-sliders")
    notebook = execute(path, tmp_path, "print(score(), np.mean(scene.truth == probabilities.argmax(0)))")
    shares = [float(line.rpartition(": ")[2].rstrip("%")) for line in read_output(notebook.cells[-3]).splitlines()]
    assert len(shares) == 5
    assert shares[0] > 90  # the CRF helps
    after, before = map(float, read_output(notebook.cells[-1]).split())
    assert after > before + 0.02
