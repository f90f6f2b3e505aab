"""Matching a weights file to a net, by Caffe's rules and without its silence.

1. A layer of the file belongs to the first layer of that name in the net; a file layer the net lacks is reported.
2. The number of blobs must agree, and each shape; a legacy 4-D shape agrees where the leading ones of both are cut.
3. `strict_dim: false` (DeepLab v1) asks for the same count only.
4. Shared blobs are written by every layer that has them; the last one in the file wins.
5. A blob of the net that the file does not have is an error (Caffe would leave its filler there).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import WeightsError
from .net import FloatArray, Layer, Net, ParameterKey, Shape


@dataclass(frozen=True)
class MatchedWeights:
    """Arrays for every parameter of a net, and what the file held beyond them."""

    parameters: dict[ParameterKey, FloatArray]
    extra_layers: tuple[str, ...]


def match_weights(net: Net, layers: Iterable[tuple[str, Sequence[Any]]], *, source: str) -> MatchedWeights:
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
    missing = [layer for layer in net.layers if any(key not in parameters for key in layer.parameters)]
    faulty = {name for name, _ in problems}
    problems += [
        (layer.name, _describe_missing(layer, extra)) for layer in missing if layer.name not in faulty
    ]  # rule 5
    if problems:
        rows = "\n".join(f'  "{name}": {problem}' for name, problem in problems[:20])
        more = f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise WeightsError(
            f"{source} does not hold the weights of this net ({len(problems)} layer(s) disagree):\n{rows}{more}\n"
            "Give the prototxt these weights were trained with.",
            layer=problems[0][0],
        )
    return MatchedWeights(parameters, tuple(extra))


def _assign(layer: Layer, blobs: Sequence[Any], parameters: dict[ParameterKey, FloatArray]) -> str | None:
    """Write a file layer's blobs into `parameters` (rule 4); a sentence where they do not fit."""
    shapes = layer.operator.weight_shapes()
    if len(blobs) != len(shapes):
        return f"the file has {len(blobs)} blob(s), the net has {len(shapes)}"
    strict = not (layer.message.HasField("strict_dim") and not layer.message.strict_dim)
    for index, (blob, shape) in enumerate(zip(blobs, shapes, strict=True)):
        array = np.asarray(blob)
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


def _describe_missing(layer: Layer, extra: Sequence[str]) -> str:
    near = difflib.get_close_matches(layer.name, extra, 1)
    hint = f'; it has "{near[0]}"' if near else ""
    return f"the file has no blobs of this name{hint}"


def weights_from_mapping(weights: Mapping[str, Sequence[Any]]) -> list[tuple[str, Sequence[Any]]]:
    """Arrays given in memory, in the form :func:`match_weights` takes."""
    return [(name, list(blobs)) for name, blobs in weights.items()]
