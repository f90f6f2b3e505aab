"""Reads label images into label maps, and recognizes common mistakes in them.

Rules:

1. A label image is a lossless file (PNG, BMP, TIFF, GIF, PPM). JPEG invents labels at borders and is rejected.
2. One channel of integers holds labels as they are; a palette is ignored. 16-bit labels must fit in a byte.
3. Three channels are colors. They become labels only if the dataset defines every one of them (`ColorCoding`).
4. A coding maps stored numbers to classes 0 to n - 1 and `VOID`. A number without a meaning is an error, and the
   message names the usual mistake that its numbers look like: grays of a palette, another offset, another coding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ....bundle.palettes import Color
from ....errors import DatasetError
from ...images import MAX_PIXELS, Source, check_pixels, open_picture
from ..confusion import VOID, LabelMap

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

FORMATS = ("PNG", "BMP", "TIFF", "GIF", "PPM")
VOC_VOID_COLOR: Color = (224, 224, 192)
_LOSSY = ("JPEG", "WEBP")  # opened only to report them as such
_BYTE_LABELS = 256
_SHOWN = 6  # values named in a message


class Coding(Protocol):
    """The meaning of the pixels of a label image."""

    def decode(self, stored: npt.NDArray[Any], path: Path) -> LabelMap:
        """Map the result of `read_label_image` to classes and `VOID`, H x W uint8.

        Raises:
            DatasetError: if a pixel has no meaning.
        """
        ...


def read_label_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read a label image as it is stored: H x W uint8 numbers, or H x W x 3 uint8 RGB colors.

    Raises:
        DatasetError: if it is missing, damaged, lossy or too large, or has numbers beyond a byte.
    """
    return open_picture(path, _read_samples, (*FORMATS, *_LOSSY), DatasetError)


def _read_samples(image: PillowImage, path: Source) -> npt.NDArray[np.uint8]:
    if image.format not in FORMATS:
        problem = f"is a {image.format}, which does not keep labels exact: use the dataset's own PNG"
        raise DatasetError(problem, path=path)
    check_pixels(image, path, MAX_PIXELS, DatasetError)
    if image.mode in ("L", "P", "1"):  # "1" holds 0 and 1
        return np.array(image, np.uint8)  # (H, W)
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        wide = np.asarray(image)
        if int(wide.min()) < 0 or int(wide.max()) >= _BYTE_LABELS:
            problem = f"holds 16-bit numbers up to {int(wide.max())}: labels are 0 to 255 (not instance ids or depth)"
            raise DatasetError(problem, path=path)
        return wide.astype(np.uint8)
    if image.mode in ("RGB", "RGBA", "RGBX"):
        pixels = np.asarray(image)
        if image.mode == "RGBA" and (pixels[..., 3] != 255).any():
            raise DatasetError("is partly transparent: a label image is opaque", path=path)
        return np.ascontiguousarray(pixels[..., :3])  # (H, W, 3)
    raise DatasetError(f"has pixels of mode {image.mode}, which cannot hold labels: store an 8-bit PNG", path=path)


@dataclass(frozen=True)
class IndexCoding:
    """Maps stored numbers by a table."""

    meanings: Mapping[int, int]  # stored number -> class or `VOID`
    classes: int  # their number
    what: str = "label images"  # name in messages
    palette: Sequence[Color] = ()  # the usual colors, to recognize images saved as colors
    is_open: bool = False  # whether the options --label-colors and --label-offset apply

    def decode(self, stored: npt.NDArray[Any], path: Path) -> LabelMap:
        """See `Coding.decode`."""
        if stored.ndim == 3:
            raise DatasetError(self._describe_colors(stored), path=path)
        table = np.full(_BYTE_LABELS, -1, np.int16)
        table[list(self.meanings)] = list(self.meanings.values())
        present = np.flatnonzero(np.bincount(stored.ravel(), minlength=_BYTE_LABELS)).tolist()
        unknown = [number for number in present if table[number] < 0]
        if unknown:
            raise DatasetError(self._describe_unknown(unknown, present), path=path)
        labels: LabelMap = table.astype(np.uint8)[stored]
        return labels

    def _describe_colors(self, stored: npt.NDArray[Any]) -> str:
        found = {_split_color(code) for code in np.unique(_join_colors(stored)).tolist()}
        if len(found) == 1 and bool((stored[..., 0] == stored[..., 1]).all()) and stored.max() < self.classes:
            return "holds its labels three times, as gray colors: store one channel"
        palette = {VOC_VOID_COLOR, *(tuple(color) for color in self.palette)}
        problem = "holds the palette's colors instead of labels"
        if self.palette and found <= palette:
            return (
                f"{problem}: the {self.what} were saved again as RGB. Use the original palette PNGs (Image.open keeps "
                "their numbers, cv2.imread does not)" + (", or --label-colors" if self.is_open else "")
            )
        if self.palette and {color[::-1] for color in found} <= palette:
            return f"{problem}, red and blue swapped (cv2.imwrite takes BGR): use the original palette PNGs"
        return f"is a color picture of {len(found)} colors: {self.what} have one channel, the number of the class"

    def _describe_unknown(self, unknown: Sequence[int], present: Sequence[int]) -> str:
        known = sorted(number for number, meaning in self.meanings.items() if meaning != VOID)
        void = sorted(number for number, meaning in self.meanings.items() if meaning == VOID)
        classes = f"{known[0]} to {known[-1]}" if known[-1] - known[0] == len(known) - 1 else list_some(known)
        valid = f"classes {classes}" + (f", void {list_some(void)}" if void else "")
        problem = f"holds {list_some(unknown)}, which no class of the {self.what} has ({valid})"
        grays = {_to_gray(color) for color in (*self.palette, VOC_VOID_COLOR)}
        if self.palette and set(present) - {VOID} <= grays and max(unknown) >= self.classes + 1:
            return f"{problem}: these are the gray levels of the palette's colors; keep the PNG's own numbers instead"
        if max(unknown) == self.classes and self.classes - 1 in self.meanings:
            advice = "use --label-offset 1" if self.is_open else "subtract 1"
            return f"{problem}: labels from 1 instead of 0? Then {advice}"
        return f"{problem}: are these the labels of another dataset, or of another coding?"


@dataclass(frozen=True)
class ColorCoding:
    """Maps stored colors by a table."""

    meanings: Mapping[Color, int]  # RGB -> class or `VOID`
    what: str = "label images"  # name in messages

    def decode(self, stored: npt.NDArray[Any], path: Path) -> LabelMap:
        """See `Coding.decode`."""
        if stored.ndim != 3:
            problem = f"holds numbers, not colors: {self.what} are RGB; for label numbers use the layout of those"
            raise DatasetError(problem, path=path)
        codes = _join_colors(stored)  # (H, W)
        present, inverse = np.unique(codes, return_inverse=True)
        colors = [_split_color(code) for code in present.tolist()]
        unknown = [color for color in colors if color not in self.meanings]
        if unknown:
            is_swapped = all(color[::-1] in self.meanings for color in colors)
            advice = (
                "red and blue are swapped; save it as RGB (cv2.imwrite takes BGR)"
                if is_swapped
                else "resizing with interpolation and JPEG make such colors; use the original file"
            )
            share = float(np.isin(codes, [red << 16 | green << 8 | blue for red, green, blue in unknown]).mean())
            raise DatasetError(
                f"holds the colors {list_some(unknown)} ({share:.2%} of its pixels), not among the "
                f"{len(self.meanings)} of the {self.what}: {advice}",
                path=path,
            )
        values = np.array([self.meanings[color] for color in colors], np.uint8)
        return values[inverse].reshape(codes.shape)


@dataclass(frozen=True)
class EitherCoding:
    """Label images hold numbers or colors; each file has one kind."""

    numbers: IndexCoding
    colors: ColorCoding

    def decode(self, stored: npt.NDArray[Any], path: Path) -> LabelMap:
        """See `Coding.decode`."""
        return (self.colors if stored.ndim == 3 else self.numbers).decode(stored, path)


def make_index_coding(
    classes: int,
    *,
    void: int = VOID,
    offset: int = 0,
    what: str = "label images",
    palette: Sequence[Color] = (),
    is_open: bool = False,
) -> IndexCoding:
    """A coding of the classes as `offset` to `offset` + n - 1, and void as `void`.

    A class that has the number of void is ignored, unless that is 255, the default.
    """
    meanings = {offset + index: index for index in range(classes) if offset + index < _BYTE_LABELS}
    if 0 <= void < _BYTE_LABELS and (void != VOID or void not in meanings):
        meanings[void] = VOID
    return IndexCoding(meanings, classes, what, palette, is_open)


def list_some(values: Iterable[object]) -> str:
    """The first values for a message, and the number of the others."""
    texts = [str(value) for value in values]
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


def _join_colors(pixels: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    wide = pixels.astype(np.int32)
    codes: npt.NDArray[np.int32] = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return codes


def _split_color(code: int) -> Color:
    return code >> 16, code >> 8 & 255, code & 255


def _to_gray(color: Color) -> int:
    """ITU-R 601 luma with the rounding of Pillow's mode L and OpenCV."""
    return (color[0] * 19595 + color[1] * 38470 + color[2] * 7471 + 0x8000) >> 16
