"""Labels as pictures: palette PNGs for programs, overlays for people."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ..bundle.palettes import Color, make_distinct_colors
from ..errors import InputError
from ..printable import escape

Labels = npt.NDArray[np.uint8]
Picture = npt.NDArray[np.uint8]

_ENTRIES = 256
_LEGIBLE = 200  # pixels of a side from which on points are numbered
_ROWS = 256  # of an overlay drawn at a time
_LEAST_SHARE = 0.001  # of the pixels, for a class to be in the legend


@dataclass(frozen=True)
class OverlayStyle:
    """The look of an overlay.

    Attributes:
        opacity: of the class colors, 0 to 1.
        outlines: whether borders between labels are white.
        legend: whether colors, names and shares of the classes are listed below the image.
        format: "png", or "jpeg" for smaller files.
    """

    opacity: float = 0.55
    outlines: bool = True
    legend: bool = False
    format: Literal["png", "jpeg"] = "png"

    def __post_init__(self) -> None:
        if not 0 <= self.opacity <= 1:
            raise InputError(f"the opacity of an overlay must be 0 to 1, got {self.opacity}")
        if self.format not in ("png", "jpeg"):
            raise InputError(f'the format of an overlay must be "png" or "jpeg", got {self.format!r}')


PLAIN = OverlayStyle()


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


def encode_label_png(labels: Labels, palette: Sequence[Color], *, level: int | None = None) -> bytes:
    """Labels as a PNG of mode P: its pixel values are the labels, its palette their colors.

    Args:
        labels: H x W uint8.
        palette: RGB by label; all 256 entries are written, so that labels keep their 8 bits.
        level: of the compression, 1 (fast) to 9 (small); None for Pillow's.
    """
    _check_labels(labels)
    image = Image.fromarray(labels).convert("L")
    image.putpalette(make_lookup(palette).tobytes())
    return _encode_png(image, **({} if level is None else {"compress_level": level}))


def make_overlay(image: Picture, labels: Labels, palette: Sequence[Color], style: OverlayStyle = PLAIN) -> Picture:
    """Tint the image with the labels' colors and draw the borders between labels in white; without the legend.

    A black class (background, void) leaves the image as it is.

    Args:
        image: H x W x 3 uint8 RGB.
        labels: H x W uint8.
        palette: RGB by label.
        style: opacity and outlines.

    Returns:
        H x W x 3 uint8 RGB.
    """
    _check_labels(labels)
    if image.shape != (*labels.shape, 3):
        raise InputError(f"the image is {image.shape}, the labels are {labels.shape}: they must cover the same pixels")
    table = make_lookup(palette).astype(np.float32)
    opacities = table.any(axis=1) * np.float32(style.opacity)
    overlay = np.empty_like(image, order="C")
    for first in range(0, len(labels), _ROWS):  # a few rows at a time: float32 takes twelve times the labels' memory
        rows = slice(first, first + _ROWS)
        opacity = opacities[labels[rows]][:, :, None]  # (h, W, 1)
        overlay[rows] = np.rint(image[rows] * (1 - opacity) + table[labels[rows]] * opacity)
    if style.outlines:
        overlay[_find_borders(labels)] = 255
    return overlay


def add_legend(picture: Picture, labels: Labels, palette: Sequence[Color], classes: Sequence[str]) -> Picture:
    """List colors, names and shares of the classes below a picture, the largest first.

    Args:
        picture: H x W x 3 uint8 RGB.
        labels: uint8 of any size; classes of less than a thousandth of the pixels are left out.
        palette: RGB by label.
        classes: names by label.

    Returns:
        (H + h) x W x 3 uint8 RGB.
    """
    width = picture.shape[1]
    size = max(10, min(28, width // 40))
    font = ImageFont.load_default(size)
    shares = np.bincount(labels.ravel(), minlength=_ENTRIES)[: len(classes)] / labels.size
    line = round(size * 1.5)
    table, entries = make_lookup(palette).tolist(), []
    for index in np.argsort(-shares, kind="stable"):
        if shares[index] >= _LEAST_SHARE:
            text = f"{escape(classes[index])} {shares[index]:.1%}"
            entries.append((tuple(table[index]), text, round(2 * line + font.getlength(text))))
    places, x, y = [], 0, 0
    for color, text, needed in entries:
        if x and x + needed > width:
            x, y = 0, y + line
        places.append((x, y, color, text))
        x += needed
    strip = Image.new("RGB", (width, y + line), "white")
    pen = ImageDraw.Draw(strip)
    for x, y, color, text in places:
        edge = line // 4
        pen.rectangle((x + edge, y + edge, x + line - edge, y + line - edge), fill=color, outline="gray")
        pen.text((x + line, y + line // 2), text, fill="black", font=font, anchor="lm")
    return np.concatenate([picture, np.array(strip)])


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


def encode_gray_png(picture: npt.NDArray[np.uint8]) -> bytes:
    """Gray levels (H x W uint8) as a PNG."""
    return _encode_png(Image.fromarray(picture))


def encode_jpeg(picture: Picture) -> bytes:
    """A picture (H x W x 3 uint8 RGB) as a JPEG of quality 90, with colors at full resolution."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def _find_borders(labels: Labels) -> npt.NDArray[np.bool_]:
    """Pixels whose right or lower neighbor has another label."""
    borders = np.zeros(labels.shape, np.bool_)
    borders[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    borders[:-1] |= labels[:-1] != labels[1:]
    return borders


def _check_labels(labels: Labels) -> None:
    if labels.dtype != np.uint8 or labels.ndim != 2 or labels.size == 0:
        raise InputError(f"labels must be H x W uint8, got {labels.dtype} of shape {labels.shape}")


def _encode_png(image: Image.Image, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()
