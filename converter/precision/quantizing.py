"""INT8 and FP8: Q/DQ pairs around the inputs and weights of layers, as TensorRT and ONNX Runtime read them.

For each quantised Conv, Gemm or MatMul:

1. its input passes QuantizeLinear and DequantizeLinear with one scale; a value that several layers read, once;
2. its weights, still floats in the file, pass a pair of their own: TensorRT 8.5 quantises them itself and reads no
   int8 constants. INT8 has a scale for each output channel, FP8 one for all, which is what TensorRT's kernels take;
3. its bias stays a float: the sum it joins has 32 bits.

INT8 is symmetric, zero point 0, codes -127 to 127: scale = r / 127. The code -128 is what saturation may give and
nothing needs. FP8 is float8e4m3fn (opset 19, TensorRT 10 and newer): scale = r / 448.
`uint8` activations are for CPUs: a value that is never negative (behind a ReLU) uses all 255 steps, scale = r / 255,
zero point 0, and ONNX Runtime can drop the ReLU into the integer convolution; others use zero point 128. TensorRT
takes no such file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from .casting import load_typed
from .float_types import FLOAT8, FloatType
from .naming import layer_of
from .observing import Observed
from .opset import raise_opset

Codes = Literal["int8", "uint8", "fp8"]
#: the dtype of the codes and the largest magnitude a code has
_CODES: dict[str, tuple[Any, float]] = {
    "int8": (np.int8, 127.0),
    "uint8": (np.uint8, 255.0),
    "fp8": (ml_dtypes.float8_e4m3fn, FLOAT8.largest),
}
#: what is appended to a value's name behind its Q/DQ pair
DEQUANTIZED = "/dequantized"
#: operator -> (axis of the output channels in its weights)
_CHANNEL_AXES = {"Conv": 0, "Gemm": 1, "MatMul": -1}


@dataclass(frozen=True)
class QuantizableLayer:
    """A node that can be quantised.

    Attributes:
        node: its name.
        layer: the layer it belongs to.
        source: the value it reads.
        weights: its weights.
        axis: the axis of the output channels in the weights.
    """

    node: str
    layer: str
    source: str
    weights: str
    axis: int


@dataclass(frozen=True)
class Scale:
    """How a value or a weight is quantised.

    Attributes:
        values: the scale, () or (channels,) float32.
        zero_point: 0, or 128 for uint8 codes of values of both signs.
    """

    values: NDArray[np.float32]
    zero_point: int = 0


def find_quantizable(model: onnx.ModelProto) -> list[QuantizableLayer]:
    """The nodes with weights that INT8 and FP8 kernels exist for, in execution order.

    ConvTranspose is left out: in these nets it is a fixed bilinear enlargement of scores.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type not in _CHANNEL_AXES or node.input[1] not in constants or node.input[0] in constants:
            continue
        weights = constants[node.input[1]]
        axis = _CHANNEL_AXES[node.op_type] % len(weights.dims)
        if node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute):
            axis = 0
        found.append(QuantizableLayer(node.name, layer_of(node.name), node.input[0], node.input[1], axis))
    return found


def scale_weights(weights: NDArray[Any], axis: int, codes: Codes, rest: FloatType | None = None) -> Scale:
    """The scale of weights: one for each output channel in INT8, one in FP8; channels of zeros get 1."""
    if codes == "fp8":
        largest = np.abs(weights).max(initial=0.0)
    else:
        others = tuple(place for place in range(weights.ndim) if place != axis)
        largest = np.abs(weights).max(axis=others)
    return Scale(_to_scale(largest, FLOAT8.largest if codes == "fp8" else 127.0, rest))


def scale_values(reach: float, seen: Observed, codes: Codes, rest: FloatType | None = None) -> Scale:
    """The scale of an activation that is to be covered up to a magnitude."""
    if codes == "uint8" and seen.least < 0:
        return Scale(_to_scale(np.float64(reach), 127.0, rest), 128)
    return Scale(_to_scale(np.float64(reach), _CODES[codes][1], rest))


def _to_scale(largest: Any, steps: float, rest: FloatType | None) -> NDArray[np.float32]:
    """Largest / steps; in the type of the rest of the graph rounded up, so that nothing is clipped by rounding."""
    exact = np.asarray(np.where(np.asarray(largest) > 0, largest, steps), np.float64) / steps
    scale = exact.astype(np.float32)
    if rest is None:
        return scale
    narrow = scale.astype(rest.dtype)
    above = np.nextafter(narrow, np.asarray(np.inf, rest.dtype))
    return np.where(narrow.astype(np.float64) < exact, above, narrow).astype(np.float32)


def quantize_graph(
    model: onnx.ModelProto,
    layers: Collection[QuantizableLayer],
    reaches: Mapping[str, float],
    seen: Mapping[str, Observed],
    codes: Codes,
    rest: FloatType | None = None,
) -> onnx.ModelProto:
    """Insert the Q/DQ pairs.

    Args:
        model: a float32 graph; it is not changed.
        layers: those to quantise, from :func:`find_quantizable`.
        reaches: the magnitude each of their inputs is to be covered up to.
        seen: what was observed of the inputs.
        codes: the type of the activations' codes; weights are int8, or fp8 with fp8.
        rest: the narrow type the rest of the graph will be cast to, which scales must then fit into.

    Returns:
        A float32 graph with Q/DQ; `cast_graph` may narrow the rest of it.
    """
    opset = 19 if codes == "fp8" or rest is not None else 17
    result = load_typed(raise_opset(model, opset))
    writer = _PairWriter(result.graph)
    chosen = {layer.node: layer for layer in layers}
    for node in list(result.graph):
        layer = chosen.get(str(node.name))
        if layer is None:
            continue
        source, weights = node.inputs[0], node.inputs[1]
        assert source is not None, node.name
        assert weights is not None, node.name
        assert weights.const_value is not None, node.name
        value_scale = scale_values(reaches[layer.source], seen[layer.source], codes, rest)
        weight_scale = scale_weights(weights.const_value.numpy(), layer.axis, codes, rest)
        weight_codes: Codes = "fp8" if codes == "fp8" else "int8"
        node.replace_input_with(0, writer.pass_through(source, value_scale, codes, None, node))
        axis = layer.axis if weight_scale.values.ndim else None
        node.replace_input_with(1, writer.pass_through(weights, weight_scale, weight_codes, axis, node))
    return ir.to_proto(result)


class _PairWriter:
    """Writes Q/DQ pairs, each value's once."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._made: dict[tuple[ir.Value, int | None], ir.Value] = {}

    def pass_through(self, value: ir.Value, scale: Scale, codes: Codes, axis: int | None, before: ir.Node) -> ir.Value:
        """The value after its pair."""
        if (value, axis) not in self._made:
            self._made[value, axis] = self._write(value, scale, codes, axis, before)
        return self._made[value, axis]

    def _write(self, value: ir.Value, scale: Scale, codes: Codes, axis: int | None, before: ir.Node) -> ir.Value:
        dtype = _CODES[codes][0]
        name = str(value.name)
        step = self._constant(f"{name}/scale", scale.values)
        zero = self._constant(f"{name}/zero_point", np.full(scale.values.shape, scale.zero_point).astype(dtype))
        attributes = {} if axis is None else {"axis": axis}
        assert zero.type is not None
        coded = ir.Value(name=f"{name}/codes", shape=value.shape, type=zero.type)
        result = ir.Value(name=f"{name}{DEQUANTIZED}", shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT))
        steps = (("QuantizeLinear", value, coded), ("DequantizeLinear", coded, result))
        pair = [
            ir.node(op_type, [read, step, zero], attributes, outputs=[written], name=f"{name}/{op_type}/node")
            for op_type, read, written in steps
        ]
        producer = value.producer()
        if producer is not None:
            self._graph.insert_after(producer, pair)
        else:
            self._graph.insert_before(before, pair)
        return result

    def _constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._graph.register_initializer(value)
        return value
