"""Images resized for the network: against OpenCV's results, and the rule that chooses the size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous import runtime
from atrous.bundle.manifest import Preprocessing
from atrous.errors import InputError
from atrous.runtime.resizing import choose_sizing, resize_image, resize_labels
from atrous.runtime.upsampling import upsample_scores

from .bundles import CRF, MEAN, SIZE_RULE, expected_scores, make_image, make_manifest, write_bundle

SOURCE = [
    [168, 229, 184, 171, 238, 171, 20],
    [206, 245, 153, 204, 5, 37, 53],
    [213, 206, 192, 173, 6, 120, 63],
    [96, 236, 131, 118, 4, 87, 161],
    [124, 71, 42, 73, 237, 16, 194],
]
#: cv2.resize(SOURCE, (4, 3)) and cv2.resize(SOURCE, (9, 8)) by OpenCV 4.14
SMALLER = [[201, 175, 163, 67], [210, 190, 27, 84], [119, 74, 150, 129]]
LARGER = [
    [168, 209, 209, 181, 171, 223, 201, 121, 20],
    [185, 219, 207, 174, 185, 147, 123, 86, 34],
    [206, 230, 204, 166, 202, 49, 26, 46, 53],
    [211, 215, 201, 180, 183, 45, 55, 82, 60],
    [176, 202, 196, 169, 156, 39, 63, 104, 94],
    [103, 190, 190, 132, 121, 30, 51, 111, 155],
    [112, 133, 115, 83, 93, 126, 86, 91, 179],
    [124, 89, 58, 49, 73, 200, 114, 75, 194],
]
#: cv2.resize(EVEN, (3, 2)): shrinking by two is the mean of four pixels, rounded
EVEN = [
    [10, 103, 206, 13, 143, 2],
    [38, 71, 133, 118, 36, 98],
    [196, 35, 57, 146, 50, 179],
    [145, 104, 206, 53, 141, 33],
]
HALF = [[56, 118, 70], [120, 116, 101]]


@pytest.mark.parametrize(("source", "result"), [(SOURCE, SMALLER), (SOURCE, LARGER), (EVEN, HALF)])
def test_resize_as_opencv(source: Any, result: Any) -> None:
    expected = np.array(result)
    found = resize_image(np.array(source, np.uint8)[:, :, None], (expected.shape[0], expected.shape[1]))[..., 0]
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert (found == expected).mean() > 0.98


@pytest.mark.parametrize("size", [((1, 1), (3, 4)), ((7, 5), (1, 1)), ((1, 9), (3, 3)), ((37, 50), (51, 51))])
def test_resize_as_the_installed_opencv(size: Any) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    image = make_image(*size[0])
    difference = resize_image(image, size[1]).astype(int) - cv2.resize(image, size[1][::-1])
    assert np.abs(difference).max() <= 1
    assert (difference == 0).mean() > 0.98


def test_labels_are_resized_by_the_nearest_pixel() -> None:
    labels = np.array([[1, 2], [3, 4]], np.uint8)
    np.testing.assert_array_equal(resize_labels(labels, (4, 2)), [[1, 2], [1, 2], [3, 4], [3, 4]])
    np.testing.assert_array_equal(resize_labels(np.repeat(labels, 3, 1), (1, 2)), [[3, 4]])


def describe(made_for: Any = None, rule: Any = SIZE_RULE) -> Preprocessing:
    section = {"color_order": "BGR", "mean": MEAN, "scale": 1.0, "size_rule": rule, "made_for": made_for}
    return Preprocessing.model_validate_json(json.dumps(section))


def made_for(resize: bool, size: tuple[int, int] = (20, 40)) -> dict[str, Any]:
    return {"size": size, "source": "prototxt", "resize": resize}


@pytest.mark.parametrize(
    ("section", "options", "expected"),
    [
        (describe(), {}, (100, 50)),
        (describe(made_for(False)), {}, (100, 50)),
        (describe(made_for(True)), {}, (20, 40)),
        (describe(made_for(True)), {"size": "native"}, (100, 50)),
        (describe(made_for(True)), {"size": (7, 9)}, (7, 9)),
        (describe(made_for(True)), {"max_side": 40}, (40, 20)),
        (describe(made_for(True)), {"max_side": 1000}, (100, 50)),
        (describe(rule={"fixed": (8, 9)}), {}, (8, 9)),
        (describe(rule={"fixed": (8, 9)}), {"size": (8, 9)}, (8, 9)),
    ],
)
def test_size_of_the_network(section: Preprocessing, options: dict[str, Any], expected: tuple[int, int]) -> None:
    assert choose_sizing(section, **options).find_size(100, 50) == expected


@pytest.mark.parametrize(
    ("section", "options", "part"),
    [
        (describe(), {"size": (8, 9), "max_side": 5}, "exclude each other"),
        (describe(), {"size": (0, 9)}, "must have 1 to"),
        (describe(), {"size": (1 << 14, 1 << 14)}, "must have 1 to"),
        (describe(), {"max_side": 0}, "max_side must be"),
        (describe(rule={"fixed": (8, 9)}), {"size": (9, 9)}, "takes only 8x9"),
        (describe(rule={"fixed": (8, 9)}), {"max_side": 9}, "takes only 8x9"),
    ],
)
def test_sizes_that_are_refused(section: Preprocessing, options: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part):
        choose_sizing(section, **options)


def test_warning_where_the_network_sees_another_scale() -> None:
    native = choose_sizing(describe(made_for(False)))
    assert native.find_warning(40, 80) is None
    assert native.find_warning(10, 20) is None
    assert "2.1 times as large a side as the 20x40" in str(native.find_warning(42, 84))
    assert "2.2 times as small" in str(native.find_warning(9, 18))
    assert choose_sizing(describe(made_for(True))).find_warning(42, 84) is None
    assert choose_sizing(describe()).find_warning(4200, 8400) is None


@pytest.mark.parametrize("crf", [None, CRF])
@pytest.mark.parametrize("size", [(20, 24), (50, 70)])
def test_scores_come_back_to_the_image(tmp_path: Path, size: tuple[int, int], crf: Any) -> None:
    """The image is resized, its scores are computed and resized back, and the CRF sees the image itself."""
    image = make_image(33, 41)
    folder = write_bundle(tmp_path, crf=crf)
    small = expected_scores(resize_image(image, size))
    expected = upsample_scores(small, (33, 41), (33, 41), align_corners=False)
    with runtime.load(folder, size=size) as segmenter:
        np.testing.assert_allclose(segmenter.scores(image), expected, atol=1e-4)
        found = segmenter.segment(image)
        belief = segmenter.to_probabilities(segmenter.scores(image))
        refined = belief if crf is None else segmenter.refine(image, belief)
        np.testing.assert_array_equal(found.labels, refined.argmax(0))


@pytest.mark.parametrize("head", ["labels", "lowres"])
def test_other_heads_at_another_size(tmp_path: Path, head: str) -> None:
    image = make_image(33, 41)
    section = {**make_manifest({})["preprocessing"], "made_for": made_for(True, (17, 25))}
    with runtime.load(write_bundle(tmp_path, head, preprocessing=section)) as segmenter:
        raw = segmenter.run_network(segmenter.prepare(image))
        labels = segmenter(image)
    small = expected_scores(resize_image(image, (17, 25)))
    if head == "labels":
        np.testing.assert_array_equal(labels, resize_labels(small.argmax(0).astype(np.uint8), (33, 41)))
    else:
        whole = upsample_scores(raw, (17, 25), (17, 25))
        expected = upsample_scores(whole, (33, 41), (33, 41), align_corners=False)
        np.testing.assert_array_equal(labels, expected.argmax(0))
    assert labels.shape == (33, 41)
