"""Chart of a verification: the error of every blob, in execution order, on a logarithmic scale."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from ..converter.check.compare import VerificationReport

WIDTH, PANEL, MARGIN, GAP = 960, 220, 56, 64
_LOWEST = -9.0
_INK, _GRID, _GOOD, _BAD = (34, 34, 34), (222, 222, 222), (46, 125, 110), (200, 60, 40)


def draw_errors(reports: Sequence[VerificationReport], path: Path) -> None:
    """Write a PNG with one panel per report of `verify_bundle`."""
    from ..bundle.files import write_file

    height = GAP // 2 + len(reports) * (PANEL + GAP)
    picture = Image.new("RGB", (WIDTH, height), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)
    for index, report in enumerate(reports):
        _draw_panel(draw, report, GAP // 2 + index * (PANEL + GAP), font)
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    write_file(path, encoded.getvalue())


def _draw_panel(
    draw: ImageDraw.ImageDraw, report: VerificationReport, top: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    shapes = ", ".join("x".join(map(str, shape)) for shape in report.input_shapes.values())
    draw.text((MARGIN, top), f"{report.stage} against {report.reference}, input {shapes}", fill=_INK, font=font)
    plot_top, plot_bottom = top + 24, top + PANEL
    for exponent in range(int(_LOWEST), 1, 3):
        y = _height_of(10.0**exponent, plot_top, plot_bottom)
        draw.line((MARGIN, y, WIDTH - 16, y), fill=_GRID)
        draw.text((8, y - 8), f"1e{exponent}", fill=_INK, font=font)
    limit = _height_of(report.tolerance, plot_top, plot_bottom)
    draw.line((MARGIN, limit, WIDTH - 16, limit), fill=_BAD)
    draw.text((WIDTH - 110, limit - 18), "tolerance", fill=_BAD, font=font)
    step = (WIDTH - 16 - MARGIN) / max(1, len(report.differences))
    for number, row in enumerate(report.differences):
        x = MARGIN + number * step
        y = _height_of(row.error, plot_top, plot_bottom)
        color = _GOOD if row.error <= report.tolerance else _BAD
        draw.rectangle((x, y, x + max(1.0, step - 1), plot_bottom), fill=color)
    names = f"{report.differences[0].key}  ...  {report.differences[-1].key}" if report.differences else ""
    draw.text((MARGIN, plot_bottom + 4), f"blobs in execution order: {names}", fill=_INK, font=font)


def _height_of(error: float, top: int, bottom: int) -> float:
    exponent = _LOWEST if error <= 0 else 0.0 if math.isinf(error) else max(_LOWEST, min(0.0, math.log10(error)))
    return bottom - (exponent - _LOWEST) / -_LOWEST * (bottom - top)
