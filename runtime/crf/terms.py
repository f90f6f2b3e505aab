"""Builds the lattices of pairwise terms, and explains in the caller's terms why one cannot be built."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...bundle.crf_parameters import Normalization
from ...errors import CrfInputError
from . import _lattice
from .checks import as_array, check_entries, check_float32, check_sigmas, warn_of_scaled_image

#: The core's and pydensecrf's numbers.
NORMALIZATION_CODES: dict[str, int] = {"none": 0, "before": 1, "after": 2, "symmetric": 3}


class Grid(NamedTuple):
    """The points of a model: their storage order, grid (None for free points), mask, kernels, threads and device."""

    order: _lattice.PixelOrder
    shape: tuple[int, ...] | None
    mask: npt.NDArray[np.uint8] | None
    kernels: str
    threads: int
    lattices: Any = _lattice.Lattice  # has from_grid and from_features
    place: tuple[str, int] = ("cpu", 0)

    def require_shape(self) -> tuple[int, ...]:
        """The grid's shape; refuses free points."""
        if self.shape is None:
            raise CrfInputError("points without a grid have neither position nor image: use add_features")
        return self.shape


# Lattices of position alone depend on the size only, and series of images often have one size.
_MOST_CACHED = 4
_cache: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
_cache_lock = Lock()


def forget_lattices() -> None:
    """Drop the cached position lattices."""
    with _cache_lock:
        _cache.clear()


def build_grid_lattice(grid: Grid, sxy: Any, image: Any, srgb: Any, normalization: Normalization) -> Any:
    """Build the lattice of grid positions, and of the channels of `image` (*shape, C) if there is one."""
    shape = grid.require_shape()
    channels = 0 if image is None else image.shape[-1]
    check_entries(grid.order.points, len(shape) + channels)
    position_sigmas = check_sigmas(sxy, len(shape), "sxy")
    channel_sigmas = [] if image is None else check_sigmas(srgb, channels, "srgb")
    code = _normalization_code(normalization)
    if image is not None and image.dtype == np.float32:
        warn_of_scaled_image(image, channel_sigmas)
    key = (shape, tuple(position_sigmas), code, grid.kernels, grid.place)
    cacheable = image is None and grid.mask is None
    with _cache_lock:
        if cacheable and key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    rest = code, grid.mask, grid.threads, grid.kernels
    try:
        lattice = grid.lattices.from_grid(grid.order, list(shape), position_sigmas, image, channel_sigmas, *rest)
    except ValueError as error:
        sigmas = f"sxy {sxy}" + (f" and srgb {srgb}" if image is not None else "")
        raise CrfInputError(f"{error}: {sigmas} are too small for this image; raise them") from None
    if cacheable:
        with _cache_lock:
            _cache[key] = lattice
            while len(_cache) > _MOST_CACHED:
                _cache.popitem(last=False)
    return lattice


def build_feature_lattice(grid: Grid, features: Any, normalization: Normalization) -> Any:
    """Build the lattice of free features (d, N) float32."""
    array, points = as_array(features, "features"), grid.order.points
    check_float32(array, "features")
    if array.ndim != 2 or array.shape[1] != points:
        hint = ": transpose it" if array.ndim == 2 and array.shape[0] == points else ""
        raise CrfInputError(f"features must be (dimensions, {points}), got {array.shape}{hint}")
    check_entries(points, array.shape[0])
    if not array.flags.c_contiguous:
        raise CrfInputError("features are not C-contiguous: pass numpy.ascontiguousarray(features)")
    if not np.isfinite(array).all():
        raise CrfInputError("features hold NaN or infinite values")
    code = _normalization_code(normalization)
    try:
        return grid.lattices.from_features(grid.order, array, code, grid.mask, grid.threads, grid.kernels)
    except ValueError as error:
        raise CrfInputError(f"{error}: divide the features by a larger sigma") from None


def _normalization_code(name: str) -> int:
    if not isinstance(name, str) or name not in NORMALIZATION_CODES:
        raise CrfInputError(f"normalization must be one of {sorted(NORMALIZATION_CODES)}, got {name!r}")
    return NORMALIZATION_CODES[name]
