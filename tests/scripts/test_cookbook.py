"""Runs the cookbook on the published nets with fewer channels and seeded weights, under the names of the pages."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.converter import read_net
from atrous.converter.check.opencv_process import INTERPRETER
from atrous.converter.files.writer import write_caffemodel
from atrous.scripts.main import main
from tools.run_readme import find_blocks

from ..converter.nets import random_weights

PAGES = Path(__file__).parents[2] / "docs" / "cookbook"
_PYTHON = re.compile(r"^```python ?(?P<note>\S*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
#: net of the corpus by the page's prototxt
NETS = {
    "MobileNetSSD_deploy.prototxt": "ssd-mobilenet-voc",
    "deploy.prototxt": "ssd-res10-face",
    "deploy_age.prototxt": "face-age",
    "deploy_gender.prototxt": "face-gender",
    "facial-landmarks-35-adas-0002.prototxt": "face-landmarks-omz",
    "hed.prototxt": "hed-deploy",
    "colorization_deploy_v2.prototxt": "colorization-v2",
    "pose.prototxt": "openpose-omz-human-pose",
    "fcn8s.prototxt": "fcn-voc-fcn8s",
    "pspnet50_ADE20K_473.prototxt": "pspnet-50-ade20k",
    "TVG_CRFRNN_new_deploy.prototxt": "crfrnn-new-deploy",
    "deeplab.prototxt": "deeplabv2-vgg16-aspp",
}


def write_files(corpus: Path, prototxt: str, caffemodel: str) -> None:
    source = corpus / NETS[prototxt]
    text = (source / json.loads((source / "source.json").read_text())["file"]).read_text(errors="replace")
    text = re.sub(r"(num_output|group)(\s*:\s*)(\d+)", _thin, text)
    Path(prototxt).write_text(text)
    net = read_net(text, variables={"NUM_LABELS": "21"}, input_shapes={})
    arrays = random_weights(net, scale=0.1)
    for layer in net.layers:
        if layer.type == "BatchNorm":
            arrays[layer.name] = [np.abs(array) for array in arrays[layer.name]]  # variances
    rows = [(layer.name, layer.type, arrays[layer.name]) for layer in net.layers if layer.name in arrays]
    write_caffemodel(Path(caffemodel), net.name or "net", rows)


def _thin(found: re.Match[str]) -> str:
    number = int(found[3])
    return f"{found[1]}{found[2]}{number // 16 if number >= 128 and number % 64 == 0 else number}"


@pytest.mark.parametrize("page", ["detection", "faces", "pictures", "segmentation"])
def test_page(page: str, shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    Image.fromarray(pixels).save("photo.jpg")
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    lines = "".join(block.commands for block in find_blocks(text) if not block.note).splitlines()
    for line in lines:
        words = shlex.split(line)[1:]
        if words[0] == "convert":
            write_files(shared_dir / "corpus", *words[1:3])
            words.append("--no-verify")
        assert main(words) == 0, line
    for found in _PYTHON.finditer(text):
        python = os.environ.get(INTERPRETER) if found["note"] else sys.executable
        if python:
            pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
            done = subprocess.run([python, "-c", found["body"]], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


#: a blank picture, then a code that OpenCV decodes with the help of both nets only
WECHAT_QR = """
import sys, cv2, numpy as np
code = cv2.QRCodeEncoder.create().encode("atrous")
image = np.full((480, 640), 255, np.uint8)
image[200:240, 300:340] = cv2.resize(code, (40, 40), interpolation=cv2.INTER_AREA)
image = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 0.5), cv2.COLOR_GRAY2BGR)
assert cv2.wechat_qrcode.WeChatQRCode().detectAndDecode(image)[0] == ()
reader = cv2.wechat_qrcode.WeChatQRCode(*sys.argv[1:])
assert reader.detectAndDecode(np.full_like(image, 255))[0] == ()
assert reader.detectAndDecode(image)[0] == ("atrous",)
"""


def test_wechat_qr(shared_dir: Path, tmp_path: Path) -> None:
    """The published nets in OpenCV 5's class."""
    python = os.environ.get(INTERPRETER)
    if not python:
        pytest.skip(f"set {INTERPRETER} to a Python with opencv-contrib-python-headless>=5")
    for name in ("detect", "sr"):
        files = [
            str(shared_dir / "weights" / "wechat-detect" / f"{name}.{kind}") for kind in ("prototxt", "caffemodel")
        ]
        assert main(["convert", *files, "-o", str(tmp_path / f"{name}.onnx"), "--no-verify"]) == 0
    command = [python, "-c", WECHAT_QR, str(tmp_path / "detect.onnx"), str(tmp_path / "sr.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
