"""OpenCV as a third reader of a bundle: the installed one, and OpenCV 5 where $ATROUS_OPENCV names its Python."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.converter import export_onnx, read_net, run_blobs, to_torch
from atrous.converter.check import opencv as checked
from atrous.converter.check.opencv import FILES, verify_opencv
from atrous.converter.check.opencv_process import INTERPRETER, OpenCv, OpenCvError, shorten
from atrous.errors import BackendError, MissingDependencyError, VerificationError, VerificationInputError
from atrous.scripts.main import main
from tools.recordings import find_recordings

from ..nets import conv, data, layer
from ..test_read import write_net

cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
OPENCV_4 = cv2.__version__.startswith("4.")

# padded averages, whose divisor OpenCV 4 takes without the padding; a padded 1 x 1 convolution, in
# which OpenCV 5 reads outside the plane
NET = (
    data(1, 3, 40, 48) + conv("c", "data", "c", 8, 3, "pad: 1")
    + layer("Pooling", "p", "c", "p", "pooling_param { pool: AVE kernel_size: 3 stride: 1 pad: 1 }")
    + layer("LRN", "n", "p", "n", "lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }")
    + conv("s", "n", "s", 5, 1, "pad: 1") + layer("Crop", "o", ["s", "data"], "o", "crop_param { offset: 1 }")
)  # fmt: skip


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundles "open" and "fixed"."""
    folder = tmp_path_factory.mktemp("opencv")
    write_net(folder, NET, "V2")
    files = [str(folder / "net.prototxt"), str(folder / "net.caffemodel")]
    common = ["convert", *files, "--mean", "104,117,123", "--no-verify"]
    assert main([*common, "-o", str(folder / "open")]) == 0
    assert main([*common, "-o", str(folder / "fixed"), "--fixed", "40x48"]) == 0
    return folder


def test_fixed_form_in_the_installed_opencv(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(INTERPRETER, raising=False)
    reports = verify_opencv(bundles / "fixed")
    assert [report.stage for report in reports][-1] == f"deploy.onnx in OpenCV {cv2.__version__.split('-')[0]}"
    for report in reports:
        assert report.passed, report.describe()


@pytest.mark.skipif(not OPENCV_4, reason="for OpenCV 4")
def test_opencv_4_gets_no_open_sizes(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(INTERPRETER, raising=False)
    with pytest.raises(VerificationInputError, match=r"OpenCV 4.* --fixed HxW, or install OpenCV 5"):
        verify_opencv(bundles / "open")


def test_opencv_5_reads_both_files(bundles: Path) -> None:
    python = os.environ.get(INTERPRETER)
    if not python:
        pytest.skip(f"set {INTERPRETER} to a Python with opencv-python-headless>=5")
    reports = verify_opencv(bundles / "open", sizes=[(40, 48), (33, 51)])
    assert [report.stage.split()[0] for report in reports] == [name for name in FILES for _ in range(2)]
    for report in reports:
        assert report.passed, report.describe()


def test_copied_axis_behind_another_reshape() -> None:
    """OpenCV 5 joins two Reshape, and takes a 0 of the second from the shape before the first."""
    python = os.environ.get(INTERPRETER)
    if not python:
        pytest.skip(f"set {INTERPRETER} to a Python with opencv-python-headless>=5")
    text = data(1, 6, 5, 5) + layer("ShuffleChannel", "s", "data", "s", "shuffle_channel_param { group: 2 }")
    text += layer("Reshape", "r", "s", "r", "reshape_param { shape { dim: 0 dim: 0 dim: -1 } }")
    module = to_torch(net := read_net(text))
    feeds = {"data": np.random.default_rng(0).standard_normal((1, 6, 5, 5), np.float32)}
    with OpenCv(python) as opencv:
        found = opencv.run_onnx(export_onnx(net, module).SerializeToString(), feeds, ["r"])
    np.testing.assert_array_equal(found["r"], run_blobs(module, feeds)["r:r"])


@pytest.mark.parametrize("case", ["ssd-detection", "ssd-detection-corner"])
def test_detection_uses_what_opencv_5_has(goldens: Path, case: str) -> None:
    """It has no Compress, rejects a ConstantOfShape without its value, and keeps one of all boxes without area."""
    (recording,) = find_recordings(goldens, "tiny", case)
    net = recording.read_net()
    model = export_onnx(net, to_torch(net))
    kinds = {node.op_type for node in model.graph.node}
    assert "NonMaxSuppression" in kinds
    assert "Compress" not in kinds
    assert all(node.attribute for node in model.graph.node if node.op_type == "ConstantOfShape")
    python = os.environ.get(INTERPRETER)
    if python:
        inputs = recording.inputs()
        with OpenCv(python) as opencv:
            found = opencv.run_onnx(model.SerializeToString(), inputs, [blob.name for blob in net.outputs])
        expected = run_blobs(to_torch(net), inputs)
        for key, blob in net.recorded_tops():
            if blob in net.outputs:
                np.testing.assert_allclose(found[blob.name], expected[key], atol=1e-5)


def test_differences_and_refusals_are_reported(
    bundles: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(INTERPRETER, raising=False)
    run = OpenCv.run_onnx

    def run_off(self: OpenCv, content: bytes, inputs: Any, outputs: Any) -> Any:
        return {name: array + 1 for name, array in run(self, content, inputs, outputs).items()}

    monkeypatch.setattr(OpenCv, "run_onnx", run_off)
    assert main(["verify", str(bundles / "fixed"), "--opencv"]) == 1
    assert "differs from ONNX Runtime first at scores" in capsys.readouterr().out.replace("\n", " ")
    monkeypatch.setattr(OpenCv, "run_onnx", run)
    monkeypatch.setattr(checked, "_TIMEOUT_S", 1e-6)
    monkeypatch.setattr(OpenCv, "version", lambda self: "4.0")
    with pytest.raises(VerificationError, match=r"deploy.onnx: OpenCV 4.0 cannot run it: takes more than"):
        verify_opencv(bundles / "fixed")


def test_python_without_opencv(bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv(INTERPRETER, str(python))
    with pytest.raises(MissingDependencyError, match=r"pip install 'opencv-python-headless>=5', or set ATROUS_OPENCV"):
        verify_opencv(bundles / "fixed")
    for wrong in ("/bin/true", str(tmp_path / "absent")):
        monkeypatch.setenv(INTERPRETER, wrong)
        with pytest.raises(BackendError, match=r"ATROUS_OPENCV: .* does not run as a Python"):
            verify_opencv(bundles / "fixed")


def test_file_that_is_no_onnx() -> None:
    with OpenCv() as opencv, pytest.raises(OpenCvError):
        opencv.run_onnx(b"not a graph", {"x": np.zeros((1, 1), np.float32)}, ["y"])


def test_opencvs_message_in_one_line() -> None:
    place = "OpenCV(4.14.0) /io/net_impl.cpp:1193: error: (-2:Unspecified error)"
    raw = f"{place} in function 'void f(int)'\n> a > b:\n>     'c' is 1\n"
    assert shorten(raw) == "a > b: 'c' is 1"
