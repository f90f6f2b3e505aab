"""A typed or quantised graph computed in float32, with the rounding of every stored value in its place.

ONNX Runtime on a CPU has no kernels for most narrow types. It refuses bfloat16 outright, and for float16 it converts
to float32, computes a whole chain of layers and converts back at the end: what it then shows is the rounding of the
weights, not that of the activations between. So the check runs this graph instead:

1. narrow weights become the float32 numbers they stand for, exactly;
2. every value a node stores in a narrow type is rounded to it and taken back to float32;
3. Q/DQ nodes stay what they are, with float32 scales.

What that proves: the rounding of everything stored, with sums carried in float32, as tensor cores carry them. What it
does not: kernels that sum in float16, other orders of summation, fused layers that round less often.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .opset import read_opset

_NARROW = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


def emulate(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float32 graph that computes what a typed or quantised graph means; values keep their names."""
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {
        info.name: info.type.tensor_type.elem_type
        for info in (*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input)
    }
    graph = onnx.GraphProto(name=model.graph.name)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        graph.initializer.append(_widen(tensor))
    for node in model.graph.node:
        widened = onnx.NodeProto()
        widened.CopyFrom(node)
        if node.op_type == "Cast":
            _widen_cast(widened)
        narrow = {name: types[name] for name in node.output if types.get(name) in _NARROW}
        widened.output[:] = [f"{name}/exact" if name in narrow else name for name in node.output]
        graph.node.append(widened)
        for name, kind in narrow.items():
            graph.node.extend(_round(f"{name}/exact", name, kind))
    result = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    assert read_opset(result) == read_opset(model)
    return result


def _widen(tensor: TensorProto) -> TensorProto:
    if tensor.data_type not in _NARROW:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


def _widen_cast(node: onnx.NodeProto) -> None:
    """A Cast to a narrow type becomes one to float32; the rounding follows as for any other node."""
    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i in _NARROW:
            attribute.i = TensorProto.FLOAT


def _round(source: str, target: str, narrow: int) -> list[onnx.NodeProto]:
    stored = f"{target}/stored"
    return [
        helper.make_node("Cast", [source], [stored], name=f"{target}/round/node", to=narrow),
        helper.make_node("Cast", [stored], [target], name=f"{target}/widen/node", to=TensorProto.FLOAT),
    ]
