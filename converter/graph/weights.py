"""Matching a weights file to a net, by Caffe's rules and without its silence.

1. A layer of the file belongs to the first layer of that name in the net; a file layer the net lacks is reported.
2. The number of blobs must agree, and each shape; a legacy 4-D shape agrees where the leading ones of both are cut.
3. `strict_dim: false` (DeepLab v1) asks for the same count only.
4. Shared blobs are written by every layer that has them; the last one in the file wins. HDF5 files leave them out.
5. A blob of the net that the file does not have is an error (Caffe would leave its filler there).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import WeightsError
from .net import FloatArray, Layer, Net, ParameterKey, Shape

#: a layer's arrays in order, or by index where shared ones may be left out
Blobs = Sequence[Any] | Mapping[int, Any]


@dataclass(frozen=True)
class MatchedWeights:
    """Arrays for every parameter of a net, and what the file held beyond them."""

    parameters: dict[ParameterKey, FloatArray]
    extra_layers: tuple[str, ...]


def match_weights(net: Net, layers: Iterable[tuple[str, Blobs]], *, source: str) -> MatchedWeights:
    """Give every parameter blob of the net its array.

    Args:
        net: the laid-out net.
        layers: (layer name, its arrays) in file order; arrays keep the file's shapes.
        source: what to call the file in messages.

    Raises:
        WeightsError: missing, surplus or misshapen blobs.
    """
    targets: dict[str, Layer] = {}
    for layer in net.layers:
        targets.setdefault(layer.name, layer)
    parameters: dict[ParameterKey, FloatArray] = {}
    extra: list[str] = []
    problems: list[tuple[str, str]] = []
    for name, blobs in layers:
        if not blobs:
            continue
        target = targets.get(name)  # rule 1
        if target is None:
            extra.append(name)
            continue
        problem = _assign(target, blobs, parameters)
        if problem:
            problems.append((name, problem))
    faulty = {name for name, _ in problems}
    for layer in net.layers:  # rule 5
        if layer.name not in faulty and any(key not in parameters for key in layer.parameters):
            problems.append((layer.name, _describe_missing(layer, targets[layer.name], extra)))
    if problems:
        raise WeightsError(source, problems)
    return MatchedWeights(parameters, tuple(extra))


def _assign(layer: Layer, blobs: Blobs, parameters: dict[ParameterKey, FloatArray]) -> str | None:
    """Write a file layer's blobs into `parameters` (rule 4); a sentence where they do not fit."""
    shapes = layer.operator.weight_shapes()
    numbered = dict(blobs) if isinstance(blobs, Mapping) else dict(enumerate(blobs))
    own = {index for index, key in enumerate(layer.parameters) if key.attribute == layer.attribute}
    needed = own if isinstance(blobs, Mapping) else set(range(len(shapes)))
    if not needed <= numbered.keys() or not numbered.keys() <= set(range(len(shapes))):
        return f"the file has {len(numbered)} blob(s), the net has {len(shapes)}"
    strict = not (layer.message.HasField("strict_dim") and not layer.message.strict_dim)
    for index, blob in numbered.items():
        array, shape = np.asarray(blob), shapes[index]
        fits = (
            _without_leading_ones(array.shape) == _without_leading_ones(shape)
            if strict
            else array.size == _count(shape)
        )
        if not fits:
            return f"blob {index} has shape {tuple(array.shape)} in the file, {tuple(shape)} in the net"
        if array.dtype != np.float32:
            array = array.astype(np.float32)
        parameters[layer.parameters[index]] = array.reshape(shape)
    return None


def _without_leading_ones(shape: Sequence[int]) -> Shape:
    sizes = list(shape)
    while sizes and sizes[0] == 1:
        sizes.pop(0)
    return tuple(sizes)


def _count(shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _describe_missing(layer: Layer, first: Layer, extra: Sequence[str]) -> str:
    if first is not layer:
        return "a layer before it has the same name, and with it the blobs of the file; give it a name of its own"
    near = difflib.get_close_matches(layer.name, extra, 1)
    hint = f'; it has "{near[0]}"' if near else ""
    return f"the file has no blobs of this name{hint}"


def weights_from_mapping(weights: Mapping[str, Sequence[Any]]) -> list[tuple[str, Blobs]]:
    """Arrays given in memory, in the form :func:`match_weights` takes."""
    return [(name, list(blobs)) for name, blobs in weights.items()]
