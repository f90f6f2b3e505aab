"""Prior boxes against real Caffe, against loops over every cell, and at sizes known only at run time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.converter import read_net
from atrous.errors import NetError

from .converting import Twin, assert_exports, assert_matches, net_text


@pytest.mark.parametrize("case", ["ssd-priorbox", "ssd-priorbox-step"])
def test_recorded(goldens: Path, case: str) -> None:
    assert_matches(goldens, case)


def prior_text(
    param: str, features: tuple[int, int] = (3, 4), image: tuple[int, int] = (30, 50), kind: str = "PriorBox"
) -> str:
    layer = f'type: "{kind}" bottom: "f" bottom: "i" top: "y" prior_box_param {{ {param} }}'
    return net_text(layer, f=(2, 5, *features), i=(2, 3, *image))


def run(twin: Twin, features: tuple[int, int] = (3, 4), image: tuple[int, int] = (30, 50)) -> np.ndarray[Any, Any]:
    return twin.run(f=np.zeros((2, 5, *features)), i=np.zeros((2, 3, *image)))["y"]


def boxes_by_hand(
    sizes: list[tuple[float, float]], features: tuple[int, int], image: tuple[int, int], step: Any, offset: float
) -> np.ndarray[Any, Any]:
    rows = []
    for h in range(features[0]):
        for w in range(features[1]):
            y, x = (h + offset) * step[0], (w + offset) * step[1]
            for width, height in sizes:
                corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
                rows += [corners[0] / image[1], corners[1] / image[0], corners[2] / image[1], corners[3] / image[0]]
    return np.array(rows)


@pytest.mark.parametrize(
    ("param", "sizes"),
    [
        ("min_size: 9.9", [(9, 9)]),
        ("min_size: 9 max_size: 16.7", [(9, 9), (12, 12)]),
        ("min_size: 9 aspect_ratio: 4", [(9, 9), (18, 4.5), (4.5, 18)]),
        ("min_size: 9 aspect_ratio: 4 flip: false", [(9, 9), (18, 4.5)]),
        (
            "min_size: 9 aspect_ratio: 1 aspect_ratio: 4 aspect_ratio: 4 aspect_ratio: 0.25",
            [(9, 9), (18, 4.5), (4.5, 18)],
        ),
        ("min_size: 4 min_size: 9 max_size: 16 max_size: 25", [(4, 4), (8, 8), (9, 9), (15, 15)]),
    ],
)
def test_boxes_of_a_cell(param: str, sizes: list[tuple[float, float]]) -> None:
    y = run(Twin(prior_text(param)))
    expected = boxes_by_hand(sizes, (3, 4), (30, 50), (10, 12.5), 0.5)
    assert y.shape == (1, 2, expected.size)
    np.testing.assert_allclose(y[0, 0], expected, atol=1e-6)
    np.testing.assert_allclose(y[0, 1], 0.1, rtol=1e-6)


def test_step_offset_image_size_and_variances() -> None:
    param = "min_size: 10 step_h: 7 step_w: 9 offset: 0.25 img_h: 60 img_w: 80 "
    y = run(Twin(prior_text(param + "variance: 0.1 variance: 0.2 variance: 0.3 variance: 0.4")))
    np.testing.assert_allclose(y[0, 0], boxes_by_hand([(10, 10)], (3, 4), (60, 80), (7, 9), 0.25), atol=1e-6)
    np.testing.assert_allclose(y[0, 1].reshape(-1, 4), np.tile([0.1, 0.2, 0.3, 0.4], (12, 1)), rtol=1e-6)
    clipped = run(Twin(prior_text("min_size: 40 clip: true")))
    whole = boxes_by_hand([(40, 40)], (3, 4), (30, 50), (10, 12.5), 0.5)
    np.testing.assert_allclose(clipped[0, 0], whole.clip(0, 1), atol=1e-6)


def test_clustered_boxes_are_not_cut_to_pixels() -> None:
    y = run(Twin(prior_text("width: 9.9 width: 3 height: 4.5 height: 8 step: 5", kind="PriorBoxClustered")))
    np.testing.assert_allclose(y[0, 0], boxes_by_hand([(9.9, 4.5), (3, 8)], (3, 4), (30, 50), (5, 5), 0.5), atol=1e-6)


def test_dense_boxes_of_faceboxes() -> None:
    """fixed_size 32, density 4: centers at -12, -4, 4, 12 around the cell's; outer sides are clipped to the image."""
    y = run(Twin(prior_text("fixed_size: 32 fixed_size: 9 density: 4 density: 2")))[0, 0].reshape(3, 4, 20, 4)
    centers = [(x, y) for y in (-12, -4, 4, 12) for x in (-12, -4, 4, 12)]
    # int(9 / 2) = 4 apart, from -(9 // 2) + 2
    small = [(x, y) for y in (-2, 2) for x in (-2, 2)]
    for h in range(3):
        for w in range(4):
            expected = []
            for (x, v), size in [*((c, 32) for c in centers), *((c, 9) for c in small)]:
                cx, cy = (w + 0.5) * 12.5 + x, (h + 0.5) * 10 + v
                low = [max(0, (cx - size / 2) / 50), max(0, (cy - size / 2) / 30)]
                high = [min(1, (cx + size / 2) / 50), min(1, (cy + size / 2) / 30)]
                expected.append(low + high)
            np.testing.assert_allclose(y[h, w], expected, atol=1e-6)


@pytest.mark.parametrize(
    "param",
    [
        "min_size: 9 max_size: 16 aspect_ratio: 2 clip: true",
        "min_size: 9 step: 8",
        "fixed_size: 8 density: 2",
        "min_size: 9 img_size: 40",
    ],
)
def test_any_size_and_torch_export(param: str) -> None:
    """Features a third of the image: the ONNX graph computes the boxes from the sizes it meets."""
    text = f"""layer {{ name: "i" type: "Input" top: "i" input_param {{ shape {{ dim: 2 dim: 3 dim: 30 dim: 36 }} }} }}
layer {{ name: "f" type: "Pooling" bottom: "i" top: "f" pooling_param {{ kernel_size: 3 stride: 3 }} }}
layer {{ name: "y" type: "PriorBox" bottom: "f" bottom: "i" top: "y" prior_box_param {{ {param} }} }}"""
    twin = Twin(text)
    runs = [{"i": np.zeros((n, 3, h, w))} for n, h, w in ((2, 30, 36), (3, 15, 33), (4, 63, 18))]
    for number in runs:
        twin.run(**number)
    assert_exports(twin, (0, 2, 3), *runs)


@pytest.mark.parametrize(
    ("param", "words"),
    [
        ("", "no min_size"),
        ("min_size: 0", "above 0"),
        ("min_size: 9 max_size: 9", "must be above min_size"),
        ("min_size: 9 max_size: 10 max_size: 11", "1 min_size and 2 max_size"),
        ("min_size: 9 variance: 0.1 variance: 0.2", "one variance or four"),
        ("min_size: 9 variance: 0", "above 0"),
        ("min_size: 9 step: 4 step_h: 4", "either step"),
        ("min_size: 9 step_h: 4", "both step_h and step_w"),
        ("min_size: 9 step: 0", "above 0"),
        ("min_size: 9 img_size: 4 img_h: 4", "either img_size"),
        ("fixed_size: 9", "1 fixed_size and 0 density"),
        ("fixed_size: 9 density: 0.5", "above 0"),
        ("fixed_size: 9 density: inf", "at most 1,000,000"),
        ("min_size: nan", "above 0"),
        ("fixed_size: 1e38 density: 1", "at most 1,000,000"),
        ("min_size: 9 aspect_ratio: -1", "above 0"),
        ("fixed_size: 9 density: 2 min_size: 9", "keep one kind"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(param: str, words: str) -> None:
    with pytest.raises(NetError, match=words):
        read_net(prior_text(param))


@pytest.mark.parametrize(
    "param",
    [
        "fixed_size: 9 density: 30000",
        "fixed_size: 9 density: 1 " * 1001,
        "min_size: 9 " * 1001,
        "min_size: 9 max_size: 16 " * 501,
        "min_size: 9 " + " ".join(f"aspect_ratio: {ratio}" for ratio in range(2, 3600)),
        "min_size: 9 " * 600 + " ".join(f"aspect_ratio: {ratio}" for ratio in range(2, 600)),
    ],
)
def test_a_short_file_cannot_ask_for_many_boxes(param: str) -> None:
    started = time.perf_counter()
    with pytest.raises(NetError, match="more than 1,000 boxes a cell"):
        read_net(prior_text(param))
    assert time.perf_counter() - started < 5


def test_clusters_need_widths_and_heights() -> None:
    with pytest.raises(NetError, match="1 width and 0 height"):
        read_net(prior_text("width: 9", kind="PriorBoxClustered"))
