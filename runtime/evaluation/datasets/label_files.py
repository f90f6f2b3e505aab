"""Label images to label maps, and what users get wrong about them.

Rules:

1. A label image is a lossless file (PNG, BMP, TIFF, GIF, PPM). A JPEG invents labels at borders and is refused.
2. One channel of integers is labels as they stand; a palette is never looked up. 16-bit labels must fit a byte.
3. Three channels are colours. They become labels only where the data set says what each colour means (`ColourCoding`),
   and then every colour must be one of those.
4. A coding turns stored numbers into classes 0 to n - 1 and `VOID`. A number without a meaning is an error, and the
   message says which of the usual mistakes its numbers look like: greys of a palette, another offset, another coding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ....bundle.palettes import Color
from ....errors import DatasetError
from ...images import MAX_PIXELS
from ..confusion import VOID, LabelMap

FORMATS = ("PNG", "BMP", "TIFF", "GIF", "PPM")
_LOSSY = ("JPEG", "WEBP")  # opened only to say what is wrong with them
_BYTE_LABELS = 256
_SHOWN = 6  # numbers or colours named in a message


class Coding(Protocol):
    """What the pixels of a label image mean."""

    def decode(self, stored: npt.NDArray[Any], path: Path) -> LabelMap:
        """Classes, H x W uint8 with `VOID`, of what `read_label_image` gave; DatasetError where there is none."""
        ...


def read_label_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read a label image as it is stored: H x W uint8 numbers, or H x W x 3 uint8 RGB colours.

    Raises:
        DatasetError: if it is missing, damaged, lossy, too large, or of numbers beyond a byte.
    """
    try:
        with Image.open(path, formats=(*FORMATS, *_LOSSY)) as image:
            if image.format not in FORMATS:
                raise DatasetError(
                    f"is a {image.format}, which does not keep labels exact: use the data set's own {FORMATS[0]}",
                    path=path,
                )
            if image.width * image.height > MAX_PIXELS:
                raise DatasetError(f"has {image.width}x{image.height} pixels; at most {MAX_PIXELS} are read", path=path)
            return _take_samples(image, path)
    except FileNotFoundError as error:
        raise DatasetError("there is no such label image", path=path) from error
    except UnidentifiedImageError as error:
        raise DatasetError("is not an image: labels are stored as PNG", path=path) from error
    except DatasetError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DatasetError(f"cannot be read: {reason}", path=path) from error


def _take_samples(image: Image.Image, path: Path) -> npt.NDArray[np.uint8]:
    if image.mode in ("L", "P"):
        return np.array(image, np.uint8)  # (H, W)
    if image.mode == "1":
        return np.array(image, np.uint8)  # 0 and 1
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        wide = np.asarray(image)
        if int(wide.min()) < 0 or int(wide.max()) >= _BYTE_LABELS:
            raise DatasetError(
                f"holds 16-bit numbers up to {int(wide.max())}: labels go from 0 to 255 (instance ids and depth are no "
                "labels)",
                path=path,
            )
        return wide.astype(np.uint8)
    if image.mode in ("RGB", "RGBA", "RGBX"):
        pixels = np.asarray(image)
        if image.mode == "RGBA" and (pixels[..., 3] != 255).any():
            raise DatasetError("is partly transparent: a label image is opaque", path=path)
        return np.ascontiguousarray(pixels[..., :3])  # (H, W, 3)
    raise DatasetError(
        f"holds pixels of the kind {image.mode}, which are no labels: store them as 8-bit PNG", path=path
    )


@dataclass(frozen=True)
class IndexCoding:
    """Stored numbers are looked up in a table.

    Attributes:
        meanings: stored number -> class or `VOID`.
        classes: how many classes there are.
        what: what the data set calls such images, for messages.
        palette: the colours such images are usually painted in, to recognise them where they were looked up.
        is_open: whether --label-colours and --label-offset can say what the images hold.
    """

    meanings: Mapping[int, int]
    classes: int
    what: str = "label images"
    palette: Sequence[Color] = ()
    is_open: bool = False

    def decode(self, stored: npt.NDArray[Any], path: Path) -> LabelMap:
        """Look the numbers up.

        Raises:
            DatasetError: for colours, and for numbers without a meaning.
        """
        if stored.ndim == 3:
            raise DatasetError(self._describe_colours(stored), path=path)
        table = np.full(_BYTE_LABELS, -1, np.int16)
        for number, meaning in self.meanings.items():
            table[number] = meaning
        present = np.flatnonzero(np.bincount(stored.ravel(), minlength=_BYTE_LABELS))
        unknown = [int(number) for number in present if table[number] < 0]
        if unknown:
            raise DatasetError(self._describe_unknown(unknown, present), path=path)
        labels: LabelMap = table.astype(np.uint8)[stored]
        return labels

    def _describe_colours(self, stored: npt.NDArray[Any]) -> str:
        found = set(_find_colours(stored))
        if len(found) == 1 and bool((stored[..., 0] == stored[..., 1]).all()) and stored.max() < self.classes:
            return "holds its labels three times, as grey colours: store one channel"
        painted = {(224, 224, 192), *((red, green, blue) for red, green, blue in self.palette)}
        if self.palette and found <= painted:
            return (
                f"holds the palette's colours instead of labels: the {self.what} were saved again as RGB. Use the "
                "original palette PNGs (Image.open keeps their numbers, cv2.imread does not)"
                + (", or --label-colours" if self.is_open else "")
            )
        if self.palette and {colour[::-1] for colour in found} <= painted:
            return (
                "holds the palette's colours instead of labels, red and blue swapped (cv2.imwrite takes BGR): use the "
                "original palette PNGs"
            )
        return (
            f"is a colour picture of {len(found)} colours, not labels: {self.what} have one channel, the number of the "
            "class"
        )

    def _describe_unknown(self, unknown: Sequence[int], present: npt.NDArray[Any]) -> str:
        numbers = _list_some(unknown)
        problem = f"holds {numbers}, which no class of the {self.what} has ({self._describe_known()})"
        judged = [int(number) for number in present if number != VOID]
        greys = {_to_grey(colour) for colour in self.palette} | {_to_grey((224, 224, 192))}
        if self.palette and set(judged) <= greys and max(unknown) >= self.classes + 1:
            return f"{problem}: these are the grey levels of the palette's colours; keep the PNG's own numbers instead"
        if max(unknown) == self.classes and self.classes - 1 in self.meanings:
            return f"{problem}: labels from 1 instead of 0? Then " + (
                "give --label-offset 1" if self.is_open else "subtract 1"
            )
        return f"{problem}: are these the labels of another data set, or of another coding?"

    def _describe_known(self) -> str:
        known = sorted(number for number, meaning in self.meanings.items() if meaning != VOID)
        void = sorted(number for number, meaning in self.meanings.items() if meaning == VOID)
        classes = f"{known[0]} to {known[-1]}" if known[-1] - known[0] == len(known) - 1 else _list_some(known)
        return f"classes {classes}" + (f", void {_list_some(void)}" if void else "")


@dataclass(frozen=True)
class ColourCoding:
    """Stored colours are looked up in a table.

    Attributes:
        meanings: RGB -> class or `VOID`.
        what: what the data set calls such images, for messages.
    """

    meanings: Mapping[Color, int]
    what: str = "label images"

    def decode(self, stored: npt.NDArray[Any], path: Path) -> LabelMap:
        """Look the colours up.

        Raises:
            DatasetError: for numbers instead of colours, and for colours without a meaning.
        """
        if stored.ndim != 3:
            raise DatasetError(
                f"holds numbers, not colours: {self.what} are RGB; for label numbers use the layout of those", path=path
            )
        codes = _encode_colours(stored)  # (H, W)
        present, inverse = np.unique(codes, return_inverse=True)
        known = {_encode_colour(colour): meaning for colour, meaning in self.meanings.items()}
        unknown = [int(code) for code in present if int(code) not in known]
        if unknown:
            names = _list_some([(code >> 16, code >> 8 & 255, code & 255) for code in unknown])
            swapped = {(code & 255) << 16 | (code & 0xFF00) | code >> 16 for code in map(int, present)}
            advice = (
                "red and blue are swapped; save it as RGB (cv2.imwrite takes BGR)"
                if swapped <= known.keys()
                else "scaling with interpolation and JPEG make such colours; use the original file"
            )
            share = float(np.isin(codes, unknown).mean())
            raise DatasetError(
                f"holds the colours {names} ({share:.2%} of its pixels), which none of the {len(known)} of the "
                f"{self.what} is: {advice}",
                path=path,
            )
        values = np.array([known[int(code)] for code in present], np.uint8)
        return values[inverse].reshape(codes.shape)


def make_index_coding(
    classes: int,
    *,
    void: int = VOID,
    offset: int = 0,
    what: str = "label images",
    palette: Sequence[Color] = (),
    is_open: bool = False,
) -> IndexCoding:
    """Numbers `offset` to `offset` + n - 1 are the classes, `void` is void (where no class has its number)."""
    meanings = {void: VOID} if 0 <= void < _BYTE_LABELS else {}
    meanings |= {offset + index: index for index in range(classes) if offset + index < _BYTE_LABELS}
    return IndexCoding(meanings, classes, what, palette, is_open)


def _encode_colours(pixels: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    wide = pixels.astype(np.int32)
    codes: npt.NDArray[np.int32] = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return codes


def _encode_colour(colour: Color) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _find_colours(pixels: npt.NDArray[Any]) -> list[Color]:
    return [(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in np.unique(_encode_colours(pixels))]


def _to_grey(colour: Sequence[int]) -> int:
    """ITU-R 601 luma, as Pillow's mode L and OpenCV's greyscale round it."""
    return (colour[0] * 19595 + colour[1] * 38470 + colour[2] * 7471 + 0x8000) >> 16


def _list_some(values: Sequence[object]) -> str:
    text = ", ".join(map(str, values[:_SHOWN]))
    return text + (f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else "")
