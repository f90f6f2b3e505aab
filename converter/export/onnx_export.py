"""`Net` and its torch module -> ONNX with Caffe's blob names.

Each operator's `emit` writes the nodes of its layer; nothing is traced. The last version of a blob has Caffe's name; an
earlier version of a blob rewritten in place has its recording key `<layer>:<blob>`. Batch, height and width are dynamic
where the net allows (see `dynamic_axes`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx
from onnx import helper

from ... import __version__
from ...bundle.choices import Detection
from ...bundle.files import write_file
from ...errors import ExportError
from ..graph.net import Blob, Net
from .dynamic_axes import DynamicAxes, StaticAxes, find_dynamic_axes
from .onnx_graph import DEFAULT_OPSET, FLOAT, OnnxGraph, Value

OPSETS = range(17, 22)
BLOB_TABLE = "atrous.blobs"
"""Metadata key of model.onnx for its blob table, as JSON."""
MAX_MODEL_BYTES = 2**31 - 1
"""Largest protobuf message; larger nets would need external data."""


def export_onnx(
    net: Net,
    module: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    opset: int = DEFAULT_OPSET,
    all_blobs: bool = False,
    detection: Detection = "standard",
    rename: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Write the faithful ONNX form of a net.

    Args:
        net: the net.
        module: its module from `to_torch`, whose parameters are written.
        path: where to write the model, atomically; None only returns it.
        opset: 17 to 21.
        all_blobs: make every blob an output, named as in :func:`value_names`, for layer-by-layer comparison.
        detection: the form of layers that decode boxes (see `onnx_part`).
        rename: blob of the net -> its name in the model, for inputs and outputs.

    Returns:
        The checked model. Inputs and outputs are Caffe's blobs by Caffe's names, float32, Caffe's axis order.

    Raises:
        ExportError: a layer has no faithful ONNX form, or the opset is not supported.
    """
    graph, values = write_graph(net, module, opset=opset, detection=detection)
    outputs = [top for layer in net.layers for top in layer.tops] if all_blobs else net.outputs
    for blob in outputs:
        graph.outputs.append(_value_info(values.names[blob], values.axes.sizes(blob)))
    model = graph.model(producer="atrous", version=__version__)
    names = rename_values(model.graph, net, values.names, rename or {})
    helper.set_model_props(model, {BLOB_TABLE: json.dumps(blob_table(net, names))})
    write_model(model, path, is_standard=not graph.foreign)
    return model


def write_model(model: onnx.ModelProto, path: str | os.PathLike[str] | None, *, is_standard: bool = True) -> None:
    """Check a model and write it, serialized once for both; None as path only checks.

    A model with nodes of an engine's own (not `is_standard`) cannot be checked. Raises ExportError if the model exceeds
    what one file can hold, OutputError if the file cannot be written.
    """
    if model.ByteSize() > MAX_MODEL_BYTES:
        raise ExportError(f"the model has {model.ByteSize()} bytes, more than the 2 GiB one ONNX file can hold")
    content = model.SerializeToString()
    if is_standard:
        onnx.checker.check_model(content)
    if path is not None:
        write_file(path, content)


def check_opset(opset: int) -> int:
    """Return the opset; raises ExportError if it is not supported."""
    if opset not in OPSETS:
        raise ExportError(f"opset {opset} is not supported; choose one of {OPSETS.start} to {OPSETS.stop - 1}")
    return opset


class GraphValues:
    """The graph's names for the net's blobs, and their axes."""

    def __init__(self, axes: DynamicAxes | StaticAxes, names: dict[Blob, str]) -> None:
        self.axes, self.names = axes, names

    def value(self, blob: Blob) -> Value:
        """The graph value of a blob."""
        return Value(self.names[blob], self.axes.shape(blob))


def write_graph(
    net: Net, module: Any, *, opset: int = DEFAULT_OPSET, detection: Detection = "standard"
) -> tuple[OnnxGraph, GraphValues]:
    """Write all layers of a net and declare its inputs; the caller declares the outputs."""
    graph = OnnxGraph(net.name, check_opset(opset), detection)
    values = write_layers(graph, net, module)
    for blob in net.inputs:
        graph.inputs.append(_value_info(blob.name, values.axes.sizes(blob)))
    return graph, values


def write_layers(
    graph: OnnxGraph,
    net: Net,
    module: Any,
    inputs: Mapping[str, str] | None = None,
    taken: frozenset[str] = frozenset(),
    axes: StaticAxes | None = None,
) -> GraphValues:
    """Append a net's layers to a graph; sizes are dynamic where the net allows, unless `axes` is given.

    `inputs` maps input blobs to the values that replace them; by default each has a value of its own name. Blobs must
    not use the names in `taken` or in the graph; such a blob becomes `net/<name>`.
    """
    values = GraphValues(axes or find_dynamic_axes(net), value_names(net))
    used = set(values.names.values()) | taken
    for blob, name in values.names.items():
        if name in taken or graph.is_used(name):
            values.names[blob] = _unused(f"net/{name}", used)
    for blob in net.inputs:
        values.names[blob] = (inputs or {}).get(blob.name, blob.name)
    for name in values.names.values():
        graph.reserve(name)
    for layer in net.layers:
        graph.enter_layer(layer.attribute, tuple(values.axes.shape(top) for top in layer.tops))
        submodule = module.get_submodule(layer.attribute)
        bottoms = [values.value(blob) for blob in layer.bottoms]
        for bottom in bottoms:
            graph.bind_sizes(bottom)
        tops = layer.operator.emit(graph, submodule, bottoms)
        for top, name in zip(layer.tops, tops, strict=True):
            graph.name_top(name, values.names[top])
    return values


def blob_table(net: Net, names: Mapping[Blob, str]) -> list[dict[str, Any]]:
    """One entry per recorded top: key, value in the graph, submodule and its output, keys of the blobs it reads."""
    keys = {blob: key for key, blob in net.recorded_tops()}
    return [
        {
            "key": key,
            "value": names[blob],
            "layer": blob.producer.name,
            "type": blob.producer.type,
            "module": blob.producer.attribute,
            "index": blob.top_index,
            "per_bottom": blob.producer.operator.maps_each_bottom,
            "chooses": blob.producer.operator.chooses_boxes,
            "random": blob.producer.operator.is_random,
            "feeds": [names[b] if b.producer is None else keys[b] for b in blob.producer.bottoms],
        }
        for key, blob in net.recorded_tops()
        if blob.producer is not None
    ]


def rename_values(
    graph: onnx.GraphProto, net: Net, names: Mapping[Blob, str], rename: Mapping[str, str]
) -> dict[Blob, str]:
    """Rename inputs and outputs of a graph; returns the names of all blobs.

    Raises ExportError if one of them is neither, or the new name is taken.
    """
    ends = {names[blob] for blob in (*net.inputs, *net.outputs)}
    for old, new in rename.items():
        if old not in ends:
            raise ExportError(f'"{old}" is neither an input nor an output; these are {", ".join(sorted(ends))}')
        taken = set(names.values()) | {value for node in graph.node for value in (*node.input, *node.output)}
        if not new or new in taken - set(rename) or list(rename.values()).count(new) > 1:
            raise ExportError(f'"{old}" cannot become "{new}": the name is taken')
    for value in (*graph.input, *graph.output):
        value.name = rename.get(value.name, value.name)
    _rename_in_nodes(graph.node, rename)
    return {blob: rename.get(name, name) for blob, name in names.items()}


def _rename_in_nodes(nodes: Iterable[Any], rename: Mapping[str, str]) -> None:
    for node in nodes:
        node.input[:] = [rename.get(name, name) for name in node.input]
        node.output[:] = [rename.get(name, name) for name in node.output]
        for attribute in node.attribute:
            _rename_in_nodes(attribute.g.node, rename)


def value_names(net: Net) -> dict[Blob, str]:
    """Each blob -> its name in the graph: Caffe's for the last version, the recording key for earlier ones.

    A blob written in place over an input has its recording key too, as an ONNX input keeps its name.
    """
    inputs = {blob.name for blob in net.inputs}
    last = {top.name: top for layer in net.layers for top in layer.tops if top.name not in inputs}
    names = {blob: blob.name for blob in net.inputs}
    names |= {blob: name for name, blob in last.items()}
    used = set(names.values())
    for key, blob in net.recorded_tops():
        if blob not in names:
            names[blob] = _unused(key, used)
    return names


def _unused(name: str, used: set[str]) -> str:
    """The name with as many primes as make it unused; adds it to `used`."""
    while name in used:
        name += "'"
    used.add(name)
    return name


def _value_info(name: str, sizes: Sequence[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, sizes)
