"""The float values of a graph that are worth looking at, and sessions that compute them."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto

from ...errors import MissingDependencyError
from .naming import layer_of


def list_floats(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Every float32 value that a node of the main graph writes -> that node, in execution order."""
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {
        info.name: info.type.tensor_type.elem_type for info in (*inferred.graph.value_info, *inferred.graph.output)
    }
    return {
        name: node for node in model.graph.node for name in node.output if types.get(name) == TensorProto.FLOAT
    }  # fmt: skip


def list_blobs(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The float32 values that leave their layer -> the node that writes them: a net's blobs, and the head's output."""
    floats = list_floats(model)
    readers: dict[str, set[str]] = {output.name: {""} for output in model.graph.output}
    for node in model.graph.node:
        for name in _names_read(node):
            readers.setdefault(name, set()).add(layer_of(node.name))
    return {
        name: node
        for name, node in floats.items()
        if layer_of(node.name) != "graph" and readers.get(name, set()) - {layer_of(node.name)}
    }


def _names_read(node: onnx.NodeProto) -> set[str]:
    names = set(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            names |= _names_read(inner)
    return names


def open_session(model: onnx.ModelProto, *, threads: int | None = None, as_shipped: bool = False) -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        model: the model.
        threads: of one run; None for one per core.
        as_shipped: with all of ONNX Runtime's own optimizations, Q/DQ turned into integer kernels among them; else
            without any, so that every node computes what it says. (With them, release 1.32 computes float8 Q/DQ, and
            Q/DQ of float16, visibly wrong.)

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        Exception: ONNX Runtime's own, where it has no kernel for a node; they share no base class.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError("precision needs ONNX Runtime: pip install 'atrous[convert]'") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    if not as_shipped:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
