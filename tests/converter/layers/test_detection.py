"""DetectionOutput and Yolov3DetectionOutput: against real Caffe, against loops, and with ties in GCC's order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atrous.converter import export_onnx, read_net, run_blobs, to_torch
from atrous.converter.modules.sorting import sort_as_cpp
from atrous.errors import ExportError, NetError

from .converting import Twin, check_case, net_text, random_array


@pytest.mark.parametrize("case", ["ssd-detection", "ssd-detection-corner", "ssd-detection-none"])
def test_recorded(goldens: Path, case: str) -> None:
    outcome = check_case(goldens, case)
    assert (outcome.torch, outcome.onnx) == ("passed", "passed"), outcome.detail


def test_sort_leaves_ties_as_gcc_does() -> None:
    """The result of libstdc++ 12's `std::sort` on these, comparing scores only."""
    equal = sort_as_cpp([0.0] * 20)
    assert equal == [10, 19, 18, 17, 16, 15, 14, 13, 12, 11, 0, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    scores = [float((7 * i) % 3) for i in range(24)]
    expected = [23, 2, 20, 5, 17, 8, 14, 11, 1, 22, 19, 16, 13, 10, 7, 4, 12, 15, 9, 18, 6, 21, 3, 0]
    assert sort_as_cpp(scores) == expected
    assert sort_as_cpp([0.0] * 16) == list(range(16))
    assert sort_as_cpp([]) == []


def test_sort_sorts() -> None:
    random = np.random.default_rng(0)
    for count in (1, 15, 17, 100, 1000):
        for kinds in (2, 5, 10**6):
            scores = random.integers(0, kinds, count).astype(float).tolist()
            order = sort_as_cpp(scores)
            assert sorted(order) == list(range(count))
            assert [scores[i] for i in order] == sorted(scores, reverse=True)


PRIORS = np.float32([[0.1, 0.1, 0.3, 0.3], [0.12, 0.1, 0.32, 0.3], [0.5, 0.5, 0.9, 0.9], [0.1, 0.1, 0.9, 0.9]])


def detect(
    param: str, scores: Any, locations: Any = None, priors: Any = PRIORS, sets: int = 1, onnx: bool = True
) -> np.ndarray[Any, Any]:
    """The rows of torch, which those of ONNX Runtime must equal."""
    count = len(priors)
    scores = np.asarray(scores, np.float32).reshape(1, -1)
    locations = np.zeros((1, count * 4 * sets), np.float32) if locations is None else locations
    shapes = {"loc": locations.shape, "conf": scores.shape, "priors": (1, 2, count * 4)}
    layer = 'type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "priors" top: "y"'
    if "visualize" in param:
        layer, shapes = f'{layer} bottom: "data"', shapes | {"data": (1, 3, 8, 8)}
    text = net_text(f"{layer} detection_output_param {{ {param} }}", **shapes)
    both = np.stack([priors, np.tile(np.float32([0.1, 0.1, 0.2, 0.2]), (count, 1))]).reshape(1, 2, -1)
    inputs = {"loc": locations, "conf": scores, "priors": both}
    if "data" in shapes:
        inputs["data"] = np.zeros(shapes["data"], np.float32)
    if onnx:
        return Twin(text).run(**inputs)["y"][0, 0]
    return run_blobs(to_torch(read_net(text)), inputs)["y:y"][0, 0]


SCORES = [[0.1, 0.9], [0.2, 0.8], [0.4, 0.6], [0.5, 0.5]]


def test_suppression_by_overlap() -> None:
    """The first two boxes overlap by 0.82, the last covers all others less than half."""
    rows = detect("num_classes: 2 nms_param { nms_threshold: 0.5 }", SCORES)
    np.testing.assert_allclose(rows[:, 2], [0.9, 0.6, 0.5])
    np.testing.assert_allclose(rows[:, 3:], PRIORS[[0, 2, 3]], atol=1e-6)
    assert len(detect("num_classes: 2 nms_param { nms_threshold: 0.9 }", SCORES)) == 4


def test_the_image_to_draw_on_changes_nothing() -> None:
    """SSD's nets for a webcam have it as a fourth bottom."""
    param = "num_classes: 2 nms_param { nms_threshold: 0.5 }"
    np.testing.assert_array_equal(detect(f"{param} visualize: true", SCORES), detect(param, SCORES))


def test_eta_tightens_the_threshold_after_each_box() -> None:
    """0.82 is below 0.9, not below 0.9 * 0.85."""
    kept = detect("num_classes: 2 nms_param { nms_threshold: 0.9 eta: 0.85 }", SCORES, onnx=False)
    np.testing.assert_allclose(kept[:, 2], [0.9, 0.6, 0.5])


@pytest.mark.parametrize(
    ("param", "scores"),
    [
        ("confidence_threshold: 0.6", [0.9, 0.8]),
        ("nms_param { nms_threshold: 0.9 top_k: 3 }", [0.9, 0.8, 0.6]),
        ("keep_top_k: 1", [0.9]),
        ("keep_top_k: 0", []),
        ("background_label_id: 1", [0.5, 0.4, 0.2, 0.1]),
        ("background_label_id: -1", [0.5, 0.4, 0.2, 0.1, 0.9, 0.8, 0.6, 0.5]),
    ],
)
def test_what_is_left_out(param: str, scores: list[float]) -> None:
    if "nms_param" not in param:
        param += " nms_param { nms_threshold: 0.9 }"
    rows = detect(f"num_classes: 2 {param}", SCORES)
    if not scores:
        np.testing.assert_array_equal(rows, [[0, -1, -1, -1, -1, -1, -1]])
    else:
        np.testing.assert_allclose(rows[:, 2], scores)


#: half the size of the first prior, 0.2 by 0.2, under the codes 0.3 and 0.4
WIDE, HIGH = 0.1 * np.exp(0.3), 0.1 * np.exp(0.4)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("CORNER", [0.2, 0.3, 0.6, 0.7]),
        ("CENTER_SIZE", [0.22 - WIDE, 0.24 - HIGH, 0.22 + WIDE, 0.24 + HIGH]),
        ("CORNER_SIZE", [0.1 + 0.2 * 0.1, 0.1 + 0.2 * 0.2, 0.3 + 0.2 * 0.3, 0.3 + 0.2 * 0.4]),
    ],
)
def test_codes_without_variance(code: str, expected: list[float]) -> None:
    locations = np.float32([[0.1, 0.2, 0.3, 0.4]])
    param = f"num_classes: 2 code_type: {code} variance_encoded_in_target: true"
    (row,) = detect(param, [[0.1, 0.9]], locations, PRIORS[:1])
    np.testing.assert_allclose(row[3:], expected, atol=1e-6)


def test_variance_scales_the_codes() -> None:
    locations = np.float32([[0.1, 0.2, 0.3, 0.4]])
    (row,) = detect("num_classes: 2", [[0.1, 0.9]], locations, PRIORS[:1])
    np.testing.assert_allclose(row[3:], [0.11, 0.12, 0.36, 0.38], atol=1e-6)
    (row,) = detect("num_classes: 2 clip: true", [[0.1, 0.9]], locations * 100, PRIORS[:1])
    assert row[3:].max() == 1


def test_locations_of_each_class() -> None:
    """Each prior has one box per class, in order of class."""
    locations = np.zeros((1, 4, 3, 4), np.float32)
    locations[0, :, 2] = 1
    rows = detect(
        "num_classes: 3 share_location: false variance_encoded_in_target: true nms_param { nms_threshold: 0.9 }",
        np.tile([0.1, 0.5, 0.6], (4, 1)),
        locations.reshape(1, -1),
        sets=3,
    )
    np.testing.assert_allclose(rows[rows[:, 1] == 1][:, 3:], PRIORS, atol=1e-6)
    np.testing.assert_allclose(rows[rows[:, 1] == 2][:, 3:], PRIORS + 1, atol=1e-6)


def test_a_box_without_bounds_keeps_no_other() -> None:
    """Its overlap is NaN, and Caffe keeps a box only if the overlap is at most the threshold."""
    priors = np.concatenate([np.float32([[-np.inf, -np.inf, np.inf, np.inf]]), PRIORS])
    rows = detect("num_classes: 2 nms_param { nms_threshold: 0.9 }", [[0, 1.0], *SCORES], priors=priors, onnx=False)
    np.testing.assert_allclose(rows[:, 2], [1.0, 0.9, 0.8, 0.6, 0.5])
    twice = np.concatenate([priors[:1], priors])
    scores = [[0, 1.0], [0, 0.95], *SCORES]
    rows = detect("num_classes: 2 nms_param { nms_threshold: 0.9 }", scores, priors=twice, onnx=False)
    np.testing.assert_allclose(rows[:, 2], [1.0, 0.9, 0.8, 0.6, 0.5])


@pytest.mark.parametrize(
    ("param", "words"),
    [
        ("", "num_classes"),
        ("num_classes: 3", "scores"),
        ("num_classes: 2 share_location: false", "locations"),
        ("num_classes: 2 nms_param { nms_threshold: -1 }", "nms_threshold"),
        ("num_classes: 2 nms_param { eta: 0 }", "eta"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(param: str, words: str) -> None:
    with pytest.raises(NetError, match=words):
        detect(param, SCORES)


def test_onnx_has_no_form_of_eta() -> None:
    layer = (
        'type: "DetectionOutput" bottom: "l" bottom: "c" bottom: "p" top: "y" '
        "detection_output_param { num_classes: 2 nms_param { eta: 0.5 } }"
    )
    net = read_net(net_text(layer, l=(1, 16), c=(1, 8), p=(1, 2, 16)))
    with pytest.raises(ExportError, match='layer "y": DetectionOutput with eta below 1 has no ONNX form'):
        export_onnx(net, to_torch(net))


def test_inverted_boxes_overlap_nothing() -> None:
    """Corner codes may put the right end before the left one."""
    locations = np.float32([[0, 0, 0, 0], [0.9, 0, -0.9, 0], [0, 0, 0, 0], [0.5, 0.5, -0.5, -0.5]]).reshape(1, -1)
    rows = detect("num_classes: 2 nms_param { nms_threshold: 0.1 } variance_encoded_in_target: true", SCORES, locations)
    np.testing.assert_allclose(rows[:, 2], [0.9, 0.8, 0.6, 0.5])


def test_boxes_of_infinite_area() -> None:
    """Their overlap is NaN: Caffe keeps the first alone. One of infinite width without a height overlaps nothing."""
    wide, endless = [0, 0, 1e4, -1e6], [0, 0, 1e4, 1e4]
    locations = np.float32([endless, wide, endless, [0, 0, 0, 0]]).reshape(1, -1)
    rows = detect("num_classes: 2 nms_param { nms_threshold: 0.4 } code_type: CENTER_SIZE", SCORES, locations)
    np.testing.assert_allclose(rows[:, 2], [0.9, 0.8, 0.5])
    np.testing.assert_array_equal(rows[0, 3:], np.float32([-np.inf, -np.inf, np.inf, np.inf]))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "param",
    [
        "nms_param { nms_threshold: 0.45 top_k: 20 } keep_top_k: 15 confidence_threshold: 0.2",
        "nms_param { nms_threshold: 0.3 } keep_top_k: 200 share_location: false code_type: CENTER_SIZE",
        "nms_param { nms_threshold: 0.6 top_k: 100 } keep_top_k: -1 background_label_id: 2 code_type: CORNER_SIZE",
        "nms_param { nms_threshold: 1.5 top_k: 7 } keep_top_k: 9 share_location: false background_label_id: -1",
        "confidence_threshold: 2 keep_top_k: 5",
    ],
)
def test_random_detections_are_equal_in_onnx(batch: int, param: str) -> None:
    """Rounded scores have many ties, of which Caffe keeps the first."""
    random = np.random.default_rng(3)
    count, classes = 40, 4
    sets = classes if "share_location: false" in param else 1
    corner, size = random.uniform(0, 0.7, (count, 2)), random.uniform(0.1, 0.4, (count, 2))
    priors = np.concatenate([corner, corner + size], 1).astype(np.float32)
    layer = 'type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "priors" top: "y"'
    shapes = {"loc": (batch, count * 4 * sets), "conf": (batch, count * classes), "priors": (1, 2, count * 4)}
    twin = Twin(net_text(f"{layer} detection_output_param {{ num_classes: {classes} {param} }}", **shapes))
    output = twin.model.graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_value or dim.dim_param for dim in output] == [1, 1, "y_2", 7]
    for items in {batch, min(batch, 2)}:  # of a batch of 1, the priors would vary, too
        scores = random.permutation(items * count * classes).reshape(items, -1) / 1000
        scores[:, :40] = scores[:, :40].round(1) if "keep_top_k: 200" in param or "-1 b" in param else scores[:, :40]
        locations = random.normal(0, 0.3, (items, count * 4 * sets))
        both = np.stack([priors, np.full_like(priors, 0.1)]).reshape(1, 2, -1)
        rows = twin.run(1e-5, loc=locations, conf=scores, priors=both)["y"][0, 0]
        assert set(rows[:, 0]) == set(range(items))


YOLO = (
    'type: "Yolov3DetectionOutput" bottom: "a" bottom: "b" top: "y" yolov3_detection_output_param { num_classes: 3 '
    "num_box: 2 confidence_threshold: 0.3 nms_threshold: 0.4 mask_group_num: 2 mask: 2 mask: 3 mask: 0 mask: 1 "
    "biases: 10 biases: 13 biases: 16 biases: 30 biases: 33 biases: 23 biases: 30 biases: 61 "
    "anchors_scale: 32 anchors_scale: 16 }"
)


def yolo_by_hand(maps: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Decode one image cell by cell, then run suppression over all classes together."""
    anchors = [(10, 13), (16, 30), (33, 23), (30, 61)]
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    rows = []
    for m, mask, stride in zip(maps, ((2, 3), (0, 1)), (32, 16), strict=True):
        side = m.shape[-1]
        for cell in range(side * side):
            i, j = cell // side, cell % side
            for n, number in enumerate(mask):
                v = m[0, n * 8 : n * 8 + 8, i, j].astype(np.float64)
                x, y = (j + sigmoid(v[0])) / side, (i + sigmoid(v[1])) / side
                w = np.exp(v[2]) * anchors[number][0] / (side * stride)
                h = np.exp(v[3]) * anchors[number][1] / (side * stride)
                for c in range(3):
                    score = sigmoid(v[4]) * sigmoid(v[5 + c])
                    if score > 0.3:
                        rows.append([0, c + 1, score, x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    rows.sort(key=lambda row: -row[2])
    kept: list[list[float]] = []
    for row in rows:
        overlaps = []
        for other in kept:
            size = [max(0, min(row[k + 2], other[k + 2]) - max(row[k], other[k])) for k in (3, 4)]
            areas = [(r[5] - r[3]) * (r[6] - r[4]) for r in (row, other)]
            overlaps.append(size[0] * size[1] / (sum(areas) - size[0] * size[1]))
        if all(overlap < 0.4 for overlap in overlaps):
            kept.append(row)
    return np.array(kept)


def test_yolov3() -> None:
    maps = [random_array(1, 16, 3, 3), random_array(1, 16, 6, 6, seed=1)]
    twin = Twin(net_text(YOLO, a=maps[0].shape, b=maps[1].shape))
    y = twin.run(**dict(zip("ab", maps, strict=True)))["y"][0, 0]
    np.testing.assert_allclose(y, yolo_by_hand(maps), rtol=1e-4, atol=1e-5)
    nothing = twin.run(**dict(zip("ab", [m * 0 - 9 for m in maps], strict=True)))["y"][0, 0]
    np.testing.assert_array_equal(nothing, [[0, -1, -1, -1, -1, -1, -1]])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("mask_group_num: 2", "mask_group_num: 3", "mask_group_num"),
        ("mask: 3", "mask: 4", "no anchor"),
        ("num_box: 2", "num_box: 0", "num_box"),
        ("num_classes: 3", "num_classes: 4", "channels"),
        ("num_classes: 3", "", "num_classes"),
    ],
)
def test_yolov3_parameters_that_do_not_fit(old: str, new: str, words: str) -> None:
    with pytest.raises(NetError, match=words):
        read_net(net_text(YOLO.replace(old, new, 1), a=(1, 16, 3, 3), b=(1, 16, 6, 6)))


def yolo2_by_hand(maps: list[np.ndarray[Any, Any]], threshold: float) -> np.ndarray[Any, Any]:
    """MobileNet-YOLO's yolo_detection_output_layer.cpp: the best class of each box, suppression over all together."""
    anchors, sigmoid = [(0.73, 0.87), (2.42, 2.65)], lambda v: 1 / (1 + np.exp(-v))
    rows = []
    for m in maps:
        side = m.shape[-1]
        for j, i, n in np.ndindex(side, side, 2):
            v = m[0, n * 8 : n * 8 + 8, j, i].astype(np.float64)
            share = np.exp(v[5:] - v[5:].max())
            score = sigmoid(v[4]) * share.max() / share.sum()
            if score >= threshold:
                x, y = (i + sigmoid(v[0])) / side, (j + sigmoid(v[1])) / side
                w, h = np.exp(v[2]) * anchors[n][0] / side, np.exp(v[3]) * anchors[n][1] / side
                rows.append([0, share.argmax() + 1, score, x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    rows.sort(key=lambda row: -row[2])
    kept: list[list[float]] = []
    for row in rows:
        for other in kept:
            size = [max(0, min(row[k + 2], other[k + 2]) - max(row[k], other[k])) for k in (3, 4)]
            areas = [(r[5] - r[3]) * (r[6] - r[4]) for r in (row, other)]
            if size[0] * size[1] / (sum(areas) - size[0] * size[1]) >= 0.4:
                break
        else:
            kept.append(row)
    return np.array(kept)


YOLO2 = (
    'type: "YoloDetectionOutput" bottom: "a" bottom: "b" top: "y" yolo_detection_output_param { num_classes: 3 '
    "num_box: 2 confidence_threshold: 0.2 nms_threshold: 0.4 biases: 0.73 biases: 0.87 biases: 2.42 biases: 2.65 "
    'label_map_file: "labels.prototxt" }'
)


def test_yolov2() -> None:
    maps = [random_array(1, 16, 3, 3), random_array(1, 16, 6, 6, seed=1)]
    twin = Twin(net_text(YOLO2, a=maps[0].shape, b=maps[1].shape))
    y = twin.run(**dict(zip("ab", maps, strict=True)))["y"][0, 0]
    np.testing.assert_allclose(y, yolo2_by_hand(maps, 0.2), rtol=1e-4, atol=1e-5)
    nothing = twin.run(**dict(zip("ab", [m * 0 - 9 for m in maps], strict=True)))["y"][0, 0]
    np.testing.assert_array_equal(nothing, [[0, -1, -1, -1, -1, -1, -1]])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("biases: 2.65", "", "3 biases; give 4"),
        ("num_box: 2", "num_box: 3", "6, a width"),
        ("num_classes: 3", "num_classes: 4", "channels"),
        ("num_classes: 3", "", "num_classes"),
    ],
)
def test_yolov2_parameters_that_do_not_fit(old: str, new: str, words: str) -> None:
    with pytest.raises(NetError, match=words):
        read_net(net_text(YOLO2.replace(old, new, 1), a=(1, 16, 3, 3), b=(1, 16, 6, 6)))


def test_half_precision_runs() -> None:
    layer = (
        'type: "DetectionOutput" bottom: "l" bottom: "c" bottom: "p" top: "y" detection_output_param { num_classes: 2 }'
    )
    module = to_torch(read_net(net_text(layer, l=(1, 16), c=(1, 8), p=(1, 2, 16)))).half()
    with torch.no_grad():
        y = module(*(torch.zeros(shape, dtype=torch.float16) for shape in ((1, 16), (1, 8), (1, 2, 16))))
    assert y.dtype == torch.float16
