"""Caffe's fillers: values of parameter blobs for nets without weights.

Constant and bilinear fillers are exact. Random ones follow Caffe's distributions with a generator seeded by the blob's
name, so that a net without weights always converts to the same numbers.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np

from ...errors import NetError
from .net import FloatArray, Shape


def fill_blob(name: str, shape: Shape, filler: Any) -> FloatArray:
    """Values of a parameter blob by its FillerParameter (None: zeros); the name seeds the random ones.

    Raises NetError if the filler's type is unknown, its numbers are impossible, or it does not fit the shape.
    """
    kind = "constant" if filler is None else (filler.type or "constant")
    if kind == "constant":
        return np.full(shape, 0.0 if filler is None else filler.value, np.float32)
    if kind in ("bilinear", "bilinear_upsampling"):  # the second is its name before BVLC took it in
        if len(shape) != 4 or shape[2] != shape[3]:
            raise NetError(f'parameter "{name}": a bilinear filler needs a square 4-D blob, not {shape}')
        return _bilinear(shape)
    random = np.random.default_rng(zlib.crc32(name.encode()))
    fan_in = max(1, math.prod(shape[1:]))
    fan_out = max(1, math.prod(shape) // max(1, shape[1])) if len(shape) > 1 else math.prod(shape)
    norms = {0: fan_in, 1: fan_out, 2: (fan_in + fan_out) / 2}
    norm = norms.get(filler.variance_norm, fan_in)
    if kind == "gaussian":
        if not (0 <= filler.std < math.inf and math.isfinite(filler.mean)):
            raise NetError(f'parameter "{name}": a gaussian filler needs finite numbers and a std of at least 0')
        values = random.normal(filler.mean, filler.std, shape)
        if filler.sparse >= 0:  # the mean number of nonzero inputs of each output
            values *= random.random(shape) < filler.sparse / max(1, shape[0] if shape else 1)
    elif kind == "uniform":
        if not (filler.min <= filler.max and math.isfinite(filler.max - filler.min)):
            raise NetError(f'parameter "{name}": a uniform filler needs finite numbers and a max of at least its min')
        values = random.uniform(filler.min, filler.max, shape)
    elif kind == "xavier":
        values = random.uniform(-math.sqrt(3 / norm), math.sqrt(3 / norm), shape)
    elif kind == "msra":
        values = random.normal(0, math.sqrt(2 / norm), shape)
    elif kind == "positive_unitball":
        values = random.uniform(0, 1, shape)
        values /= values.sum(axis=tuple(range(1, len(shape))), keepdims=True)
    else:
        raise NetError(f'parameter "{name}": unknown filler type "{kind}"')
    return values.astype(np.float32)


def _bilinear(shape: Shape) -> FloatArray:
    """Weights of bilinear upsampling by ceil(width / 2) in every (height, width) plane."""
    width = shape[-1]
    factor = math.ceil(width / 2)
    center = (width - 1) / (2 * factor)
    line = (1 - np.abs(np.arange(width) / factor - center)).astype(np.float32)
    return np.broadcast_to(np.outer(line, line), shape).astype(np.float32)
