"""The backgrounds of a scene: sky with clouds, hills, ground and water."""

from __future__ import annotations

import numpy as np

from .canvas import make_noise, measure_disc, mix_colors, to_planes
from .palette import GROUND, GROUNDS, SKY, WATER
from .sketch import Sketch


def paint_sky(sketch: Sketch) -> None:
    """A gradient from zenith to horizon, perhaps a sun, and clouds."""
    rng, canvas, full = sketch.rng, sketch.canvas, sketch.full
    share = np.clip(full.y / np.float32(sketch.horizon), 0, 1) + np.zeros_like(full.x)
    canvas.image[:] = mix_colors(sketch.zenith_color, sketch.haze_color, share)
    canvas.labels[:] = SKY
    if rng.random() < 0.3:
        sun = measure_disc(full.x, full.y, sketch.width * (0.5 + 0.45 * sketch.light), sketch.horizon * 0.4, 7)
        canvas.image += (np.exp(-np.maximum(sun, 0) / 18) * 0.4) * to_planes((1.0, 0.95, 0.75))
    cells = (sketch.height * rng.uniform(0.06, 0.14), sketch.width * rng.uniform(0.15, 0.35))
    cover = make_noise(rng, full.shape, cells, 5) - np.float32(rng.uniform(-0.1, 0.7))
    bright = sketch.haze_color * 0.5 + 0.5
    clouds = mix_colors(bright * 0.82, bright, np.clip(cover * 1.4, 0, 1))
    canvas.image += np.clip(cover * 2.2, 0, 0.92) * (clouds - canvas.image)


def paint_hills(sketch: Sketch) -> None:
    """Up to two ranges of hills on the horizon, the farther one deeper in haze; they count as ground."""
    rng, canvas, full = sketch.rng, sketch.canvas, sketch.full
    color = sketch.vary(sketch.choose(GROUNDS)[0], 0.06)
    count = int(rng.integers(0, 3))
    for rank in range(count):
        height = sketch.height * rng.uniform(0.04, 0.16) / (rank + 1)
        ridge = make_noise(rng, (1, sketch.width), (1.0, sketch.width * rng.uniform(0.15, 0.5)), 4)
        top = sketch.horizon - height * (0.6 + ridge)
        haze = np.float32(rng.uniform(0.3, 0.6) / (rank + 1))
        texture = make_noise(rng, full.shape, (5.0, 9.0), 2) * 0.07
        slope = mix_colors(color * (0.75 + texture), sketch.haze_color, np.full(full.shape, haze))
        canvas.paint(full, (top - full.y) * np.float32(0.9), slope, GROUND)


def paint_ground(sketch: Sketch) -> None:
    """Grass, sand, earth, snow or stone below the horizon: mottled, finer toward the distance, hazy far away."""
    rng, canvas, full = sketch.rng, sketch.canvas, sketch.full
    first, second = (sketch.vary(color, 0.04) for color in sketch.choose(GROUNDS))
    depth = np.clip((full.y - sketch.horizon) / np.float32(sketch.height - sketch.horizon), 0, 1)  # 0 far, 1 near
    mottle = make_noise(rng, full.shape, (sketch.height * 0.07, sketch.width * rng.uniform(0.1, 0.3)), 4)
    grain = make_noise(rng, full.shape, (2.0, rng.uniform(1.5, 5.0)), 2) * np.float32(rng.uniform(0.02, 0.08))
    ground = mix_colors(first, second, np.clip(0.5 + 0.7 * mottle, 0, 1)) * (1 + grain * (0.4 + depth))
    if rng.random() < 0.3:  # furrows, running toward a vanishing point
        vanish = sketch.width * rng.uniform(0.1, 0.9)
        angle = (full.x - vanish) / np.maximum(full.y - sketch.horizon + 6, 4)
        ground *= 1 + 0.1 * np.sin(angle * np.float32(rng.uniform(8, 20))) * depth**0.5
    ground += (sketch.haze_color - ground) * (0.5 * (1 - depth) ** 3)
    edge = make_noise(rng, (1, sketch.width), (1.0, sketch.width * 0.3), 3) * np.float32(0.02 * sketch.height)
    canvas.paint(full, sketch.horizon + edge - full.y, ground, GROUND)


def paint_water(sketch: Sketch) -> None:
    """A lake or a river between two wavering shores, in the sky's colors, with ripples along the rows."""
    rng, canvas, full = sketch.rng, sketch.canvas, sketch.full
    below = sketch.height - sketch.horizon
    middle = sketch.horizon + below * rng.uniform(0.1, 0.8)
    reach = below * rng.uniform(0.08, 0.3)
    waver = make_noise(rng, (2, sketch.width), (1.0, sketch.width * rng.uniform(0.3, 0.7)), 3)
    slope = rng.uniform(-0.15, 0.15) * (full.x - sketch.width / 2)
    half = np.float32(reach) * (1 + 0.4 * waver[0:1])
    if rng.random() < 0.5:  # a lake, closed toward one or both sides
        center, spread = sketch.width * rng.uniform(0, 1), sketch.width * rng.uniform(0.35, 0.6)
        half = half * np.sqrt(np.clip(1 - ((full.x - center) / spread) ** 2, 0, None)) - 2
    shore = np.abs(full.y - middle - slope - np.float32(0.5 * reach) * waver[1:2]) - half
    distance = np.maximum(shore * np.float32(0.9), sketch.horizon + 2 - full.y)
    ripples = make_noise(rng, full.shape, (rng.uniform(1.5, 3.0), rng.uniform(12.0, 30.0)), 2)
    swell = make_noise(rng, full.shape, (sketch.height * 0.05, sketch.width * 0.4), 3)
    depth = np.clip((full.y - sketch.horizon) / np.float32(below), 0, 1)
    mirror = mix_colors(sketch.haze_color, sketch.zenith_color, np.clip(0.25 + depth + 0.25 * swell, 0, 1))
    mirror *= np.float32(rng.uniform(0.72, 0.98)) + 0.09 * ripples
    mirror += np.clip(ripples - 0.75, 0, 1) * np.float32(rng.uniform(0, 0.5))
    canvas.paint(full, distance - 3, sketch.haze_color * 0.45, opacity=0.35)  # the wet shore
    canvas.paint(full, distance, mirror, WATER)
