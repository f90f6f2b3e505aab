"""The mean pixel of a mean image (`mean.binaryproto`, `mean.npy`): a net that accepts any size subtracts one pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...bundle.files import open_regular
from ...errors import CaffemodelError
from .caffemodel import read_mean

#: gray levels; smaller differences between the pixels of a mean image are rounding errors
LEAST_SPREAD = 1e-2


def read_mean_pixel(path: str | Path) -> tuple[tuple[float, float, float], str | None]:
    """Average a mean image of 1 or 3 channels over its pixels.

    Args:
        path: Caffe's BlobProto, or a NumPy array of shape (C), (C, H, W), (1, C, H, W) or (H, W, C), as pycaffe's
            `ilsvrc_2012_mean.npy`.

    Returns:
        The mean pixel in gray levels, in the net's channel order, and a warning if the pixels differ, else None.

    Raises:
        CaffemodelError: another kind of file, another number of channels, or numbers that are not finite.
    """
    image = _read_numpy(Path(path)) if is_numpy(path) else read_mean(path)
    channels, height, width = image.shape
    if channels not in (1, 3):
        raise CaffemodelError(f"is a mean image of {channels} channels; give one of 1 or 3, or --mean B,G,R", path=path)
    if not np.isfinite(image).all():
        raise CaffemodelError("is a mean image that is not finite; give --mean B,G,R", path=path)
    values = [round(float(value), 4) for value in image.mean((1, 2), dtype=np.float64)]
    first, second, third = values if channels == 3 else values * 3
    spread = float((image.max((1, 2)) - image.min((1, 2))).max())
    if spread < LEAST_SPREAD:
        return (first, second, third), None
    return (first, second, third), (
        f"{Path(path).name} is a mean image of {height} x {width} whose pixels differ by up to {spread:.3g} gray "
        f"levels; its mean pixel {', '.join(f'{value:g}' for value in values)} is subtracted, at any size"
    )


def is_numpy(path: str | Path) -> bool:
    """Whether the file begins like a NumPy array."""
    try:
        with open_regular(path) as file:
            return file.read(6) == b"\x93NUMPY"
    except OSError:
        return False  # reported by the reader


def _read_numpy(path: Path) -> NDArray[np.float32]:
    """An array as (channels, height, width)."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy raises nearly anything on damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CaffemodelError(f"is a damaged NumPy array: {reason}", path=path) from None
    if array.dtype.kind not in "fiu":
        raise CaffemodelError(f"is a NumPy array of {array.dtype}; a mean image holds numbers", path=path)
    shape = array.shape
    if len(shape) == 1:
        array = array.reshape(-1, 1, 1)
    elif len(shape) == 4 and shape[0] == 1:
        array = array[0]
    elif len(shape) == 3 and shape[0] not in (1, 3) and shape[2] in (1, 3):
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or not array.size:
        raise CaffemodelError(f"is a NumPy array of shape {shape}; a mean image has (C, H, W) or (C)", path=path)
    return np.asarray(array, np.float32)
