"""The mean pixel of a mean image (`mean.binaryproto`): a net that accepts any size subtracts one pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import CaffemodelError
from .caffemodel import read_mean

#: gray levels; smaller differences between the pixels of a mean image are rounding errors
LEAST_SPREAD = 1e-2


def read_mean_pixel(path: str | Path) -> tuple[tuple[float, float, float], str | None]:
    """Average a mean image of 1 or 3 channels over its pixels.

    Returns the mean pixel in gray levels, in the net's channel order, and a warning if the pixels differ, else None.
    Raises CaffemodelError for another kind of file, another number of channels, or numbers that are not finite.
    """
    image = read_mean(path)
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
