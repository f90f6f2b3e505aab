"""Brushes for procedural pictures: noise textures, signed distances and a canvas that keeps exact labels.

A shape is a signed distance in pixels, negative inside. Painting blends a color over the picture with the coverage
``clip(1/2 - distance / softness, 0, 1)`` and writes the label wherever the distance is negative, so that an edge is
soft in the picture and exact in the label map, and the label's border is the half-coverage line.

Colors are RGB floats in 0..1, in planes: (3, 1, 1) for one color, (3, h, w) for a texture. Coordinates are pixels,
x to the right and y down, pixel centers at whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]
Color = tuple[float, float, float]


def to_planes(color: Color) -> Array:
    """One RGB color as (3, 1, 1) float32, which broadcasts with (h, w) textures."""
    return np.asarray(color, np.float32).reshape(3, 1, 1)


def make_noise(
    rng: np.random.Generator, shape: tuple[int, int], cell: float | tuple[float, float], octaves: int = 3
) -> Array:
    """Draw fractal value noise: smooth random fields, each octave half as coarse and 0.6 as strong as the last.

    The octaves are summed from coarse to fine on grids that double, so only the last step works at full size.

    Args:
        rng: the source of randomness.
        shape: (height, width).
        cell: size in pixels of the coarsest features, one number or (vertical, horizontal).
        octaves: how many fields are summed at most; those finer than a pixel are left out.

    Returns:
        (height, width) float32, centerd at 0, nearly all of it within -1..1.
    """
    height, width = shape
    step_y, step_x = cell if isinstance(cell, tuple) else (cell, cell)
    field = rng.standard_normal((int(height / step_y) + 4, int(width / step_x) + 4), np.float32)
    strength, power = 1.0, 1.0
    for _ in range(octaves - 1):
        if min(step_y, step_x) < 2:
            break
        step_y, step_x, strength = step_y / 2, step_x / 2, strength * 0.6
        grid = (int(height / step_y) + 4, int(width / step_x) + 4)
        field = _resample(field, grid, (0.5, 0.5), (grid[0] / 2, grid[1] / 2))
        field += np.float32(strength) * rng.standard_normal(grid, np.float32)
        power += strength**2
    noise: Array = _resample(field, shape, (1.0, 1.0), (height / step_y, width / step_x)) * np.float32(0.6 / power**0.5)
    return noise


def _resample(field: Array, shape: tuple[int, int], start: tuple[float, float], extent: tuple[float, float]) -> Array:
    """Stretch the part of a field that begins at ``start`` and spans ``extent`` cells (both y, x) to ``shape``."""
    box = (start[1], start[0], start[1] + extent[1], start[0] + extent[0])
    stretched = Image.fromarray(field).resize((shape[1], shape[0]), Image.Resampling.BICUBIC, box=box)
    values: Array = np.array(stretched, np.float32)
    return values


def measure_disc(x: Array, y: Array, center_x: float, center_y: float, radius: float, flatness: float = 1.0) -> Array:
    """Signed distance to a disc; ``flatness`` > 1 squeezes it vertically, and then only the sign is exact."""
    distance: Array = np.hypot(x - center_x, (y - center_y) * flatness) - radius
    return distance


def measure_box(x: Array, y: Array, left: float, top: float, right: float, bottom: float, corner: float = 0.0) -> Array:
    """Signed distance to an upright box with corners rounded to radius ``corner``."""
    out_x = np.abs(x - (left + right) / 2) - ((right - left) / 2 - corner)
    out_y = np.abs(y - (top + bottom) / 2) - ((bottom - top) / 2 - corner)
    outside = np.hypot(np.maximum(out_x, 0), np.maximum(out_y, 0))
    distance: Array = outside + np.minimum(np.maximum(out_x, out_y), 0) - corner
    return distance


def measure_polygon(x: Array, y: Array, points: list[tuple[float, float]]) -> Array:
    """Signed distance to a convex polygon, given clockwise on the screen; beyond a corner it is a lower bound."""
    distance = np.full(np.broadcast(x, y).shape, -np.inf, np.float32)
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        length = float(np.hypot(x1 - x0, y1 - y0))
        if length == 0:  # two corners in one place, as in a gable's ridge
            continue
        distance = np.maximum(distance, ((y1 - y0) * (x - x0) - (x1 - x0) * (y - y0)) / np.float32(length))
    return distance


def mix_colors(first: Array, second: Array, share: Array) -> Array:
    """Blend per pixel: (3, h, w) from ``first`` where ``share`` (h, w) is 0 to ``second`` where it is 1."""
    return first + (second - first) * share


@dataclass(frozen=True)
class Window:
    """The part of a canvas that a shape can touch: its coordinates and its place in the canvas."""

    rows: slice
    columns: slice
    x: Array  # (1, width)
    y: Array  # (height, 1)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.y.shape[0], self.x.shape[1]


class Canvas:
    """A picture and its label map, painted from back to front.

    Attributes:
        image: (3, H, W) float32 RGB planes, 0..1 where nothing is over-exposed.
        labels: (H, W) uint8 class indices.
        softness: width in pixels of the blended edge.
    """

    def __init__(self, height: int, width: int, softness: float = 1.0) -> None:
        self.image: Array = np.zeros((3, height, width), np.float32)
        self.labels: NDArray[np.uint8] = np.zeros((height, width), np.uint8)
        self.softness = softness

    def open_window(self, left: float, top: float, right: float, bottom: float) -> Window:
        """The window over a box, widened by the edge and cut to the canvas; it may be empty."""
        height, width = self.labels.shape
        margin = self.softness + 1
        x0, x1 = (int(np.clip(v, 0, width)) for v in (np.floor(left - margin), np.ceil(right + margin) + 1))
        y0, y1 = (int(np.clip(v, 0, height)) for v in (np.floor(top - margin), np.ceil(bottom + margin) + 1))
        x = np.arange(x0, x1, dtype=np.float32)[None, :]
        y = np.arange(y0, y1, dtype=np.float32)[:, None]
        return Window(slice(y0, y1), slice(x0, x1), x, y)

    def paint(
        self, window: Window, distance: Array, color: Array, label: int | None = None, opacity: float = 1.0
    ) -> None:
        """Blend a color over the window inside a shape, and label what is inside.

        Args:
            window: where the shape is.
            distance: (h, w) signed distances in pixels.
            color: (3, 1, 1) or (3, h, w).
            label: what to write where the distance is negative; None leaves the labels alone.
            opacity: of the color where it covers fully, 0..1.
        """
        coverage = np.clip(0.5 - distance / np.float32(self.softness), 0, 1) * np.float32(opacity)
        under = self.image[:, window.rows, window.columns]
        under += coverage * (color - under)
        if label is not None:
            self.labels[window.rows, window.columns][distance < 0] = label

    def shade(self, window: Window, factor: Array) -> None:
        """Multiply the window by ``factor`` (h, w): shadows and light, which change no label."""
        self.image[:, window.rows, window.columns] *= factor
