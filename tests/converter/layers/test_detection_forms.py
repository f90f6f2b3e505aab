"""The forms of DetectionOutput give Caffe's rows.

`--detection standard` and `opencv` run in OpenVINO, and in OpenCV 5 where $ATROUS_OPENCV names its Python; `tensorrt`
runs in ONNX's reference evaluator, with NVIDIA's plug-in computed here as its documentation describes it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from atrous.converter import Net, export_onnx, read_net, run_blobs, to_torch
from atrous.converter.check.opencv_process import INTERPRETER, OpenCv
from atrous.errors import ExportError
from tools.recordings import find_recordings

from .converting import net_text
from .test_detection import YOLO, YOLO2
from .test_roi import PROPOSAL

Array = np.ndarray[Any, Any]
PRIORS, CLASSES = 30, 4


def run_in_openvino(content: bytes, inputs: dict[str, Array]) -> Array:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    core = openvino.Core()
    (rows,) = core.compile_model(core.read_model(content), "CPU")(inputs).values()
    return np.asarray(rows)


def run_in_opencv_5(content: bytes, inputs: dict[str, Array]) -> Array:
    python = os.environ.get(INTERPRETER)
    if not python:
        pytest.skip(f"set {INTERPRETER} to a Python with opencv-python-headless>=5")
    with OpenCv(python) as opencv:
        (rows,) = opencv.run_onnx(content, inputs, ["y"]).values()
    return rows


READERS = {"openvino": run_in_openvino, "opencv": run_in_opencv_5}


def read_detector(param: str, sets: int = 1) -> Net:
    shapes = {"l": (2, PRIORS * sets * 4), "c": (2, PRIORS * CLASSES), "p": (1, 2, PRIORS * 4)}
    text = net_text(f'type: "DetectionOutput" bottom: "l" bottom: "c" bottom: "p" top: "y" {param}', **shapes)
    return read_net(text)


def draw_detector(random: np.random.Generator, top_k: Sequence[int]) -> tuple[Net, dict[str, Array]]:
    shared = bool(random.integers(2))
    param = (
        f"num_classes: {CLASSES} background_label_id: {random.integers(-1, CLASSES)} "
        f"share_location: {str(shared).lower()} "
        f"code_type: {random.choice(['CORNER', 'CENTER_SIZE', 'CORNER_SIZE'])} confidence_threshold: 0.3 "
        f"variance_encoded_in_target: {str(bool(random.integers(2))).lower()} keep_top_k: {random.integers(5, 60)} "
        f"nms_param {{ nms_threshold: {random.choice([0.1, 0.45, 0.9])} top_k: {random.choice(top_k)} }} "
        f"clip: {str(bool(random.integers(2))).lower()}"
    )
    net = read_detector(f"detection_output_param {{ {param} }}", 1 if shared else CLASSES)
    low = random.uniform(0, 0.7, (PRIORS, 2))
    boxes = np.concatenate([low, low + random.uniform(0.1, 0.4, (PRIORS, 2))], 1)
    priors = np.stack([boxes, np.tile([0.1, 0.1, 0.2, 0.2], (PRIORS, 1))]).reshape(1, 2, -1)
    inputs = {"l": random.standard_normal(net.inputs[0].shape), "c": random.uniform(0, 1, net.inputs[1].shape)}
    return net, {name: array.astype(np.float32) for name, array in (inputs | {"p": priors}).items()}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("detection", ["standard", "opencv"])
@pytest.mark.parametrize("seed", range(12))
def test_rows_are_those_of_caffe(reader: str, detection: Any, seed: int) -> None:
    """In its order; the rows that OpenCV's node has behind them are 0."""
    net, inputs = draw_detector(np.random.default_rng(seed), [-1, 4, 20, 400])
    module = to_torch(net)
    expected = run_blobs(module, inputs)["y:y"].reshape(-1, 7)
    content = export_onnx(net, module, detection=detection).SerializeToString()
    rows = READERS[reader](content, inputs).reshape(-1, 7)
    assert len(expected) > 4
    np.testing.assert_allclose(rows[: len(expected)], expected, atol=2e-6)
    assert not rows[len(expected) :, 1:].any()


IN_TURN = """
import sys, cv2, numpy as np
net = cv2.dnn.readNetFromONNX(sys.argv[1])
stored = np.load(sys.argv[2])
results = []
for run in range(len({key.split(":")[0] for key in stored})):
    for key in stored:
        if key.startswith(f"{run}:"):
            net.setInput(stored[key], key.split(":")[1])
    results.append(net.forward())
np.savez(sys.argv[2], *results)
"""


@pytest.mark.parametrize("kind", ["DetectionOutput", "Yolov3DetectionOutput", "YoloDetectionOutput", "Proposal"])
def test_number_of_boxes_changes_from_run_to_run_in_opencv_5(tmp_path: Path, kind: str) -> None:
    """In arithmetic it keeps the number of its first run."""
    python = os.environ.get(INTERPRETER)
    if not python:
        pytest.skip(f"set {INTERPRETER} to a Python with opencv-python-headless>=5")
    random = np.random.default_rng(0)
    if kind == "DetectionOutput":
        net, inputs = draw_detector(random, [-1])
        runs = [inputs | {"c": np.where(inputs["c"] > least, inputs["c"], 0)} for least in (1, 0.9, 0, 0.8, 1, 0)]
    elif kind == "Proposal":
        layer = PROPOSAL.replace('"rois" top: "scores"', '"y"').replace("post_nms_topn: 12", "post_nms_topn: 40")
        net = read_net(net_text(layer, s=(1, 4, 5, 6), b=(1, 8, 5, 6), i=(1, 3)))
        codes = random.normal(0, 0.3, (1, 8, 5, 6)).astype(np.float32)
        scores, info = random.uniform(0.1, 1, (1, 4, 5, 6)).astype(np.float32), np.float32([[80, 96, 1]])
        runs = [{"s": scores, "b": codes * spread, "i": info} for spread in np.float32([4, 1, 0.1, 5, 4, 0.1])]
    else:
        net = read_net(net_text(YOLO if kind == "Yolov3DetectionOutput" else YOLO2, a=(1, 16, 3, 3), b=(1, 16, 6, 6)))
        maps = {blob.name: random.standard_normal(blob.shape).astype(np.float32) for blob in net.inputs}
        runs = [{name: array - less for name, array in maps.items()} for less in (9, 0.5, 0, 1, 9, 0)]
    module = to_torch(net)
    export_onnx(net, module, tmp_path / "net.onnx")
    arrays = {f"{number}:{name}": array for number, run in enumerate(runs) for name, array in run.items()}
    np.savez(tmp_path / "runs.npz", **arrays)  # type: ignore[arg-type]
    subprocess.run([python, "-c", IN_TURN, str(tmp_path / "net.onnx"), str(tmp_path / "runs.npz")], check=True)
    counts = set()
    with np.load(tmp_path / "runs.npz") as found:
        for run, rows in zip(runs, found.values(), strict=True):
            expected = run_blobs(module, run)["y:y"]
            counts.add(expected.shape)
            np.testing.assert_allclose(rows, expected, atol=1e-4)
    assert len(counts) > 2


class EfficientNMS_TRT(OpRun):  # noqa: N801  # the name of the operator
    """NVIDIA's plug-in: boxes (N, K, 4) or (N, K, classes, 4), scores (N, K, classes); four outputs."""

    op_domain = ""

    def _run(self, boxes: Array, scores: Array, **attributes: Any) -> tuple[Array, ...]:
        assert attributes["box_coding"] == attributes["score_activation"] == 0
        classes = scores.shape[2]
        boxes = np.broadcast_to(boxes[:, :, None] if boxes.ndim == 3 else boxes, (*scores.shape, 4))
        most = attributes["max_output_boxes"]
        number = np.zeros((len(boxes), 1), np.int32)
        found = np.zeros((len(boxes), most, 4), np.float32)
        best, labels = np.zeros((len(boxes), most), np.float32), np.zeros((len(boxes), most), np.int32)
        for image in range(len(boxes)):
            kept: list[tuple[int, int]] = []
            for place in np.argsort(-scores[image].ravel(), kind="stable")[:4096]:
                prior, label = divmod(int(place), classes)
                if label == attributes["background_class"] or scores[image].flat[place] < attributes["score_threshold"]:
                    continue
                rivals = [overlap(boxes[image, prior, label], boxes[image, p, c]) for p, c in kept if c == label]
                if max(rivals, default=0.0) <= attributes["iou_threshold"]:
                    kept.append((prior, label))
            for row, (prior, label) in enumerate(kept[:most]):
                found[image, row], best[image, row] = boxes[image, prior, label], scores[image, prior, label]
                labels[image, row] = label
            number[image] = min(len(kept), most)
        return number, found, best, labels


def overlap(one: Array, other: Array) -> float:
    """Intersection over union of two boxes (4,), corners x1 y1 x2 y2."""
    size = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None).prod()
    areas = [np.clip(box[2:] - box[:2], 0, None).prod() for box in (one, other)]
    return float(size / (sum(areas) - size)) if size else 0.0


@pytest.mark.parametrize("seed", range(12))
def test_rows_of_tensorrt(seed: int) -> None:
    """In order of score; the rows behind them have the label -1. The plug-in has no top_k."""
    net, inputs = draw_detector(np.random.default_rng(seed), [-1])
    module = to_torch(net)
    expected = run_blobs(module, inputs)["y:y"].reshape(-1, 7)
    model = export_onnx(net, module, detection="tensorrt")
    (rows,) = ReferenceEvaluator(model, new_ops=[EfficientNMS_TRT]).run(None, inputs)
    rows = rows.reshape(-1, 7)
    rows = rows[rows[:, 1] >= 0]
    order = np.lexsort((-rows[:, 2], rows[:, 1], rows[:, 0]))
    np.testing.assert_allclose(rows[order], expected, atol=2e-6)


@pytest.mark.parametrize("reader", READERS)
def test_rows_are_those_of_the_recording(goldens: Path, reader: str) -> None:
    (recording,) = find_recordings(goldens, "tiny", "ssd-detection")
    net = recording.read_net()
    content = export_onnx(net, to_torch(net), detection="opencv", rename={"det": "y"}).SerializeToString()
    expected = recording.blobs["det:det"].reshape(-1, 7)
    np.testing.assert_allclose(
        READERS[reader](content, recording.inputs()).reshape(-1, 7)[: len(expected)], expected, atol=1e-6
    )


@pytest.mark.parametrize("detection", ["opencv", "tensorrt"])
@pytest.mark.parametrize(
    "param",
    ["", "keep_top_k: 0", "keep_top_k: 9 nms_param { nms_threshold: 0 }", "keep_top_k: 9 nms_param { top_k: 0 }"],
)
def test_limits_that_no_engine_has(detection: Any, param: str) -> None:
    net = read_detector(f"detection_output_param {{ num_classes: {CLASSES} {param} }}")
    with pytest.raises(ExportError, match="in the form of an engine; use --detection standard"):
        export_onnx(net, to_torch(net), detection=detection)
