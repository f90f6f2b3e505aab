"""Image files to H x W x 3 uint8 RGB arrays; for anything else, a one-line error.

Rules:

1. Only regular files in plain raster formats (`FORMATS`) are opened; none that runs an interpreter, such as EPS.
2. The EXIF orientation is applied; unreadable EXIF data is ignored. Of several frames or pages the first is read.
3. Gray is repeated into three channels, palettes are looked up. Transparency is dropped, not blended, as OpenCV's
   `imread` does for Caffe's data layers.
4. 16-bit samples keep their high byte, as in OpenCV. Float and wider integer images have no fixed range and are
   refused.
5. CMYK is converted by the simple formula, without its ICC profile.
6. Images of more than `MAX_PIXELS` pixels are refused before they are decoded.
"""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ..bundle.files import open_regular
from ..errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset(
    ".avif .bmp .gif .jpe .jpeg .jpg .jp2 .mpo .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()  # noqa: SIM905
)
MAX_PIXELS = 1 << 26  # 67 million, 8192 x 8192; below the size at which Pillow warns

_ORIENTATION = 0x0112  # the EXIF tag; 1 is upright
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def read_image(path: str | Path) -> npt.NDArray[np.uint8]:
    """Read an image file.

    Returns:
        H x W x 3 uint8, RGB, C-contiguous, upright.

    Raises:
        ImageError: if the file is missing, not an image, damaged, too large, or of a pixel type without a fixed range.
    """
    file_path = Path(path)
    try:
        with open_regular(file_path) as file:
            head = file.read(64)
            file.seek(0)
            try:
                with Image.open(file, formats=_known_formats()) as image:
                    return _to_rgb(image, file_path)
            except UnidentifiedImageError as error:
                raise ImageError(_describe_foreign(head), path=file_path) from error
            except ImageError:
                raise
            except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
                raise ImageError(
                    f"has too many pixels; the limit is {MAX_PIXELS}: resize it", path=file_path
                ) from error
            except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise ImageError(f"is damaged: {reason}", path=file_path) from error
    except FileNotFoundError as error:
        raise ImageError("there is no such file", path=file_path) from error
    except IsADirectoryError as error:
        raise ImageError("is a folder, not an image", path=file_path) from error
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}", path=file_path) from error


def _known_formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _to_rgb(image: PillowImage, path: Path) -> npt.NDArray[np.uint8]:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"has {image.width}x{image.height} pixels; the limit is {MAX_PIXELS}: resize it", path=path)
    turn = _TURNS.get(_read_orientation(image))
    upright = image.transpose(turn) if turn is not None else image
    mode = upright.mode
    if mode in _SIXTEEN_BIT or mode == "I":
        samples = np.asarray(upright)
        if samples.size and (samples.min() < 0 or samples.max() > 0xFFFF):
            raise ImageError("has 32-bit samples without a fixed range: save it with 8 bits", path=path)
        gray = (samples >> 8).astype(np.uint8)  # (H, W)
        return np.repeat(gray[:, :, None], 3, axis=2)  # (H, W, 3)
    if mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"):
        raise ImageError(f"has pixels of type {mode}, which have no fixed range: save it as 8-bit RGB", path=path)
    if "transparency" in image.info:
        # A tRNS chunk or transparent palette entry: Pillow warns unless it is converted to RGBA first.
        upright = upright.convert("RGBA")
    return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"))  # (H, W, 3)


def _read_orientation(image: PillowImage) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a valid image may have malformed EXIF
        return 1


def _describe_foreign(head: bytes) -> str:
    """Describe a file that no decoder recognizes."""
    if not head:
        return "is empty"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the image itself: run `git lfs pull`"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "is an HTML page, not an image: the download failed"
    if _is_text(head):
        return f"is text, not an image (it starts with {head[:24].decode('utf-8', 'replace')!r})"
    return "is not an image in a known format (" + ", ".join(FORMATS) + ")"


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be truncated
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)
