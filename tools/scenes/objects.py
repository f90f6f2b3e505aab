"""The objects of a scene: trees, houses, cars and balls.

Each painter takes the sketch, the column of the object's middle and the row it stands on, and paints it with its parts
and label; `cast_shadow` comes first and changes no label.
"""

from __future__ import annotations

import numpy as np

from .canvas import Array, Window, make_noise, measure_box, measure_disc, measure_polygon, mix_colors, to_planes
from .palette import BALL, CAR, FOLIAGE, HOUSE, PAINTS, TREE
from .sketch import Sketch

_GLASS = (0.30, 0.40, 0.48)
_FRAMES = to_planes((0.92, 0.91, 0.88))
_RUBBER, _RIMS = to_planes((0.09, 0.09, 0.10)), to_planes((0.72, 0.72, 0.74))
_HEADLAMP, _TAILLAMP = to_planes((0.98, 0.95, 0.78)), to_planes((0.75, 0.10, 0.10))


def cast_shadow(sketch: Sketch, middle: float, base: float, reach: float) -> None:
    """Darken the ground beside an object of half-width ``reach``, away from the light."""
    offset = -sketch.light * reach * 0.9
    left, right = middle - reach * 1.4 + min(offset, 0), middle + reach * 1.4 + max(offset, 0)
    window = sketch.canvas.open_window(left, base - reach, right, base + reach)
    distance = measure_disc(window.x, window.y, middle + offset, base, reach * 1.3, flatness=4.0)
    depth = np.float32(0.45 if sketch.rng.random() < 0.7 else 0.2)
    sketch.canvas.shade(window, 1 - depth * np.clip(0.5 - distance / np.float32(0.25 * reach + 1), 0, 1))


def paint_tree(sketch: Sketch, middle: float, base: float) -> None:
    """A trunk under a crown of overlapping discs, or a conifer of stacked triangles; the crown's rim is ragged."""
    rng, canvas = sketch.rng, sketch.canvas
    scale = sketch.scale_at(base)
    height = scale * rng.uniform(70, 135)
    reach = height * rng.uniform(0.26, 0.42)
    cast_shadow(sketch, middle, base, reach * 0.8)
    window = canvas.open_window(middle - reach * 1.4, base - height * 1.15, middle + reach * 1.4, base)
    x, y = window.x, window.y
    trunk = reach * rng.uniform(0.10, 0.2)
    bark = sketch.vary((0.36, 0.27, 0.20), 0.05)
    roundness = 1.05 + 0.45 * np.clip((x - middle) / np.float32(trunk), -1, 1) * np.float32(sketch.light) + 0 * y
    sides = [(middle - trunk, base), (middle - trunk * 0.7, base - height * 0.6)]
    sides += [(middle + trunk * 0.7, base - height * 0.6), (middle + trunk, base)]
    canvas.paint(window, measure_polygon(x, y, sides), bark * roundness, TREE)

    crown = np.full(window.shape, np.inf, np.float32)
    if rng.random() < 0.35:
        tiers = int(rng.integers(2, 5))
        for tier in range(tiers):
            foot, top = (
                base - height * (0.12 + 0.26 * tier * 3 / tiers),
                base - height * min(1, 0.55 + 0.5 * tier / tiers),
            )
            half = reach * (1 - 0.22 * tier * 3 / tiers)
            crown = np.minimum(
                crown, measure_polygon(x, y, [(middle - half, foot), (middle, top), (middle + half, foot)])
            )
    else:
        for _ in range(int(rng.integers(5, 10))):
            angle, length = rng.uniform(0, 2 * np.pi), reach * rng.uniform(0.1, 0.65)
            center_x, center_y = middle + length * np.cos(angle), base - height * 0.66 + 0.8 * length * np.sin(angle)
            crown = np.minimum(crown, measure_disc(x, y, center_x, center_y, reach * rng.uniform(0.35, 0.6)))
    leaf = max(3.0, reach * rng.uniform(0.15, 0.35))
    clumps = make_noise(rng, window.shape, leaf, 3)
    crown = crown + clumps * np.float32(leaf * 0.35)
    toward_light = ((x - middle) * np.float32(sketch.light) - (y - (base - height * 0.66))) / np.float32(reach)
    leaves = sketch.vary(sketch.choose(FOLIAGE), 0.05)
    tone = 0.85 + 0.28 * clumps + 0.16 * np.clip(toward_light, -1.5, 1.5)
    canvas.paint(window, crown, leaves * np.clip(tone, 0.3, 1.6), TREE)


def paint_house(sketch: Sketch, middle: float, base: float) -> None:
    """A front with windows and a door under a gabled, hipped or flat roof, often a dark side wall and a chimney too."""
    rng, canvas = sketch.rng, sketch.canvas
    scale = sketch.scale_at(base)
    half, wall = scale * rng.uniform(26, 52), scale * rng.uniform(34, 84)
    roof = wall * rng.uniform(0.25, 0.6) if rng.random() < 0.8 else 0.0
    side = half * rng.uniform(0.3, 0.8) if rng.random() < 0.6 else 0.0
    turn = 1.0 if rng.random() < 0.5 else -1.0  # the side wall is to the right, or to the left
    left, right, eaves = middle - half, middle + half, base - wall
    cast_shadow(sketch, middle, base, half)
    window = canvas.open_window(left - side - 8, eaves - roof - 0.3 * wall, right + side + 8, base)
    x, y = window.x, window.y
    paint = sketch.vary(sketch.choose(PAINTS), 0.05)
    tiles = sketch.vary(sketch.choose(PAINTS), 0.06) * np.float32(0.75)
    grime = 1 + 0.07 * make_noise(rng, window.shape, 14.0, 4)
    if rng.random() < 0.5:  # courses of brick or planks
        pitch = np.float32(rng.uniform(3.0, 6.0))
        grime = grime * (1 - 0.14 * (np.mod(y if rng.random() < 0.6 else x, pitch) < 1))
    front = paint * grime
    courses = tiles * (1 + 0.12 * np.sin(y * np.float32(2 * np.pi / rng.uniform(3.0, 6.0))) + 0 * x)

    if roof and rng.random() < 0.5:
        stack = middle + half * rng.uniform(-0.5, 0.5)
        chimney = measure_box(x, y, stack - 4 * scale, eaves - roof - 8 * scale, stack + 4 * scale, eaves)
        canvas.paint(window, chimney, tiles * np.float32(0.8), HOUSE)
    if side:
        corner = right if turn > 0 else left
        rise = side * 0.25
        wall_points = [
            (corner, base),
            (corner, eaves),
            (corner + turn * side, eaves),
            (corner + turn * side, base - rise),
        ]
        distance = measure_polygon(x, y, wall_points if turn > 0 else wall_points[::-1])
        canvas.paint(window, distance, front * np.float32(0.62), HOUSE)
    canvas.paint(window, measure_box(x, y, left, eaves, right, base), front, HOUSE)
    if roof:
        over, ridge = 4 * scale, half * (0.0 if rng.random() < 0.5 else rng.uniform(0.2, 0.7))
        far = side * turn
        points = [(left - over + min(far, 0), eaves), (middle - ridge + min(far, 0) * 0.6, eaves - roof)]
        points += [(middle + ridge + max(far, 0) * 0.6, eaves - roof), (right + over + max(far, 0), eaves)]
        canvas.paint(window, measure_polygon(x, y, points), courses, HOUSE)
    _paint_openings(sketch, window, (left, eaves, right, base), scale)


def _paint_openings(sketch: Sketch, window: Window, front: tuple[float, float, float, float], scale: float) -> None:
    """Rows of windows, dark or lit, and a door in the ground floor."""
    rng, canvas = sketch.rng, sketch.canvas
    left, eaves, right, base = front
    columns = max(1, int((right - left) / (scale * rng.uniform(16, 26))))
    floors = max(1, int((base - eaves) / (scale * rng.uniform(22, 32))))
    glass = sketch.vary(_GLASS if rng.random() < 0.75 else (0.95, 0.84, 0.52), 0.06)
    step_x, step_y = (right - left) / columns, (base - eaves) / floors
    door = int(rng.integers(columns))
    panes = np.full(window.shape, np.inf, np.float32)
    for floor in range(floors):
        for column in range(columns):
            pane_x, pane_y = left + (column + 0.5) * step_x, eaves + (floor + 0.5) * step_y
            if floor == floors - 1 and column == door:
                leaf = measure_box(
                    window.x, window.y, pane_x - 0.22 * step_x, pane_y - 0.2 * step_y, pane_x + 0.22 * step_x, base
                )
                canvas.paint(window, leaf, sketch.vary((0.36, 0.24, 0.18), 0.08))
            else:
                pane = measure_box(
                    window.x,
                    window.y,
                    pane_x - 0.24 * step_x,
                    pane_y - 0.26 * step_y,
                    pane_x + 0.24 * step_x,
                    pane_y + 0.24 * step_y,
                )
                panes = np.minimum(panes, pane)
    canvas.paint(window, panes - 1.2 * np.float32(scale), _FRAMES, opacity=0.8)
    canvas.paint(window, panes, glass)


def paint_car(sketch: Sketch, middle: float, base: float) -> None:
    """A car, a van or a bus from the side: body, cabin with windows, two wheels, lamps."""
    rng, canvas = sketch.rng, sketch.canvas
    scale = sketch.scale_at(base) * rng.uniform(0.85, 1.2)
    long = rng.random() < 0.3
    half, body = scale * (rng.uniform(40, 54) if long else rng.uniform(28, 38)), scale * rng.uniform(13, 17)
    cabin = scale * (rng.uniform(22, 30) if long else rng.uniform(11, 16))
    wheel = scale * rng.uniform(6.5, 8.5)
    facing = 1.0 if rng.random() < 0.5 else -1.0
    cast_shadow(sketch, middle, base, half * 0.9)
    sill, belt = base - wheel * 0.7, base - wheel * 0.7 - body
    window = canvas.open_window(middle - half - 2, belt - cabin, middle + half + 2, base)
    x, y = (window.x - middle) * np.float32(facing), window.y  # mirrored, so that the front is to the right
    paint = sketch.vary(sketch.choose(PAINTS), 0.05)
    gloss = 1.12 - 0.35 * (y - belt + cabin) / np.float32(body + cabin) + 0.04 * make_noise(rng, window.shape, 9.0, 3)
    rear, front = (0.98, 0.94) if long else (rng.uniform(0.55, 0.95), rng.uniform(0.35, 0.6))
    slant = 0.03 if long else 0.22
    house = [(-half * rear, belt + 2), (-half * (rear - slant * 0.6), belt - cabin)]
    house += [(half * (front - slant), belt - cabin), (half * front, belt + 2)]
    canvas.paint(window, measure_polygon(x, y, house), paint * gloss, CAR)
    lower = measure_box(x, y, -half, belt, half, sill, corner=body * 0.3)
    canvas.paint(window, lower, paint * gloss, CAR)
    pillar, inset = 2.2 * scale, 3 * scale
    count = int(rng.integers(3, 6)) if long else 2
    first, last = -half * (rear - slant * 0.5) + inset, half * (front - slant * 0.7) - inset
    for k in range(count):
        start, stop = (first + (last - first) * (k + edge) / count for edge in (0, 1))
        glass = measure_box(
            x, y, start + pillar / 2, belt - cabin + inset, stop - pillar / 2, belt - inset * (0.3 + long)
        )
        canvas.paint(window, glass, sketch.vary(_GLASS, 0.04))
    for place in (-0.6, 0.6):
        rim = measure_disc(x, y, half * place, base - wheel, wheel)
        canvas.paint(window, rim, _RUBBER, CAR)
        canvas.paint(window, rim + wheel * 0.55, _RIMS)
    canvas.paint(window, measure_disc(x, y, half - 2 * scale, belt + body * 0.35, 2.6 * scale), _HEADLAMP)
    canvas.paint(window, measure_disc(x, y, 2 * scale - half, belt + body * 0.35, 2.2 * scale), _TAILLAMP)


def paint_ball(sketch: Sketch, middle: float, base: float) -> None:
    """A ball, lying or flying: plain, striped, spotted or in segments, lit as a sphere."""
    rng, canvas = sketch.rng, sketch.canvas
    radius = sketch.scale_at(base) * rng.uniform(14, 36)
    center = base - radius
    if rng.random() < 0.35:
        center -= rng.uniform(0.2, 0.8) * max(0.0, base - 2 * radius)
    cast_shadow(sketch, middle, base, radius * 0.8)
    window = canvas.open_window(middle - radius, center - radius, middle + radius, center + radius)
    across, down = (window.x - middle) / np.float32(radius), (window.y - center) / np.float32(radius)
    toward = np.sqrt(np.clip(1 - across**2 - down**2, 0, 1))  # the sphere's third coordinate, toward the eye
    first, second = (sketch.vary(sketch.choose(PAINTS), 0.06) for _ in range(2))
    tilt = rng.uniform(0, np.pi)
    along = across * np.float32(np.cos(tilt)) + down * np.float32(np.sin(tilt))
    aside = down * np.float32(np.cos(tilt)) - across * np.float32(np.sin(tilt))
    kind = int(rng.integers(4))
    if kind == 0:
        pattern = 0.2 * make_noise(rng, window.shape, radius * 0.5, 3)
    elif kind == 1:
        pattern = np.sin(np.arcsin(np.clip(along, -1, 1)) * np.float32(rng.uniform(3, 7))) * 6
    elif kind == 2:
        pattern = np.cos(np.arctan2(aside, toward + 0.3) * np.float32(rng.integers(2, 5))) * 6
    else:
        pattern = make_noise(rng, window.shape, radius * rng.uniform(0.35, 0.6), 1) * 5 - 1
    coat = mix_colors(first, second, np.clip(pattern + 0.5, 0, 1))
    light = np.clip(0.65 * toward + 0.45 * (np.float32(sketch.light) * across - down), 0, 1)
    lit: Array = coat * (0.42 + 0.72 * light) + (np.clip(light - 0.86, 0, 1) * 2.2)
    canvas.paint(window, np.hypot(window.x - middle, window.y - center) - radius, lit, BALL)
