"""Images from files, bytes and Python objects to H x W x 3 uint8 RGB arrays; for anything else, a one-line error.

Rules:

1. Only regular files in plain raster formats (`FORMATS`) are opened; none that runs an interpreter, such as EPS.
2. The EXIF orientation is applied; unreadable EXIF data is ignored. Of several frames or pages the first is read,
   unless another is asked for.
3. Gray is repeated into three channels, palettes are looked up. Transparency is dropped, not blended, as OpenCV's
   `imread` does for Caffe's data layers; `read_transparency` has it.
4. 16-bit samples keep their high byte, as in OpenCV. Float and wider integer images have no fixed range and are
   refused.
5. CMYK is converted by the simple formula, without its ICC profile.
6. Images of more than `MAX_PIXELS` pixels are refused before they are decoded.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ..bundle.files import open_regular
from ..errors import AtrousError, ImageError, InputError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

ColorOrder = Literal["rgb", "bgr"]
AnyImage: TypeAlias = "npt.NDArray[np.uint8] | PillowImage | str | os.PathLike[str]"
Source = str | Path  # of an image, for messages
T = TypeVar("T")

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
_OPAQUE = 128  # alpha from which a pixel is more opaque than transparent
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def read_image(path: str | Path, *, frame: int = 0) -> npt.NDArray[np.uint8]:
    """Read an image file.

    Args:
        path: the file.
        frame: index of the frame or page, from 0.

    Returns:
        H x W x 3 uint8, RGB, C-contiguous, upright.

    Raises:
        ImageError: if the file is missing, not an image, damaged, too large, or of a pixel type without a fixed range,
            or has no such frame.
    """
    return open_picture(path, lambda image, name: _to_rgb(_seek(image, frame, name), name))


def decode_image(
    content: bytes | memoryview, name: str, *, max_pixels: int = MAX_PIXELS, formats: Sequence[str] = FORMATS
) -> npt.NDArray[np.uint8]:
    """Decode the bytes of an image file in one of `formats`; result and errors as of `read_image`, `name` as path."""

    def read(image: PillowImage, name: Source) -> npt.NDArray[np.uint8]:
        check_pixels(image, name, max_pixels)
        return _to_rgb(image, name)

    return _decode(io.BytesIO(content), name, read, formats, limit=max_pixels)


def decode_size(content: bytes | memoryview, formats: Sequence[str] = FORMATS) -> tuple[int, int] | None:
    """The (height, width) in the header of an image file's bytes; as `read_size`."""
    try:
        return _decode(io.BytesIO(content), "image", lambda image, name: (image.height, image.width), formats)
    except ImageError:
        return None


def count_frames(path: str | Path) -> int:
    """The number of frames or pages of an image file, such as an animated GIF; errors as of `read_image`."""
    return open_picture(path, lambda image, name: int(getattr(image, "n_frames", 1)))


def read_size(path: str | Path) -> tuple[int, int] | None:
    """The (height, width) in an image file's header, before its orientation is applied; None if it cannot be read."""
    try:
        return open_picture(path, lambda image, name: (image.height, image.width))
    except ImageError:  # reading it reports the error
        return None


def read_transparency(image: str | Path | bytes, *, frame: int = 0) -> npt.NDArray[np.bool_] | None:
    """Pixels of an image file that are more transparent than opaque: H x W, or None for an image without alpha."""

    def read(image: PillowImage, name: Source) -> npt.NDArray[np.bool_] | None:
        upright = _turn(_seek(image, frame, name), name)
        if "transparency" not in image.info and "A" not in upright.getbands() and upright.mode != "PA":
            return None
        alpha: npt.NDArray[np.uint8] = np.asarray(upright.convert("RGBA").getchannel("A"))
        return alpha < _OPAQUE

    return _decode(io.BytesIO(image), "image", read) if isinstance(image, bytes) else open_picture(image, read)


def as_rgb(image: object, color_order: ColorOrder = "rgb") -> npt.NDArray[np.uint8]:
    """Bring what Python users hold as an image to H x W x 3 uint8 RGB.

    Args:
        image: a path, a Pillow image, or an H x W x 3 uint8 array.
        color_order: "bgr" for an array of OpenCV's `imread`.

    Raises:
        ImageError: as `read_image`.
        InputError: for anything else, with the call to use.
    """
    if color_order not in ("rgb", "bgr"):
        raise InputError(f'color_order must be "rgb" or "bgr", got {color_order!r}')
    is_array = isinstance(image, np.ndarray)
    if color_order == "bgr" and not is_array:
        raise InputError('color_order="bgr" is for arrays: files and Pillow images state their order themselves')
    if isinstance(image, str | os.PathLike):
        return read_image(os.fspath(image))
    if isinstance(image, Image.Image):
        return _to_rgb(image, getattr(image, "filename", None) or "image")
    if not isinstance(image, np.ndarray):
        hint = "pass a path, a Pillow image, or an H x W x 3 uint8 array"
        if hasattr(image, "detach") and hasattr(image, "numpy"):
            hint = "of a C x H x W tensor in 0..1 pass (255 * image).byte().permute(1, 2, 0).numpy()"
        raise InputError(f"an image cannot be a {type(image).__name__}: {hint}")
    if image.ndim == 4:
        raise InputError(f"the shape {image.shape} is that of a batch: call it for each image, or label_files for many")
    if image.dtype != np.uint8:
        raise InputError(f"an image must be a uint8 array, got {image.dtype}: scale it to 0..255 and convert it")
    if image.ndim == 2 and image.size:
        raise InputError("the image is gray: pass np.repeat(image[:, :, None], 3, axis=2)")
    if image.ndim == 3 and image.shape[2] == 4 and image.size:
        raise InputError("the image has an alpha channel: pass image[:, :, :3]")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(f"an image must be H x W x 3 (RGB), got the shape {image.shape}")
    return image if color_order == "rgb" else np.ascontiguousarray(image[:, :, ::-1])


def open_picture(
    path: str | Path,
    read: Callable[[PillowImage, Source], T],
    formats: Sequence[str] = FORMATS,
    fail: Callable[..., AtrousError] = ImageError,
) -> T:
    """Open an image file in one of `formats` and read something from it.

    Args:
        path: the file.
        read: gets the image, not decoded yet and of any size, and the path for messages.
        formats: Pillow's names.
        fail: makes the error for a file that is missing, damaged or of another format, from a message and `path=`.
    """
    file_path = Path(path)
    try:
        with open_regular(file_path) as file:
            return _decode(file, file_path, read, formats, fail)
    except FileNotFoundError as error:
        raise fail("there is no such file", path=file_path) from error
    except IsADirectoryError as error:
        raise fail("is a folder, not an image", path=file_path) from error
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror}", path=file_path) from error


def _decode(
    file: IO[bytes],
    path: Source,
    read: Callable[[PillowImage, Source], T],
    formats: Sequence[str] = FORMATS,
    fail: Callable[..., AtrousError] = ImageError,
    limit: int = MAX_PIXELS,
) -> T:
    head = file.read(64)
    file.seek(0)
    try:
        with Image.open(file, formats=_known_formats(formats)) as image:
            return read(image, path)
    except UnidentifiedImageError as error:
        raise fail(_describe_foreign(head, formats), path=path) from error
    except AtrousError:
        raise
    except MemoryError as error:
        raise fail("needs more memory to decode than is free: resize it", path=path) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        size = _find_size(file, head, formats)
        raise fail(f"has {size} pixels; the limit is {limit}: resize it", path=path) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise fail(f"is damaged: {reason}", path=path) from error


def _find_size(file: IO[bytes], head: bytes, formats: Sequence[str]) -> str:
    """The WIDTHxHEIGHT of a picture that is too large for `Image.open`, as its decoder reads the header."""
    for name in _known_formats(formats):
        make, accepts = Image.OPEN[name]
        if accepts is not None and accepts(head) is True:
            file.seek(0)
            with contextlib.suppress(Exception), make(file, "") as image:
                return f"{image.width}x{image.height}"
    return "too many"


def _seek(image: PillowImage, frame: int, path: Source) -> PillowImage:
    if frame:
        try:
            image.seek(frame)
        except EOFError as error:
            raise ImageError(f"has no frame {frame}", path=path) from error
    return image


def _known_formats(formats: Sequence[str]) -> list[str]:
    Image.init()
    return [name for name in formats if name in Image.OPEN]


def check_pixels(image: PillowImage, path: Source, limit: int, fail: Callable[..., AtrousError] = ImageError) -> None:
    """Refuse an image of more pixels than the limit, before it is decoded."""
    if image.width * image.height > limit:
        raise fail(f"has {image.width}x{image.height} pixels; the limit is {limit}: resize it", path=path)


def _turn(image: PillowImage, path: Source) -> PillowImage:
    """Turn an image upright, after a check of its size."""
    check_pixels(image, path, MAX_PIXELS)
    turn = _TURNS.get(_read_orientation(image))
    return image.transpose(turn) if turn is not None else image


def _to_rgb(image: PillowImage, path: Source) -> npt.NDArray[np.uint8]:
    upright = _turn(image, path)
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


def _describe_foreign(head: bytes, formats: Sequence[str]) -> str:
    """Describe a file that no decoder recognizes."""
    if not head:
        return "is empty"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the image itself: run `git lfs pull`"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "is an HTML page, not an image: the download failed"
    if _is_text(head):
        return f"is text, not an image (it starts with {head[:24].decode('utf-8', 'replace')!r})"
    return "is not an image in a known format (" + ", ".join(formats) + ")"


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be truncated
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)
