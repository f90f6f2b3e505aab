"""A picture of a variant: a bar a layer, its noise against float32, and the part that the layer itself added."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from ..converter.precision.compare import BlobError

WIDTH, ROW, LEFT, TOP, MARGIN = 960, 18, 220, 64, 28
_LOWEST, _HIGHEST = -6.0, 0.5
_INK, _GRID, _TOTAL, _OWN = (34, 34, 34), (225, 225, 225), (170, 200, 195), (46, 125, 110)


def draw_layers(rows: Sequence[BlobError], title: str, path: Path) -> None:
    """Write a PNG of an assessment's rows, the blobs from top to bottom in the order they are computed."""
    import io

    from ..bundle.files import write_file

    picture = Image.new("RGB", (WIDTH, TOP + ROW * max(len(rows), 1) + MARGIN), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default()
    draw.text((MARGIN, 16), title, _INK, ImageFont.load_default(16))
    draw.text((MARGIN, 40), "noise against float32 (light), added by the layer itself (dark); logarithmic", _INK, font)
    for power in range(math.ceil(_LOWEST), math.floor(_HIGHEST) + 1):
        x = _place(10.0**power)
        draw.line((x, TOP, x, TOP + ROW * len(rows)), _GRID)
        draw.text((x - 12, TOP + ROW * len(rows) + 6), f"1e{power}", _INK, font)
    for index, row in enumerate(rows):
        y = TOP + ROW * index
        draw.text((MARGIN, y + 2), row.name[:32], _INK, font)
        for value, color in ((row.noise, _TOTAL), (row.step, _OWN)):
            if value > 10**_LOWEST:
                draw.rectangle((LEFT, y + 3, _place(value), y + ROW - 4), color)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_file(path, buffer.getvalue())


def _place(value: float) -> int:
    """The x coordinate of a noise."""
    share = (min(math.log10(value), _HIGHEST) - _LOWEST) / (_HIGHEST - _LOWEST)
    return round(LEFT + share * (WIDTH - LEFT - MARGIN))
