"""Example programs, run on the miniature; those of Triton, Ray, Slurm and Kubernetes are tested with the commands."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from atrous import runtime
from atrous.scripts import demo
from atrous.scripts.main import main

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    demo.run_demo(folder, threads=1)
    return folder


def test_fastapi_labels_an_image(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    testing = pytest.importorskip("starlette.testclient", reason="starlette's test client needs httpx")
    bundle, scene = made / "deeplab-miniature", made / "scenes" / "scene-3012.png"
    monkeypatch.setenv("BUNDLE", str(bundle))
    with testing.TestClient(runpy.run_path(str(EXAMPLES / "fastapi_app.py"))["app"]) as client:
        answer = client.post("/labels", content=scene.read_bytes())
        assert answer.status_code == 200
        labels = np.array(Image.open(io.BytesIO(answer.content)))
        assert client.post("/labels", content=b"no image").status_code == 400
        assert client.post("/labels", content=b"x" * ((20 << 20) + 1)).status_code == 413
    with runtime.load(bundle) as segmenter:
        assert (labels == segmenter(runtime.read_image(scene))).all()


def test_opencv_prints_the_classes(made: Path, tmp_path: Path) -> None:
    python = os.environ.get("ATROUS_OPENCV")
    if not python:
        pytest.skip("needs OpenCV 5: make opencv-check, or ATROUS_OPENCV=PYTHON")
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    caffe, onnx = made / "caffe", tmp_path / "net.onnx"
    files = [str(caffe / f"deeplab-miniature.{kind}") for kind in ("prototxt", "caffemodel")]
    assert main(["convert", *files, "-o", str(onnx)]) == 0
    words = [str(EXAMPLES / "opencv5.py"), str(onnx), str(made / "scenes" / "scene-3012.png"), "241", "321"]
    done = subprocess.run([python, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shares = dict(line.removeprefix("class ").split(": ") for line in done.stdout.splitlines())
    image = cv2.imread(str(made / "scenes" / "scene-3012.png"))
    blob = cv2.dnn.blobFromImage(image, 1.0, (321, 241), (104.008, 116.669, 122.675))
    (scores,) = onnxruntime.InferenceSession(onnx).run(None, {"data": blob})
    labels = scores[0].argmax(0)
    assert {int(label) for label in shares} == set(np.unique(labels))
    for label, share in shares.items():
        assert abs(float(share.rstrip("%")) / 100 - (labels == int(label)).mean()) < 0.001


ASK_GRADIO = """
import json, sys
import gradio_app
from gradio_client import Client, handle_file
gradio_app.page.launch(prevent_thread_lock=True, quiet=True)
answer = Client(gradio_app.page.local_url, verbose=False).predict(handle_file(sys.argv[1]), api_name="/segment")
print(json.dumps([(part["label"], part["image"]) for part in answer["annotations"]]))
"""


def test_gradio_marks_the_classes(made: Path, tmp_path: Path) -> None:
    """In a process of its own, as gradio leaves sockets and an event loop open."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed: make gradio-check")
    bundle, scene = made / "deeplab-miniature", made / "scenes" / "scene-3012.png"
    more = {"BUNDLE": str(bundle), "GRADIO_TEMP_DIR": str(tmp_path), "GRADIO_ANALYTICS_ENABLED": "False"}
    done = subprocess.run(
        [sys.executable, "-c", ASK_GRADIO, scene],
        cwd=EXAMPLES,
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    masks = {name: np.array(Image.open(path).convert("RGBA"))[..., 3] > 0 for name, path in json.loads(done.stdout)}
    with runtime.load(bundle) as segmenter:
        labels = segmenter(runtime.read_image(scene))
        classes = segmenter.bundle.manifest.classes
    assert set(masks) == {classes[label] for label in np.unique(labels)}
    for name, mask in masks.items():
        assert (mask == (labels == classes.index(name))).all()
