"""The cost of one image in the network: operations and bytes, counted in the bundle's `model.onnx`.

Shapes come from ONNX's shape inference at the size the image is padded to.
"""

from __future__ import annotations

import math
from typing import Any

from ...bundle.folder import Bundle
from ...dependencies import import_optional
from ...errors import BackendError
from .results import ModelCost

MODEL_NAME = "model.onnx"
_FLOAT_BYTES = 4
# nodes whose traffic counts; element-wise nodes after a convolution are fused into it
_MOVING = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "MaxPool", "AveragePool", "Resize", "LRN", "Softmax"})


def count_model_cost(bundle: Bundle, height: int, width: int) -> ModelCost | None:
    """Count one image of height x width pixels; None where a shape is unknown.

    Raises:
        MissingDependencyError: if onnx is not installed.
        BackendError: if the model cannot be read.
    """
    onnx = import_optional("onnx")
    inputs = bundle.manifest.inputs
    if MODEL_NAME not in bundle.manifest.files or len(inputs) != 1 or len(inputs[0].shape) != 4:
        return None
    try:
        model = onnx.load_from_string(bundle.read_file(MODEL_NAME))
        sides = (1, 3, *bundle.preprocessing.size_rule.padded_size(height, width))
        for dimension, side in zip(model.graph.input[0].type.tensor_type.shape.dim, sides, strict=True):
            dimension.Clear()
            dimension.dim_value = side
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # protobuf's and onnx's exceptions share no base
        raise BackendError(f"{bundle.path / MODEL_NAME}: the network's cost cannot be counted: {error}") from error
    return _count(inferred.graph)


def _count(graph: Any) -> ModelCost | None:
    shapes = {
        value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    weights = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    flops = activation_bytes = 0
    for node in graph.node:
        if node.op_type not in _MOVING:
            continue
        moved = [name for name in (node.input[0], node.output[0]) if name not in weights]
        known = [shapes.get(name, ()) for name in moved]
        if any(not shape or 0 in shape for shape in known):
            if node.op_type == "Resize":  # its size may be computed; it has no counted operations
                continue
            return None
        activation_bytes += _FLOAT_BYTES * sum(math.prod(shape) for shape in known)
        flops += _count_node(node, shapes, weights)
    used = {name for node in graph.node if node.op_type in _MOVING for name in node.input} & weights.keys()
    weight_bytes = _FLOAT_BYTES * sum(math.prod(weights[name]) for name in used)
    return ModelCost(flops=float(flops), weight_bytes=float(weight_bytes), activation_bytes=float(activation_bytes))


def _count_node(node: Any, shapes: dict[str, tuple[int, ...]], weights: dict[str, tuple[int, ...]]) -> int:
    """Two operations per multiply-add."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    weight = weights.get(node.input[1], ()) or shapes.get(node.input[1], ())
    image, result = shapes[node.input[0]], shapes[node.output[0]]
    if node.op_type == "Conv":  # every output sums over one group's kernel
        return 2 * math.prod(result) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":  # every input is spread over one group's kernel
        return 2 * math.prod(image) * math.prod(weight[1:])
    return 2 * math.prod(result) * image[-1]
