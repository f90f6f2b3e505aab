"""Scenes: the same seed, the same pixels; labels exact, edges soft, every class there, color no help."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tools.scenes import CLASSES, PALETTE, draw_scene, draw_size
from tools.scenes.canvas import Canvas, make_noise, measure_box, measure_disc, measure_polygon, mix_colors, to_planes

RED = to_planes((1.0, 0.0, 0.0))


def grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(width, dtype=np.float32)[None, :], np.arange(height, dtype=np.float32)[:, None]


@pytest.mark.parametrize("size", [(32, 32), (33, 41), (100, 47), (257, 321)])
def test_scene_has_the_size_and_types_asked_for(size: tuple[int, int]) -> None:
    scene = draw_scene(3, *size)
    assert scene.image.shape == (*size, 3)
    assert scene.labels.shape == size
    assert scene.image.dtype == scene.labels.dtype == np.uint8
    assert scene.image.flags.c_contiguous
    assert scene.labels.max() < len(CLASSES)


def test_same_seed_same_pixels_and_other_seed_others() -> None:
    first, again, other = draw_scene(7, 65, 81), draw_scene(7, 65, 81), draw_scene(8, 65, 81)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.image, other.image)


def test_drawing_leaves_the_global_randomness_alone() -> None:
    np.random.seed(0)
    before = np.random.random()
    np.random.seed(0)
    draw_scene(1, 65, 65)
    assert np.random.random() == before


def test_own_sizes_are_mixed_and_drawn_when_none_is_given() -> None:
    sizes = [draw_size(seed) for seed in range(60)]
    fits = [side % 8 == 1 for size in sizes for side in size]
    assert any(fits)
    assert not all(fits)
    assert draw_scene(5).labels.shape == sizes[5]


def test_refusals() -> None:
    with pytest.raises(ValueError, match="32 or more"):
        draw_scene(0, 31, 64)
    with pytest.raises(ValueError, match="negative"):
        draw_scene(-1)


def test_every_class_is_common() -> None:
    present = np.zeros(len(CLASSES), int)
    scenes = [draw_scene(seed, 129, 161) for seed in range(40)]
    for scene in scenes:
        present[np.unique(scene.labels)] += 1
    assert len(PALETTE) == len(CLASSES) == 7
    assert (present[:2] == 40).all()  # sky and ground
    assert (present[2:] >= 15).all(), dict(zip(CLASSES, present, strict=True))


def test_color_alone_does_not_decide() -> None:
    """The best labeling by color, 16 levels a channel, learned on the very same pixels, stays far below the truth."""
    scenes = [draw_scene(seed, 129, 161) for seed in range(30)]
    bins = [scene.image.astype(int) // 16 @ np.array([256, 16, 1]) for scene in scenes]
    counts = np.zeros((4096, len(CLASSES)), int)
    for bin_, scene in zip(bins, scenes, strict=True):
        np.add.at(counts, (bin_, scene.labels), 1)
    guess = counts.argmax(1)
    ious = []
    for label in range(len(CLASSES)):
        truth = np.concatenate([(scene.labels == label).ravel() for scene in scenes])
        guessed = np.concatenate([(guess[bin_] == label).ravel() for bin_ in bins])
        ious.append((truth & guessed).sum() / (truth | guessed).sum())
    assert np.mean(ious) < 0.5


def test_labels_end_where_half_the_pixel_is_covered() -> None:
    canvas = Canvas(20, 20, softness=2.0)
    window = canvas.open_window(5, 5, 15, 15)
    canvas.paint(window, measure_disc(window.x, window.y, 10, 10, 5), RED, label=3)
    red = canvas.image[0]
    assert np.array_equal(canvas.labels == 3, red > 0.5)
    assert ((red > 0.05) & (red < 0.95)).sum() > 20  # the soft edge
    assert red[10, 10] == 1
    assert red[0, 0] == 0


def test_painting_without_label_and_shading_keep_labels() -> None:
    canvas = Canvas(8, 8)
    window = canvas.open_window(0, 0, 8, 8)
    canvas.paint(window, np.full(window.shape, -9, np.float32), RED)
    canvas.shade(window, np.full(window.shape, 0.5, np.float32))
    assert not canvas.labels.any()
    assert np.allclose(canvas.image[0], 0.5)


@pytest.mark.parametrize("box", [(-40, -40, -20, -20), (30, 2, 40, 4), (2, 90, 4, 99)])
def test_window_outside_the_canvas_is_empty(box: tuple[int, int, int, int]) -> None:
    canvas = Canvas(16, 16)
    window = canvas.open_window(*box)
    assert 0 in window.shape
    canvas.paint(window, measure_disc(window.x, window.y, 0, 0, 5), RED, label=1)
    assert not canvas.labels.any()


def test_distance_to_disc_and_box() -> None:
    x, y = grid(21, 31)
    disc = measure_disc(x, y, 10, 8, 4)
    assert disc[8, 10] == -4
    assert disc[8, 14] == 0
    assert disc[8, 17] == 3
    box = measure_box(x, y, 5, 5, 15, 11)
    assert box[8, 10] == -3  # the nearest side is 3 away
    assert box[8, 20] == 5
    assert box[14, 19] == 5  # 3-4-5 from the corner
    assert measure_box(x, y, 5, 5, 15, 11, corner=2)[5, 5] > 0  # the rounded corner is cut off


def test_polygon_agrees_with_the_box_inside_and_on_its_sides() -> None:
    x, y = grid(21, 31)
    box = measure_box(x, y, 5, 5, 15, 11)
    corners = [(5.0, 11.0), (5.0, 5.0), (15.0, 5.0), (15.0, 11.0)]
    polygon = measure_polygon(x, y, corners)
    assert np.allclose(polygon[box <= 0], box[box <= 0])
    assert (polygon[box > 0] > 0).all()


def test_polygon_with_two_corners_in_one_place_is_a_triangle() -> None:
    x, y = grid(21, 21)
    triangle = measure_polygon(x, y, [(2.0, 18.0), (10.0, 2.0), (18.0, 18.0)])
    gable = measure_polygon(x, y, [(2.0, 18.0), (10.0, 2.0), (10.0, 2.0), (18.0, 18.0)])
    assert np.array_equal(triangle, gable)
    assert triangle[12, 10] < 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (64, 80)])
def test_noise_is_centred_and_bounded(shape: tuple[int, int]) -> None:
    noise = make_noise(np.random.default_rng(0), shape, (7.0, 11.0), 4)
    assert noise.shape == shape
    assert noise.dtype == np.float32
    assert np.isfinite(noise).all()
    if math.prod(shape) > 1000:
        assert abs(noise.mean()) < 0.3
        assert 0.2 < noise.std() < 0.9


def test_noise_is_smoother_with_larger_cells() -> None:
    def roughness(cell: float) -> float:
        noise = make_noise(np.random.default_rng(1), (64, 64), cell, 1)
        return float(np.abs(np.diff(noise)).mean())

    assert roughness(16) < 0.5 * roughness(4)


def test_mixing_colors() -> None:
    mixed = mix_colors(to_planes((0, 0, 0)), to_planes((1, 0.5, 0)), np.array([[0, 1, 0.5]], np.float32))
    assert mixed.shape == (3, 1, 3)
    assert np.allclose(mixed[:, 0], [[0, 1, 0.5], [0, 0.5, 0.25], [0, 0, 0]])
