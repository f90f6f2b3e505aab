"""The state of one scene while it is drawn: canvas, randomness, horizon, light and perspective."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from .canvas import Array, Canvas, Color, to_planes
from .palette import SKIES

Option = TypeVar("Option")


class Sketch:
    """State that the painters of one scene share.

    Attributes:
        rng: the scene's only source of randomness.
        height, width: size in pixels.
        canvas: picture and labels so far.
        full: the window over the whole canvas.
        horizon: row of the horizon.
        zenith_color, haze_color: colors of the sky at the top and at the horizon; distant objects fade to the latter.
        light: direction of the light, -1 (left) to 1 (right).
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng = rng
        self.height, self.width = height, width
        self.canvas = Canvas(height, width, softness=rng.uniform(1.0, 2.0))
        self.full = self.canvas.open_window(0, 0, width, height)
        self.horizon = height * rng.uniform(0.26, 0.5)
        self.zenith_color, self.haze_color = (self.vary(color, 0.05) for color in self.choose(SKIES))
        self.light = rng.uniform(-1, 1)

    def choose(self, options: tuple[Option, ...]) -> Option:
        """Choose one of ``options`` with equal probability."""
        return options[int(self.rng.integers(len(options)))]

    def vary(self, color: Color, amount: float) -> Array:
        """Return ``color`` as (3, 1, 1) with noise: std ``amount`` on brightness, half of it on each channel."""
        shift = self.rng.normal(0, amount) + self.rng.normal(0, amount / 2, (3, 1, 1))
        return to_planes(color) + shift.astype(np.float32)

    def scale_at(self, base: float) -> float:
        """Scale of an object that stands on row ``base``; 1 is near the foreground of a 257-row scene."""
        nearness = (base - self.horizon) / (self.height - self.horizon)
        return (0.42 + 0.75 * nearness) * self.height / 257
