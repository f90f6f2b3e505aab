"""`read_net`: a prototxt and its weights -> a :class:`Net`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..bundle.files import open_regular
from ..errors import CaffemodelError, NetError, WeightsError
from ..text_files import find_wide_codec
from .files.prototxt import Prototxt, find_template_values, read_prototxt, shorten_list
from .graph.build import build_net
from .graph.net import Net
from .graph.select import define_net
from .graph.structure_diff import compare_structure
from .graph.weights import Blobs, match_weights

if TYPE_CHECKING:
    from .files.weight_file import WeightFile


def read_net(
    prototxt: str | os.PathLike[str] | None,
    weights: str | os.PathLike[str] | WeightFile | Mapping[str, Sequence[Any]] | None = None,
    *,
    phase: str = "TEST",
    level: int = 0,
    stages: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    dialect: str | None = None,
    tolerant: bool = False,
    missing: Literal["refuse", "fill"] = "refuse",
) -> Net:
    """Read a Caffe net as published.

    Args:
        prototxt: path of a text file (V0, V1 or V2 syntax), or the text itself. None, or the path of a caffemodel,
            reads the structure saved inside the caffemodel, if its dialect can be detected.
        weights: path of a caffemodel, an open :class:`WeightFile`, a mapping of layer name to arrays, or None.
        phase: TEST or TRAIN, for the include and exclude rules.
        level: NetState level.
        stages: NetState stages.
        variables: values for `${NAME}` placeholders.
        input_shapes: input name -> shape, in place of the file's.
        dialect: the Caffe that the file comes from, in place of the detected one.
        tolerant: skip layers without a conversion (for inspection only; they are listed in `dropped`).
        missing: for layers that the weights lack, "refuse" raises WeightsError, "fill" keeps their fillers, as Caffe
            does, with a warning.

    Returns:
        The net. Its parameters are views into the memory-mapped file; nothing is copied.

    Raises:
        ConverterError: the files cannot be read or converted; see `atrous.errors` for its subclasses.
    """
    if prototxt is not None and weights is None and _is_binary(prototxt):
        prototxt, weights = None, prototxt
    source = _open_weights(weights)
    layers, name = _named_blobs(source)
    counts = {layer_name: len(blobs) for layer_name, blobs in reversed(layers or []) if blobs}
    evidence: tuple[str, ...] = ()
    if prototxt is None:
        text, dialect, evidence = _saved_structure(source, dialect)
    else:
        text = read_prototxt(prototxt, variables=variables or {})
    definition = define_net(
        text,
        phase=phase,
        level=level,
        stages=stages,
        dialect=dialect,
        blob_counts=counts,
        already_filtered=prototxt is None,
    )
    if evidence:
        definition = replace(definition, dialect_evidence=evidence)
    net = build_net(definition, input_shapes, tolerant=tolerant)
    if layers is None:
        return net
    try:
        matched = match_weights(net, layers, source=name, fill_missing=missing == "fill")
    except WeightsError as error:
        found = find_template_values([layer.name for layer in net.layers], [layer for layer, _ in layers])
        if not found:
            raise
        options = " ".join(f"--set {variable}={value}" for variable, value in found.items())
        raise WeightsError(name, error.problems, remedy=f"its layer names fit the prototxt with {options}") from None
    known = {dropped.name for dropped in net.dropped}
    unknown = [layer for layer in matched.extra_layers if layer not in known]
    warnings = [*net.warnings, *matched.notes]
    if unknown:
        listed = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        warnings.append(f"{name} holds {len(unknown)} layer(s) the net does not have, ignored as Caffe does: {listed}")
    if matched.filled_layers:
        warnings.append(f"{name} lacks layers, which keep their fillers: {shorten_list(matched.filled_layers)}")
    if prototxt is not None and not isinstance(source, Mapping):
        warnings += _check_structure(net, source)
    return replace(net, parameters=matched.parameters, warnings=tuple(warnings))


def _is_binary(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a binary file."""
    if isinstance(path, str) and ("\n" in path or "{" in path):
        return False
    try:
        with open_regular(path) as file:
            start = file.read(4096)
            return b"\0" in start and find_wide_codec(start) is None
    except OSError:
        return False


def _open_weights(
    weights: str | os.PathLike[str] | WeightFile | Mapping[str, Sequence[Any]] | None,
) -> WeightFile | Mapping[str, Sequence[Any]] | None:
    if isinstance(weights, (str, os.PathLike)):
        from .files.caffemodel import read_caffemodel

        return read_caffemodel(weights)
    return weights


def _saved_structure(
    source: WeightFile | Mapping[str, Sequence[Any]] | None, dialect: str | None
) -> tuple[Prototxt, str, tuple[str, ...]]:
    """The structure inside a caffemodel, its dialect, and the evidence where the dialect was detected."""
    if source is None or isinstance(source, Mapping):
        raise NetError("no structure was given; give a prototxt, or a caffemodel that contains one")
    structure = source.read_structure(dialect)
    if dialect is not None:
        return structure, dialect, ()
    found = source.dialect
    return structure, found.name, found.evidence or ("nothing in the caffemodel depends on it",)


def _check_structure(net: Net, source: WeightFile | None) -> list[str]:
    """Warnings where the prototxt and the structure inside the weights file disagree."""
    if source is None:
        return []
    try:
        saved = source.read_structure()
    except CaffemodelError:
        return []  # the weights can be read, and a structure of unknown dialect proves nothing
    differences = compare_structure(net, saved.net)
    if not differences:
        return []
    listed = "; ".join(str(difference) for difference in differences[:5])
    more = f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
    return [f"the prototxt and the structure saved with the weights differ: {listed}{more}"]


def _named_blobs(
    source: WeightFile | Mapping[str, Sequence[Any]] | None,
) -> tuple[list[tuple[str, Blobs]] | None, str]:
    """(layer name, arrays) in file order, and the source's name for messages."""
    if source is None:
        return None, ""
    if isinstance(source, Mapping):
        return [(name, list(blobs)) for name, blobs in source.items()], "the given mapping"
    layers: list[tuple[str, Blobs]] = []
    for layer in source.layers:
        arrays = {index: blob.array for index, blob in zip(layer.indices, layer.blobs, strict=True)}
        layers.append((layer.name, arrays if source.format == "HDF5" else list(arrays.values())))
    return layers, Path(source.path).name
