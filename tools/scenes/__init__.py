"""Procedurally drawn landscapes with exact label maps: the data of the miniature network.

A scene is painted from back to front: sky, distant hills, ground, water, then trees, houses, cars and balls from far to
near, each with its shadow; then light, lens and sensor noise. Everything follows from one seed.

What makes it a task: color alone decides nothing. Water takes the sky's color, a ball any color at all, even in the
sky, trees the ground's greens, houses and cars every paint there is; light, haze and season change from scene to scene.
Only texture, shape and surroundings tell, which is what a network with a large field of view is for. Borders are one to
two pixels soft: a network of stride 8 misses them, and a CRF that sees the whole picture can find them.

What it does not know: real photographs. A network trained here measures a deployment, not the world.
"""

from __future__ import annotations

from .palette import CLASSES, PALETTE
from .scene import Scene, draw_scene, draw_size

__all__ = ["CLASSES", "PALETTE", "Scene", "draw_scene", "draw_size"]
