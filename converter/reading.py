"""`read_net`: a prototxt and its weights -> a :class:`Net`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .definition import define_net
from .layout import lay_out
from .net import Net
from .prototxt import read_prototxt
from .weights import match_weights, weights_from_mapping

if TYPE_CHECKING:
    from .caffemodel import WeightFile


def read_net(
    prototxt: str | os.PathLike[str],
    weights: str | os.PathLike[str] | WeightFile | Mapping[str, Sequence[Any]] | None = None,
    *,
    phase: str = "TEST",
    level: int = 0,
    stages: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    dialect: str | None = None,
    tolerant: bool = False,
) -> Net:
    """Read a Caffe net as published.

    Args:
        prototxt: path of a text file (V0, V1 or V2 syntax), or the text itself.
        weights: path of a caffemodel, an open :class:`WeightFile`, a mapping of layer name to arrays, or None.
        phase: TEST or TRAIN, for the include and exclude rules.
        level: NetState level.
        stages: NetState stages.
        variables: values for `${NAME}` placeholders.
        input_shapes: input name -> shape, in place of the file's.
        dialect: which Caffe the file is from, where the file does not show it.
        tolerant: lay out past layers without a conversion (for inspection only; they are listed in `dropped`).

    Returns:
        The laid-out net. Its parameters are views into the memory-mapped file; nothing is copied.

    Raises:
        ConverterError: see `atrous.converter.errors`; every message says what, where and what to do.
    """
    text = read_prototxt(prototxt, variables=variables or {})
    layers, name = _named_blobs(weights)
    counts = {layer_name: len(blobs) for layer_name, blobs in reversed(layers or []) if blobs}
    definition = define_net(text, phase=phase, level=level, stages=stages, dialect=dialect, blob_counts=counts)
    net = lay_out(definition, input_shapes, tolerant=tolerant)
    if layers is None:
        return net
    matched = match_weights(net, layers, source=name)
    known = {dropped.name for dropped in net.dropped}
    unknown = [layer for layer in matched.extra_layers if layer not in known]
    warnings = net.warnings
    if unknown:
        listed = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        warnings = (
            *warnings,
            f"{name} holds {len(unknown)} layer(s) the net does not have, ignored as Caffe does: {listed}",
        )
    return replace(net, parameters=matched.parameters, warnings=warnings)


def _named_blobs(
    weights: str | os.PathLike[str] | WeightFile | Mapping[str, Sequence[Any]] | None,
) -> tuple[list[tuple[str, Sequence[Any]]] | None, str]:
    """(layer name, arrays) in file order, and what to call the source."""
    if weights is None:
        return None, ""
    if isinstance(weights, Mapping):
        return weights_from_mapping(weights), "the given mapping"
    from .caffemodel import read_caffemodel

    source = read_caffemodel(weights) if isinstance(weights, (str, os.PathLike)) else weights
    layers: list[tuple[str, Sequence[Any]]] = [
        (layer.name, [blob.array for blob in layer.blobs]) for layer in source.layers
    ]
    return layers, Path(source.path).name if source.path else "the weights"
