"""Labels as pictures: palette PNGs for programs, overlays for people."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ..bundle.palettes import Color, make_distinct_colors
from ..errors import InputError

Labels = npt.NDArray[np.uint8]
Picture = npt.NDArray[np.uint8]

_ENTRIES = 256
_LEGIBLE = 200  # pixels of a side from which on points are numbered
_TINT = 0.55  # opacity of the class color in an overlay
_ROWS = 256  # of an overlay drawn at a time


def make_lookup(palette: Sequence[Color]) -> npt.NDArray[np.uint8]:
    """The palette as a 256 x 3 uint8 RGB table; labels beyond it get distinct colors, 255 (void) near-white."""
    table = np.array(make_distinct_colors(_ENTRIES), np.uint8)
    table[_ENTRIES - 1] = (224, 224, 192)  # void in PASCAL VOC's color map
    if len(palette):
        table[: len(palette)] = palette
    return table


def color_labels(labels: Labels, palette: Sequence[Color]) -> Picture:
    """Color labels (H x W uint8) by the palette: H x W x 3 uint8 RGB."""
    _check_labels(labels)
    colors: Picture = make_lookup(palette)[labels]
    return colors


def encode_label_png(labels: Labels, palette: Sequence[Color]) -> bytes:
    """Labels as a PNG of mode P: its pixel values are the labels, its palette their colors.

    Args:
        labels: H x W uint8.
        palette: RGB by label; all 256 entries are written, so that labels keep their 8 bits.
    """
    _check_labels(labels)
    image = Image.fromarray(labels).convert("L")
    image.putpalette(make_lookup(palette).tobytes())
    return _encode_png(image)


def make_overlay(image: Picture, labels: Labels, palette: Sequence[Color]) -> Picture:
    """Tint the image with the labels' colors and draw the borders between labels in white.

    A black class (background, void) leaves the image as it is.

    Args:
        image: H x W x 3 uint8 RGB.
        labels: H x W uint8.
        palette: RGB by label.

    Returns:
        H x W x 3 uint8 RGB.
    """
    _check_labels(labels)
    if image.shape != (*labels.shape, 3):
        raise InputError(f"the image is {image.shape}, the labels are {labels.shape}: they must cover the same pixels")
    table = make_lookup(palette).astype(np.float32)
    opacities = table.any(axis=1) * np.float32(_TINT)
    overlay = np.empty_like(image, order="C")
    for first in range(0, len(labels), _ROWS):  # a few rows at a time: float32 takes twelve times the labels' memory
        rows = slice(first, first + _ROWS)
        opacity = opacities[labels[rows]][:, :, None]  # (h, W, 1)
        overlay[rows] = np.rint(image[rows] * (1 - opacity) + table[labels[rows]] * opacity)
    overlay[_find_borders(labels)] = 255
    return overlay


def draw_points(image: Picture, points: npt.NDArray[np.float32]) -> Picture:
    """Draw numbered dots at points (K x 2 float32, x and y in pixels) on an image, H x W x 3 uint8 RGB."""
    drawn = Image.fromarray(np.ascontiguousarray(image))
    pen = ImageDraw.Draw(drawn)
    radius = max(1, round(min(image.shape[:2]) / 80))
    for index, (x, y) in enumerate(points.tolist()):
        color = make_distinct_colors(index + 1)[index]
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color, outline=(255, 255, 255))
        if min(image.shape[:2]) >= _LEGIBLE:
            pen.text((x + radius + 1, y - radius - 5), str(index), fill=(255, 255, 255))
    return np.array(drawn)


def encode_png(picture: Picture) -> bytes:
    """A picture (H x W x 3 uint8 RGB) as a PNG."""
    return _encode_png(Image.fromarray(np.ascontiguousarray(picture)))


def _find_borders(labels: Labels) -> npt.NDArray[np.bool_]:
    """Pixels whose right or lower neighbor has another label."""
    borders = np.zeros(labels.shape, np.bool_)
    borders[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    borders[:-1] |= labels[:-1] != labels[1:]
    return borders


def _check_labels(labels: Labels) -> None:
    if labels.dtype != np.uint8 or labels.ndim != 2 or labels.size == 0:
        raise InputError(f"labels must be H x W uint8, got {labels.dtype} of shape {labels.shape}")


def _encode_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
