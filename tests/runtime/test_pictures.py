"""Pictures of labels: label PNGs keep their labels; overlays."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from atrous.bundle.palettes import VOC_COLORS
from atrous.errors import InputError
from atrous.runtime import pictures

LABELS = np.array([[0, 0, 1], [0, 0, 1]], np.uint8)


@pytest.mark.parametrize("values", [[0], [0, 1], [3, 4, 5], [0, 20, 21], [255, 0], range(256)])
def test_label_png_keeps_labels_and_colors(values: list[int]) -> None:
    labels = np.array([list(values)], np.uint8)
    with Image.open(io.BytesIO(pictures.encode_label_png(labels, VOC_COLORS))) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), labels)
        colors = np.array(image.convert("RGB"))
    np.testing.assert_array_equal(colors, pictures.color_labels(labels, VOC_COLORS))
    for label, color in zip(values, colors[0].tolist(), strict=True):
        assert label >= 21 or tuple(color) == VOC_COLORS[label]


def test_overlay() -> None:
    image = np.full((2, 3, 3), 100, np.uint8)
    found = pictures.make_overlay(image, LABELS, [(0, 0, 0), (200, 0, 0)])
    assert found[0, 0].tolist() == [100, 100, 100]  # black classes do not tint
    assert found[0, 1].tolist() == [255, 255, 255]  # the border
    assert found[1, 2].tolist() == [155, 45, 45]  # 0.45 * 100 + 0.55 * (200, 0, 0)


def test_overlay_of_another_size() -> None:
    with pytest.raises(InputError, match="same pixels"):
        pictures.make_overlay(np.zeros((3, 2, 3), np.uint8), LABELS, [(0, 0, 0)] * 2)


@pytest.mark.parametrize("labels", [LABELS.astype(np.int64), LABELS[None], LABELS[:0]])
def test_wrong_labels(labels: np.ndarray) -> None:
    with pytest.raises(InputError, match="H x W uint8"):
        pictures.encode_label_png(labels, VOC_COLORS)
    with pytest.raises(InputError, match="H x W uint8"):
        pictures.make_overlay(np.zeros((2, 3, 3), np.uint8), labels, VOC_COLORS)


def test_png_round_trip() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (9, 4, 3), np.uint8)[:, ::-1]
    with Image.open(io.BytesIO(pictures.encode_png(picture))) as image:
        np.testing.assert_array_equal(np.array(image), picture)


def test_overlay_styles() -> None:
    image = np.full((2, 3, 3), 100, np.uint8)
    palette = [(0, 0, 0), (200, 0, 0)]
    plain = pictures.make_overlay(image, LABELS, palette, pictures.OverlayStyle(opacity=0.25, outlines=False))
    np.testing.assert_array_equal(plain[LABELS == 1], [[125, 75, 75]] * int((LABELS == 1).sum()))
    np.testing.assert_array_equal(plain[LABELS == 0], [[100, 100, 100]] * int((LABELS == 0).sum()))
    for wrong in ({"opacity": 1.5}, {"opacity": -1}, {"format": "gif"}):
        with pytest.raises(InputError, match="must be"):
            pictures.OverlayStyle(**wrong)


@pytest.mark.parametrize("width", [40, 200, 1000])
def test_a_legend_lists_the_classes_that_occur(width: int) -> None:
    labels = np.zeros((50, width), np.uint8)
    labels[:, : width // 4] = 2
    labels[0, 0] = 3  # below a thousandth in the wider pictures
    palette = [(0, 0, 0), (9, 9, 9), (200, 0, 0), (0, 0, 200), (0, 200, 0)]
    picture = np.full((50, width, 3), 50, np.uint8)
    found = pictures.add_legend(picture, labels, palette, ["sky", "never", "car\x1b", "dot", "tree"])
    assert found.shape[1:] == (width, 3)
    np.testing.assert_array_equal(found[:50], picture)
    colors = {tuple(color) for color in found[50:].reshape(-1, 3).tolist()}
    assert {(0, 0, 0), (200, 0, 0)} <= colors
    assert (0, 200, 0) not in colors
    assert ((0, 0, 200) in colors) == (1 / labels.size >= 0.001)


def test_jpeg() -> None:
    picture = np.full((20, 20, 3), (200, 30, 60), np.uint8)
    with Image.open(io.BytesIO(pictures.encode_jpeg(picture))) as image:
        assert image.format == "JPEG"
        np.testing.assert_allclose(np.array(image), picture, atol=3)
