"""One scene from one seed: the composition, the light over it, the lens and the sensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .backgrounds import paint_ground, paint_hills, paint_sky, paint_water
from .canvas import make_noise
from .objects import paint_ball, paint_car, paint_house, paint_tree
from .palette import WATER
from .sketch import Sketch

HEIGHTS = (225, 233, 240, 249, 257, 262)
WIDTHS = (280, 289, 300, 305, 313, 321)
"""Sizes that `draw_size` chooses from, in pixels: most are 8k + 1, which DeepLab needs no padding for."""

_PAINTERS: tuple[Callable[[Sketch, float, float], None], ...] = (paint_tree, paint_house, paint_car, paint_ball)


@dataclass(frozen=True)
class Scene:
    """One image with its label map.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8, indices into `CLASSES`; every pixel has one.
        seed: seed of the scene.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    seed: int


def draw_size(seed: int) -> tuple[int, int]:
    """The (height, width) in pixels of the mixed-size scene ``seed``: landscape format, 8k + 1 or not."""
    rng = np.random.default_rng([seed, 1])
    return int(rng.choice(HEIGHTS)), int(rng.choice(WIDTHS))


def draw_scene(seed: int, height: int | None = None, width: int | None = None) -> Scene:
    """Draw the scene of a seed; the same seed and size always give the same pixels.

    Args:
        seed: non-negative seed.
        height: in pixels, at least 32; chosen by `draw_size` if None.
        width: likewise.

    Returns:
        The picture and its exact label map.

    Raises:
        ValueError: if the seed is negative or a side is under 32 pixels.
    """
    if seed < 0:
        raise ValueError(f"the seed of a scene must not be negative, got {seed}")
    own_height, own_width = draw_size(seed)
    height = own_height if height is None else height
    width = own_width if width is None else width
    if min(height, width) < 32:
        raise ValueError(f"a scene of {height} x {width} pixels is too small to hold anything; ask for 32 or more")
    sketch = Sketch(np.random.default_rng([seed, 0]), height, width)
    paint_sky(sketch)
    paint_hills(sketch)
    paint_ground(sketch)
    if sketch.rng.random() < 0.6:
        paint_water(sketch)
    _place_objects(sketch)
    _apply_light(sketch)
    return Scene(_expose(sketch), sketch.canvas.labels, seed)


def _place_objects(sketch: Sketch) -> None:
    """Paint three to nine objects from far to near; a kind repeats only after one of each kind."""
    rng = sketch.rng
    count = int(rng.integers(3, 10))
    kinds = [int(k) for k in rng.permutation(len(_PAINTERS))] + [int(k) for k in rng.integers(0, len(_PAINTERS), count)]
    below = sketch.height - sketch.horizon
    bases = np.sort(sketch.horizon + below * rng.uniform(0.04, 0.98, count) ** 0.8)
    wet = sketch.canvas.labels == WATER  # only balls may be in water
    for kind, base in zip(kinds[:count], bases, strict=True):
        places = sketch.width * rng.uniform(0.02, 0.98, 8)
        dry = [x for x in places if _PAINTERS[kind] is paint_ball or not wet[int(base), int(x)]]
        if dry:
            _PAINTERS[kind](sketch, float(dry[0]), float(base))


def _apply_light(sketch: Sketch) -> None:
    """Apply cloud shadows, light falloff, a tint and a contrast; labels do not change."""
    rng, canvas, full = sketch.rng, sketch.canvas, sketch.full
    patches = make_noise(rng, full.shape, (sketch.height * 0.3, sketch.width * 0.5), 2) * np.float32(
        rng.uniform(0, 0.3)
    )
    fall = (full.x / np.float32(sketch.width) - 0.5) * np.float32(sketch.light * 0.25)
    canvas.shade(full, np.clip(1 + patches + fall, 0.45, 1.5))
    canvas.image *= (1 + rng.normal(0, 0.04, (3, 1, 1))).astype(np.float32) * np.float32(rng.uniform(0.75, 1.12))
    canvas.image += np.float32(rng.uniform(0, 0.06))


def _expose(sketch: Sketch) -> NDArray[np.uint8]:
    """Apply a slightly soft lens and noise that grows with brightness; round to (H, W, 3) uint8."""
    rng = sketch.rng
    levels = (np.clip(sketch.canvas.image, 0, 1) * 255 + 0.5).astype(np.uint8)
    sharp = Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0)))
    soft = np.asarray(sharp.filter(ImageFilter.BoxBlur(rng.uniform(0.1, 0.5))), np.float32)
    strength = np.float32(rng.uniform(2, 8)) * (0.6 + soft / 400)
    noisy = soft + strength * rng.standard_normal(soft.shape, np.float32)
    exposed: NDArray[np.uint8] = np.clip(noisy + 0.5, 0, 255).astype(np.uint8)
    return exposed
