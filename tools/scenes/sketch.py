"""The state of one scene while it is drawn: canvas, randomness, horizon, light and perspective."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from .canvas import Array, Canvas, Color, to_planes
from .palette import SKIES

Option = TypeVar("Option")


class Sketch:
    """What the brushes of one scene share.

    Attributes:
        rng: the scene's only source of randomness.
        height, width: size in pixels.
        canvas: picture and labels so far.
        full: the window over all of the canvas.
        horizon: row of the horizon.
        zenith_color, haze_color: the sky above, and at the horizon, where everything far fades into it.
        light: where the light comes from, -1 (left) to 1 (right).
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
        """One of ``options``, each as likely."""
        return options[int(self.rng.integers(len(options)))]

    def vary(self, color: Color, amount: float) -> Array:
        """``color`` as (3, 1, 1), brighter or darker as a whole by about ``amount``, each channel by half of that."""
        shift = self.rng.normal(0, amount) + self.rng.normal(0, amount / 2, (3, 1, 1))
        return to_planes(color) + shift.astype(np.float32)

    def scale_at(self, base: float) -> float:
        """Size of a thing that stands on row ``base``, against the same thing in the foreground of a 257-row scene."""
        nearness = (base - self.horizon) / (self.height - self.horizon)
        return (0.42 + 0.75 * nearness) * self.height / 257
