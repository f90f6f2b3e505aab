"""The demo's picture: one row per scene (image, network, with CRF, truth), titles above, the legend below.

Label maps are painted in the palette's colors, darker along the borders of classes. The font is Pillow's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..runtime.pictures import color_labels

Picture = NDArray[np.uint8]

TITLES = ("image", "network", "with CRF", "truth")

_PAPER, _INK, _FAINT, _ACCENT = (251, 250, 247), (38, 42, 48), (126, 132, 140), (38, 122, 84)
_MARGIN, _GAP = 28, 10  # pixels around everything, and between panels
_HEADER, _TITLE, _CAPTION, _LEGEND = 74, 30, 30, 64  # heights of the lines of text in pixels


@dataclass(frozen=True)
class DemoRow:
    """One scene of the picture: uint8 RGB image, uint8 labels, mean IoU over its own classes as fractions of 1."""

    image: Picture
    network: Picture
    crf: Picture
    truth: Picture
    miou_network: float
    miou_crf: float
    network_ms: float | None
    crf_ms: float


def draw_demo(
    rows: Sequence[DemoRow],
    classes: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
    heading: str,
    summary: str,
) -> Picture:
    """Draw the whole picture, (H, W, 3) uint8 RGB; the panels of a row have one size."""
    panel_width = max(row.image.shape[1] for row in rows)
    columns = [_MARGIN + index * (panel_width + _GAP) for index in range(len(TITLES))]
    width = columns[-1] + panel_width + _MARGIN
    height = _MARGIN + _HEADER + _TITLE + sum(row.image.shape[0] + _CAPTION for row in rows) + _LEGEND
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN - 4), heading, _INK, ImageFont.load_default(26))
    draw.text((_MARGIN, _MARGIN + 34), summary, _FAINT, ImageFont.load_default(16))
    top = _MARGIN + _HEADER
    for left, title in zip(columns, TITLES, strict=True):
        draw.text((left, top), title, _INK, ImageFont.load_default(18))
    top += _TITLE
    for row in rows:
        panels = [row.image, *(paint_labels(labels, palette) for labels in (row.network, row.crf, row.truth))]
        for left, panel in zip(columns, panels, strict=True):
            sheet.paste(Image.fromarray(panel), (left, top))
        top += row.image.shape[0]
        _write_captions(draw, columns, top + 4, row)
        top += _CAPTION
    _draw_legend(draw, width, top + _LEGEND // 2 - 12, classes, palette)
    return np.array(sheet)


def paint_labels(labels: Picture, palette: Sequence[tuple[int, int, int]]) -> Picture:
    """Labels (H, W) in their colors, darker where the right or the lower neighbor is of another class."""
    painted = color_labels(labels, palette)
    border = np.zeros(labels.shape, bool)
    border[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    border[:-1] |= labels[:-1] != labels[1:]
    painted[border] = painted[border] // 5 * 3
    return painted


def _write_captions(draw: ImageDraw.ImageDraw, columns: Sequence[int], top: int, row: DemoRow) -> None:
    font = ImageFont.load_default(14)
    size = f"{row.image.shape[1]} x {row.image.shape[0]}"
    draw.text((columns[0], top), size, _FAINT, font)
    spent = "" if row.network_ms is None else f"   {row.network_ms:.0f} ms"
    draw.text((columns[1], top), f"mean IoU {row.miou_network:.1%}{spent}", _FAINT, font)
    draw.text((columns[2], top), f"mean IoU {row.miou_crf:.1%}", _ACCENT, font)
    shift = draw.textlength(f"mean IoU {row.miou_crf:.1%}   ", font)
    draw.text((columns[2] + shift, top), f"{row.crf_ms:.0f} ms", _FAINT, font)


def _draw_legend(
    draw: ImageDraw.ImageDraw, width: int, top: int, classes: Sequence[str], palette: Sequence[tuple[int, int, int]]
) -> None:
    """Swatches and names in one line, centered."""
    font = ImageFont.load_default(16)
    lengths = [28 + draw.textlength(name, font) + 26 for name in classes]
    left = (width - sum(lengths)) / 2
    for name, color, length in zip(classes, palette, lengths, strict=True):
        draw.rounded_rectangle((left, top, left + 20, top + 20), 4, fill=tuple(color))
        draw.text((left + 28, top), name, _INK, font)
        left += length
