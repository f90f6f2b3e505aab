"""Files of numbers beside an image: depth planes and arrays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..bundle.files import open_regular
from ..errors import ImageError
from .images import MAX_PIXELS, Source, check_pixels, open_picture

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

_MAX_BYTES = 1 << 30
_FORMATS = ("PNG", "TIFF", "PPM", "BMP")
_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")


def read_plane(path: str | Path) -> npt.NDArray[np.float32]:
    """Read a plane of numbers, such as depth: a PNG or TIFF of one channel (8, 16 or 32 bits), or a `.npy` of two axes.

    Returns:
        H x W float32, the numbers as stored.

    Raises:
        ImageError: if the file is missing, damaged, too large, or has another form.
    """
    file = Path(path)
    if file.suffix.lower() == ".npy":
        array = read_array(file)
        if array.ndim != 2:
            raise ImageError(f"has the shape {array.shape}; a plane has two axes", path=file)
        return array
    return open_picture(file, _read_plane, _FORMATS)


def _read_plane(image: PillowImage, name: Source) -> npt.NDArray[np.float32]:
    check_pixels(image, name, MAX_PIXELS)
    if image.mode not in _MODES:
        raise ImageError(f"has pixels of type {image.mode}; a plane has one channel of numbers", path=name)
    return np.asarray(image).astype(np.float32)


def read_array(path: str | Path) -> npt.NDArray[Any]:
    """Read a `.npy` file of numbers as float32; ImageError if it is missing, too large, pickled, or not of numbers."""
    file = Path(path)
    try:
        with open_regular(file) as stream:
            if os.fstat(stream.fileno()).st_size > _MAX_BYTES:
                raise ImageError(f"has more than {_MAX_BYTES} bytes", path=file)
            array = np.load(stream, allow_pickle=False)
    except ImageError:
        raise
    except Exception as error:  # NumPy raises nearly anything on damaged files
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise ImageError(f"cannot be read as .npy: {reason}", path=file) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise ImageError("does not hold an array of real numbers", path=file)
    return array.astype(np.float32)
