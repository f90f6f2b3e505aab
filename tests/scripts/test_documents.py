"""Runs the commands of the documentation pages as a reader would, on the miniature's Caffe files and a photo."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from atrous.scripts import demo
from atrous.scripts.main import main
from tools.run_readme import find_blocks, run_blocks

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ERRORS = sorted((DOCS / "errors").glob("*.md"))
_PYTHON = re.compile(r"^```python(?: (?P<file>\S+))?\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?P<path>[^)#:]+)(?:#[^)]*)?\)")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a reader has: deploy.prototxt, net.caffemodel and photo.jpg."""
    made, folder = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("reader")
    demo.command.main(["-o", str(made), "--threads", "1"], standalone_mode=False)
    for name, kind in (("deploy", "prototxt"), ("net", "caffemodel")):
        shutil.copy(made / "caffe" / f"deeplab-miniature.{kind}", folder / f"{name}.{kind}")
    from PIL import Image

    with Image.open(next((made / "scenes").iterdir())) as scene:
        scene.convert("RGB").save(folder / "photo.jpg")
    return folder


def environment() -> dict[str, str]:
    binaries = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}


def run_python(code: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def run_line(line: str) -> None:
    """A line of a shell, in this process where it is atrous's, which saves importing torch every time."""
    words = shlex.split(line, comments=True)
    if words[0] == "atrous":
        assert main(words[1:]) == 0, line
    else:
        assert words[:2] == ["python", "-c"], line
        run_python(words[2], Path.cwd())


@pytest.mark.parametrize("page", ERRORS, ids=lambda page: page.stem)
def test_commands_of_an_error_page(page: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    shutil.copytree(files, folder)
    text = page.read_text(encoding="utf-8")
    blocks = [block for block in find_blocks(text) if not block.note]
    assert blocks, "a page without a command"
    monkeypatch.chdir(folder)
    for line in "".join(block.commands for block in blocks).splitlines():
        run_line(line)
    for found in _PYTHON.finditer(text):
        before = ""
        if "cv2." in found["body"]:
            cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
            if int(cv2.__version__.split(".")[0]) < 5:
                continue  # OpenCV 4 reads no ONNX of open sizes; the tests of `verify --opencv` run OpenCV 5
            before = "import cv2, numpy\nblob = numpy.zeros((1, 3, 257, 257), 'f')\n"
        run_python(before + found["body"], folder)


def test_example_of_the_plugin_page(tmp_path: Path) -> None:
    """The page's file registers both layers; the net with them runs in torch and, as far as it can, in ONNX."""
    text = (DOCS / "plugins.md").read_text(encoding="utf-8")
    (example,) = [found for found in _PYTHON.finditer(text) if found["file"]]
    (tmp_path / str(example["file"])).write_text(example["body"], encoding="utf-8")
    mish = 'layer { name: "mish" type: "Mish" bottom: "data" top: "mish" }\n'
    crop = (
        'layer { name: "crop" type: "Python" bottom: "mish" top: "crop" python_param '
        '{ module: "crops" layer: "CenterCrop" param_str: "{\'size\': 3}" } }\n'
    )
    data = 'input: "data" input_dim: 1 input_dim: 2 input_dim: 6 input_dim: 7\n'
    (tmp_path / "custom.prototxt").write_text(data + mish + crop, encoding="utf-8")
    (tmp_path / "mish.prototxt").write_text(data + mish, encoding="utf-8")
    assert run_blocks([b for b in find_blocks(text) if not b.note], tmp_path, environment()) == 0
    run_python(
        """
import numpy as np, onnxruntime
import my_layers
from atrous.converter import export_onnx, read_net, run_blobs, to_torch
from atrous.errors import ExportError
x = np.random.default_rng(0).standard_normal((1, 2, 6, 7)).astype(np.float32)
net = read_net("custom.prototxt")
blobs = run_blobs(to_torch(net), {"data": x})
expected = x * np.tanh(np.log1p(np.exp(x)))
np.testing.assert_allclose(blobs["mish:mish"], expected, atol=1e-6)
np.testing.assert_array_equal(blobs["crop:crop"], blobs["mish:mish"][:, :, 1:4, 2:5])
try:
    export_onnx(net, to_torch(net))
    raise SystemExit("exported without an ONNX form")
except ExportError as error:
    assert "crop" in str(error)
net = read_net("mish.prototxt")
model = export_onnx(net, to_torch(net))
(y,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"data": x})
np.testing.assert_allclose(y, expected, atol=1e-6)
""",
        tmp_path,
    )
    (tmp_path / "custom.prototxt").write_text(data + crop.replace("3}", "9}").replace("mish", "data"))
    done = subprocess.run(
        ["atrous", "inspect", "custom.prototxt", "--plugin", "my_layers.py"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "takes 9 pixels of (1, 2, 6, 7); give a larger input" in done.stderr


@pytest.mark.parametrize("content", ["raise ValueError('no')", "not python", None])
def test_plugin_that_does_not_load_is_one_line(content: str | None, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text('input: "x" input_dim: 1 input_dim: 1 input_dim: 1 input_dim: 1')
    if content is not None:
        (tmp_path / "broken_layers.py").write_text(content)
    done = subprocess.run(
        ["atrous", "inspect", "net.prototxt", "--plugin", "broken_layers.py"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "broken_layers.py" in done.stderr


def test_blocks_of_commands_are_run_or_marked() -> None:
    """`make readme` runs README and tutorials; the tests here and in test_cookbook.py run the rest."""
    run = {ROOT / "README.md", DOCS / "plugins.md", *ERRORS}
    run |= {page for folder in ("tutorials", "cookbook") for page in (DOCS / folder).glob("*.md")}
    others = {*DOCS.rglob("*.md"), *ROOT.glob("*.md")} - run
    assert not [page for page in others if any(not block.note for block in find_blocks(page.read_text("utf-8")))]


@pytest.mark.parametrize("page", [*DOCS.rglob("*.md"), *ROOT.glob("*.md")], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    missing = [found["path"] for found in _LINK.finditer(text) if not (page.parent / found["path"]).exists()]
    assert not missing
