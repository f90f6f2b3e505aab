"""A search as JSON and as heat maps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..drawing import GRAY, INK, make_blues, make_figure, save_figure
from ..report import write_report
from .points import START, Point
from .search import Search

REPORT_VERSION = 1
REPORT_NAME = "tuning.json"
AXES = ("weight", "sxy", "srgb")
_MAX_ACROSS = 4  # panels in one row
_SHOWN_SPAN = 12.0  # points of mean IoU below the best that get colors of their own


def describe_search(search: Search, *, bundle: str, dataset: str) -> dict[str, Any]:
    """Plain JSON data about a search; fractions are of 1."""
    points = []
    for point, score in sorted(search.scores.items(), key=lambda entry: -entry[1]):
        described = {**vars(point), "mean_iou": score if math.isfinite(score) else None}
        if point in search.discarded:
            described["discarded_after"] = search.discarded[point].images
            described["behind"] = search.discarded[point].behind
        points.append(described)
    return {
        "bundle": bundle,
        "dataset": dataset,
        "method": search.method,
        "crf": search.parameters.to_dict(),
        "chosen_on": search.chosen_on.describe(),
        "held_out": None if search.held_out is None else search.held_out.describe(),
        "is_better": search.is_better,
        "points": points,
        "crf_runs": search.runs,
        "lattice_builds": search.builds,
    }


def write_search(search: Search, described: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """Write `tuning.json` and heat maps; the files are "report", "heat_map" and, after finer steps, "heat_map_fine"."""
    images = len(search.chosen_on.names)
    title = f"{described['bundle']} on {described['dataset']}, {images} images: {{}}, mean IoU %"
    coarse = {point: search.scores[point] for point in search.grid.points(START) if point in search.scores}
    pictures = {"heat_map": _draw_points(search, coarse, title.format("the coarse grid"))}
    if search.method != "factors" and search.grid.halvings:
        steps = [step / 2**search.grid.halvings for step in search.grid.steps()]
        limits = [step * 1.01 + 1e-9 for step in steps]
        fine = {
            point: score
            for point, score in search.scores.items()
            if all(
                abs(getattr(point, axis) - getattr(search.best, axis)) < limit
                for axis, limit in zip(AXES, limits, strict=True)
            )
        }
        pictures["heat_map_fine"] = _draw_points(search, fine, title.format("around the best"))
    return write_report(folder / REPORT_NAME, {"schema_version": REPORT_VERSION, **described}, pictures)


def _draw_points(search: Search, points: Mapping[Point, float], title: str) -> bytes:
    """Draw scores, weight down and position sigma along, one panel per color sigma; discarded points in gray."""
    rows, columns, panels = (sorted({getattr(point, axis) for point in points}) for axis in AXES)
    places = {point: (panels.index(point.srgb), rows.index(point.weight), columns.index(point.sxy)) for point in points}
    if any(point in search.discarded for point in points):
        title += "\ngray: discarded early; points behind the best on the images scored by then"
    across = min(len(panels), _MAX_ACROSS)
    down = -(-len(panels) // across)
    width = max(6.8, 1.0 + across * max(1.6, 0.5 * len(columns)))
    figure, all_axes = make_figure(width, 0.9 + down * (0.7 + 0.42 * len(rows)), across, down)
    known = [score * 100 for score in points.values() if math.isfinite(score)]
    high = max(known, default=1.0)
    low = max(min(known, default=0.0), high - _SHOWN_SPAN)  # far worse points must not use up the colors
    digits = 1 if high - low > 1 else 2
    grid = np.full((len(panels), len(rows), len(columns)), np.nan)
    back = np.ones(grid.shape)
    for point, place in places.items():
        grid[place], back[place] = points[point] * 100, 0.92 if point in search.discarded else 1.0
    for index, axes in enumerate(all_axes):
        if index >= len(panels):
            axes.set_visible(False)
            continue
        axes.imshow(back[index], cmap="gray", vmin=0, vmax=1, aspect="auto")
        values = np.ma.masked_invalid(grid[index])
        axes.imshow(values, cmap=make_blues(), vmin=low, vmax=max(high, low + 1e-6), aspect="auto")
        axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns], fontsize=8)
        axes.set_yticks(range(len(rows)), [f"{value:g}" if index % across == 0 else "" for value in rows])
        axes.tick_params(length=0, labelsize=8)
        axes.set_title(f"color sigma {panels[index]:g}", fontsize=9, color=INK)
        for spine in axes.spines.values():
            spine.set_visible(False)
    best = max(points, key=lambda point: points[point])
    for point, (panel, row, column) in places.items():
        score, lost = points[point] * 100, search.discarded.get(point)
        text = f"{score:.{digits}f}" if lost is None else f"\N{MINUS SIGN}{lost.behind * 100:.{digits}f}"
        color = GRAY if lost is not None else "white" if score > low + 0.6 * (high - low) else INK
        box = {"facecolor": "none", "edgecolor": "#d98e04", "linewidth": 2.2} if point == best else None
        all_axes[panel].text(column, row, text, ha="center", va="center", fontsize=7, color=color, bbox=box)
    near = f"position term: weight {best.near_weight:g}, sigma {best.near_sxy:g}"
    figure.supylabel("weight", color=GRAY, fontsize=9)
    figure.supxlabel(f"position sigma, pixels ({near})", color=GRAY, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=INK)
    return save_figure(figure)
