"""BatchNorm and Scale folded into the convolution before them.

A Conv whose only reader is a BatchNormalization, or a Mul or Add by one constant a channel, takes that into its own
weights and bias, computed in float64:

    y = g (W * x + b - m) + s   becomes   (g W) * x + (g (b - m) + s)

Half precision then needs no variance, and quantised weights are the ones that are multiplied. The last value keeps its
name; those between are gone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from .casting import load_typed

Array = NDArray[Any]


def fold_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with per-channel arithmetic behind convolutions folded into them; the model itself if none."""
    folded = load_typed(model)
    graph = folded.graph
    count = 0
    for node in list(graph):
        while node.op_type == "Conv" and node.graph is graph:
            if not _fold_next(graph, node):
                break
            count += 1
    if not count:
        return model
    result = ir.to_proto(folded)
    onnx.checker.check_model(result, full_check=True)
    return result


def _fold_next(graph: ir.Graph, conv: ir.Node) -> bool:
    """Fold the one reader of a convolution into it, if that is per-channel arithmetic."""
    value = conv.outputs[0]
    readers = [use.node for use in value.uses()]
    if len(readers) != 1 or value in set(graph.outputs) or readers[0].graph is not graph:
        return False
    weights, bias = conv.inputs[1], conv.inputs[2] if len(conv.inputs) > 2 else None
    if weights is None or weights.const_value is None or (bias is not None and bias.const_value is None):
        return False
    kernel = weights.const_value.numpy().astype(np.float64)
    affine = _read_affine(readers[0], value, len(kernel))
    if affine is None:
        return False
    factor, addend = affine
    start = bias.const_value.numpy().astype(np.float64) if bias is not None and bias.const_value is not None else 0.0
    name = str(readers[0].outputs[0].name)
    stored = [
        _store(graph, f"{name}/folded_weight", kernel * factor.reshape(-1, *[1] * (kernel.ndim - 1))),
        _store(graph, f"{name}/folded_bias", factor * start + addend),
    ]
    conv.resize_inputs(3)
    for place, tensor in enumerate(stored, 1):
        conv.replace_input_with(place, tensor)
    reader = readers[0]
    result = reader.outputs[0]
    was_output = result in set(graph.outputs)
    ir.convenience.replace_all_uses_with(result, value)
    if was_output:
        graph.outputs[list(graph.outputs).index(result)] = value
    parameters = list(reader.inputs)
    graph.remove(reader, safe=True)
    value.name = name
    for old in (weights, bias, *parameters):
        if old is not None and str(old.name) in graph.initializers and not old.uses():
            del graph.initializers[str(old.name)]
    return True


def _store(graph: ir.Graph, hint: str, array: Array) -> ir.Value:
    name, number = hint, 1
    while name in graph.initializers:
        number += 1
        name = f"{hint}.{number}"
    tensor = ir.tensor(array.astype(np.float32), name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _read_affine(node: ir.Node, value: ir.Value, channels: int) -> tuple[Array, Array] | None:
    """Factor and addend (channels,) float64 of per-channel arithmetic on a value; None where it is something else."""
    if node.op_type == "BatchNormalization":
        constants = [read.const_value for read in node.inputs[1:5] if read is not None]
        if any(constant is None for constant in constants) or len(constants) != 4:
            return None
        scale, shift, mean, variance = (c.numpy().astype(np.float64) for c in constants if c is not None)
        epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
        factor = scale / np.sqrt(variance + epsilon)
        return factor, shift - mean * factor
    if node.op_type not in ("Mul", "Add"):
        return None
    other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
    if other is None or other is value or other.const_value is None or value.shape is None:
        return None
    operand = _by_channel(other.const_value.numpy(), channels, len(value.shape))
    if operand is None:
        return None
    if node.op_type == "Mul":
        return operand, np.zeros(channels)
    return np.ones(channels), operand


def _by_channel(array: Array, channels: int, rank: int) -> Array | None:
    """One number a channel from a constant that broadcasts along axis 1 of a value of `rank` axes, else None."""
    if array.ndim > rank:
        return None
    full = array.reshape((*[1] * (rank - array.ndim), *array.shape))
    if full.shape[1] not in (1, channels) or full.size != full.shape[1]:
        return None
    each: Array = np.broadcast_to(full.astype(np.float64).ravel(), channels).copy()
    return each
