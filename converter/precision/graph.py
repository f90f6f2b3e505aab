"""Deployment graphs: layer names, float values, opset, constants, folded norms, and ONNX Runtime sessions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, version_converter

from ...errors import MissingDependencyError, PrecisionError
from .images import Array


def layer_of(node: str) -> str:
    """Return the layer of a node named `<layer>/<operator>/node`; `graph` is the preprocessing, `head` the head."""
    parts = node.rsplit("/", 2)
    return parts[0] if len(parts) == 3 else node


def find_nodes(wanted: Sequence[str], nodes: Iterable[str]) -> dict[str, str]:
    """Map each node whose own name or layer is wanted to the name that selected it.

    Raises PrecisionError if a name matches no node and no layer; the error suggests similar names.
    """
    known = list(nodes)
    layers = {layer_of(node) for node in known}
    found: dict[str, str] = {}
    for name in wanted:
        selected = [node for node in known if name in (node, layer_of(node))]
        if not selected:
            near = get_close_matches(name, [*layers, *known], n=3)
            hint = f"; similar: {', '.join(near)}" if near else f"; its layers are {', '.join(sorted(layers)[:12])}"
            raise PrecisionError(f'the graph has no layer and no node "{name}"{hint}')
        found |= dict.fromkeys(selected, name)
    return found


def make_feed(model: onnx.ModelProto, image: Array) -> Array:
    """Return an H x W x 3 image as a model's input, N x H x W x 3; a graph of a fixed N gets N copies."""
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    return np.repeat(image[None], batch, axis=0)


def infer_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type (TensorProto.DataType) of every value and constant of the main graph."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    infos = (*graph.value_info, *graph.output, *graph.input)
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def list_floats(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Map every float32 value that a node of the main graph writes to that node, in execution order."""
    types = infer_types(model)
    return {name: node for node in model.graph.node for name in node.output if types.get(name) == TensorProto.FLOAT}


def list_blobs(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Map the float32 values that leave their layer, the net's blobs and the output, to the nodes that write them."""
    readers: dict[str, set[str | None]] = {output.name: {None} for output in model.graph.output}
    for node in model.graph.node:
        for name in _list_reads(node):
            readers.setdefault(name, set()).add(layer_of(node.name))
    return {
        name: node
        for name, node in list_floats(model).items()
        if layer_of(node.name) != "graph" and readers.get(name, set()) - {layer_of(node.name)}
    }


def _list_reads(node: onnx.NodeProto) -> set[str]:
    bodies = (inner for attribute in node.attribute for inner in attribute.g.node)
    return set(node.input).union(*map(_list_reads, bodies))


def read_opset(model: onnx.ModelProto) -> int:
    """Return the opset of a model's ONNX operators, or 0."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def raise_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Convert a model to an opset; a model of that opset or a later one is returned as it is.

    Q/DQ with float16 scales and with float8 needs opset 19, Conv in bfloat16 needs 22. onnx's version converter
    rewrites the operators whose form changed, such as axes that became inputs. Raises PrecisionError if it cannot
    convert one.
    """
    own = read_opset(model)
    if own >= opset:
        return model
    try:
        raised = version_converter.convert_version(model, opset)
    except (version_converter.ConvertError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise PrecisionError(
            f"the graph has opset {own} and cannot be converted to opset {opset} ({reason}); convert the net with a "
            "higher --opset, or choose another precision"
        ) from error
    raised.ir_version = max(model.ir_version, helper.find_min_ir_version_for(list(raised.opset_import)))
    return raised


def load_typed(model: onnx.ModelProto) -> ir.Model:
    """Load a model for editing, with the type of every value inferred."""
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def add_constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """Add an initializer; if the name is taken, a number is appended."""
    unique, number = name, 1
    while unique in graph.initializers:
        number += 1
        unique = f"{name}.{number}"
    tensor = ir.tensor(array, name=unique)
    value = ir.Value(name=unique, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def remove_unread(graph: ir.Graph) -> None:
    """Remove the constants without readers."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def fold_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold BatchNorm and Scale into the convolution before them; a model without any is returned as it is.

    A Conv whose only reader is a BatchNormalization, or a Mul or Add with one constant per channel, absorbs it into its
    weights and bias, computed in float64:

        y = g (W * x + b - m) + s   becomes   (g W) * x + (g (b - m) + s)

    Half precision then needs no variance, and the quantized weights are those that are multiplied. The last value keeps
    its name; the values between disappear.
    """
    folded = load_typed(model)
    count = 0
    for node in list(folded.graph):
        conv = node if node.op_type == "Conv" else None
        while conv is not None and (conv := _fold_next(folded.graph, conv)) is not None:
            count += 1
    if not count:
        return model
    remove_unread(folded.graph)
    result = ir.to_proto(folded)
    onnx.checker.check_model(result, full_check=True)
    return result


def _fold_next(graph: ir.Graph, conv: ir.Node) -> ir.Node | None:
    """Replace a convolution and its only reader, if that is per-channel arithmetic, by one convolution."""
    value = conv.outputs[0]
    readers = value.consumers()
    if len(readers) != 1 or value.is_graph_output() or readers[0].graph is not graph:
        return None
    (reader,) = readers
    source, weights, bias = conv.inputs[0], conv.inputs[1], conv.inputs[2] if len(conv.inputs) > 2 else None
    kernel, start = _read_constant(weights), 0.0 if bias is None else _read_constant(bias)
    affine = None if kernel is None or start is None else _read_affine(reader, value, len(kernel))
    if kernel is None or affine is None:
        return None
    factor, addend = affine
    result = reader.outputs[0]
    new_kernel = (kernel * factor.reshape(-1, *[1] * (kernel.ndim - 1))).astype(np.float32)
    new_bias = (factor * start + addend).astype(np.float32)
    constants = [
        add_constant(graph, f"{result.name}/folded_weight", new_kernel),
        add_constant(graph, f"{result.name}/folded_bias", new_bias),
    ]
    folded = ir.Node("", "Conv", [source, *constants], conv.attributes.values(), name=conv.name)
    ir.convenience.replace_nodes_and_values(graph, conv, [conv, reader], [folded], [result], folded.outputs)
    return folded


def _read_constant(value: ir.Value | None) -> Array | None:
    """Return a constant in float64, or None."""
    return None if value is None or value.const_value is None else value.const_value.numpy().astype(np.float64)


def _read_affine(node: ir.Node, value: ir.Value, channels: int) -> tuple[Array, Array] | None:
    """Return the factor and the addend, each (channels,) float64, of per-channel arithmetic on a value, or None."""
    if node.op_type == "BatchNormalization":
        scale, shift, mean, variance = (_read_constant(read) for read in node.inputs[1:5])
        if scale is None or shift is None or mean is None or variance is None:
            return None
        epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
        factor = scale / np.sqrt(variance + epsilon)
        return factor, shift - mean * factor
    if node.op_type not in ("Mul", "Add") or value.shape is None:
        return None
    other = _read_constant(node.inputs[1] if node.inputs[0] is value else node.inputs[0])
    operand = None if other is None else _by_channel(other, channels, len(value.shape))
    if operand is None:
        return None
    return (operand, np.zeros(channels)) if node.op_type == "Mul" else (np.ones(channels), operand)


def _by_channel(array: Array, channels: int, rank: int) -> Array | None:
    """Return one number per channel of a constant that broadcasts along axis 1 of a value of `rank` axes, or None."""
    if array.ndim > rank:
        return None
    full = array.reshape((*[1] * (rank - array.ndim), *array.shape))
    if full.shape[1] not in (1, channels) or full.size != full.shape[1]:
        return None
    return np.broadcast_to(full.ravel(), channels)


def open_session(model: onnx.ModelProto, *, threads: int | None = None, optimize: bool = False) -> Any:
    """Open an ONNX Runtime session on the CPU; `threads` None is one per core.

    With `optimize` off every node computes as written. With all optimizations, such as integer kernels for Q/DQ,
    release 1.32 visibly breaks float8 Q/DQ, and Q/DQ of float16. Integer products do not saturate, whatever the CPU.
    Raises MissingDependencyError without ONNX Runtime.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError("precision needs ONNX Runtime: pip install 'atrous[convert]'") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
