"""Procedurally drawn landscapes with exact label maps: the data of the miniature network.

A scene is painted from back to front: sky, distant hills, ground, water, then trees, houses, cars and balls from far to
near, each with its shadow; then light, lens and sensor noise. One seed determines the whole scene.

Color alone does not identify a class: water has the sky's color, trees have the ground's greens, balls, houses and cars
have any color, a ball may be in the sky, and light, haze and season change from scene to scene. A network must use
texture, shape and context, hence a large field of view. Borders are one to two pixels soft: a network of stride 8
blurs them, and a CRF on the full-size image can recover them.

Limit: the scenes are not photographs. A network trained on them tests a deployment; it does not segment real images.
"""

from __future__ import annotations

from .palette import CLASSES, PALETTE
from .scene import Scene, draw_scene, draw_size

__all__ = ["CLASSES", "PALETTE", "Scene", "draw_scene", "draw_size"]
