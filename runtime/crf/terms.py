"""Builds the lattice of one pairwise term, and says in the user's words when its sigmas do not fit."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CrfInputError
from . import _lattice
from .checks import as_array, check_entries, check_float32, check_sigmas, warn_of_scaled_image
from .parameters import Normalization

_NORMALIZATION_CODES: dict[str, int] = {"none": 0, "before": 1, "after": 2, "symmetric": 3}

Mask = npt.NDArray[np.uint8]


# Lattices of position alone depend on the size only, and images of one size come in series.
_MOST_CACHED = 4
_cache: OrderedDict[tuple[Any, ...], _lattice.Lattice] = OrderedDict()
_cache_lock = Lock()


def forget_lattices() -> None:
    """Drop the position lattices kept for the next image of their size."""
    with _cache_lock:
        _cache.clear()


def release_memory() -> None:
    """Give back what is kept for the next inference: position lattices and freed pages."""
    forget_lattices()
    _lattice.release_memory()


def build_grid_lattice(
    order: _lattice.PixelOrder,
    shape: tuple[int, ...],
    sxy: Any,
    image: npt.NDArray[Any] | None,
    srgb: Any,
    normalization: Normalization,
    mask: Mask | None,
    kernels: str,
    threads: int,
) -> _lattice.Lattice:
    """The lattice of positions on a grid, and of the channels of `image` (*shape, C) where there is one."""
    channels = 0 if image is None else image.shape[-1]
    check_entries(order.points, len(shape) + channels)
    position_sigmas = check_sigmas(sxy, len(shape), "sxy")
    channel_sigmas = check_sigmas(srgb, channels, "srgb") if image is not None else []
    if image is not None and image.dtype == np.float32:
        warn_of_scaled_image(image, channel_sigmas)
    code = _normalization_code(normalization)
    as_bytes = image if image is not None and image.dtype == np.uint8 else None
    as_floats = image if image is not None and image.dtype == np.float32 else None
    key = (shape, tuple(position_sigmas), code, kernels)
    cacheable = image is None and mask is None
    if cacheable:
        with _cache_lock:
            if key in _cache:
                _cache.move_to_end(key)
                return _cache[key]
    try:
        lattice = _lattice.Lattice.from_grid(
            order, list(shape), position_sigmas, as_bytes, as_floats, channel_sigmas, code, mask, threads, kernels
        )
    except ValueError as error:
        sigmas = f"sxy {sxy}" + (f" and srgb {srgb}" if image is not None else "")
        raise CrfInputError(f"{error}: {sigmas} are too small for this image; raise them") from None
    if cacheable:
        with _cache_lock:
            _cache[key] = lattice
            while len(_cache) > _MOST_CACHED:
                _cache.popitem(last=False)
    return lattice


def build_feature_lattice(
    order: _lattice.PixelOrder,
    features: Any,
    normalization: Normalization,
    mask: Mask | None,
    kernels: str,
    threads: int,
) -> _lattice.Lattice:
    """The lattice of free features (d, N) float32."""
    array = as_array(features, "features")
    check_float32(array, "features")
    if array.ndim != 2 or array.shape[1] != order.points:
        hint = ": transpose it" if array.ndim == 2 and array.shape[0] == order.points else ""
        raise CrfInputError(f"features must be (dimensions, {order.points}), got {array.shape}{hint}")
    check_entries(order.points, array.shape[0])
    if not array.flags.c_contiguous:
        raise CrfInputError("features are not C-contiguous: pass numpy.ascontiguousarray(features)")
    if not np.isfinite(array).all():
        raise CrfInputError("features hold NaN or infinite values")
    code = _normalization_code(normalization)
    try:
        return _lattice.Lattice.from_features(order, array, code, mask, threads, kernels)
    except ValueError as error:
        raise CrfInputError(f"{error}: divide the features by a larger sigma") from None


def _normalization_code(name: str) -> int:
    if not isinstance(name, str) or name not in _NORMALIZATION_CODES:
        raise CrfInputError(f"normalization must be one of {sorted(_NORMALIZATION_CODES)}, got {name!r}")
    return _NORMALIZATION_CODES[name]
