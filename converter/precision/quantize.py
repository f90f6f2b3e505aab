"""INT8 and FP8: Q/DQ pairs around the inputs and weights of layers, as TensorRT and ONNX Runtime read them.

For each quantized Conv, Gemm or MatMul:

1. its input passes QuantizeLinear and DequantizeLinear with one scale; a value that several layers read passes once;
2. its weights, still floats in the file, pass a pair of their own: TensorRT 8.5 quantizes them itself and cannot read
   int8 constants. INT8 has one scale per output channel, FP8 one per tensor, which is what TensorRT's kernels support;
3. its bias stays a float: the sum it joins has 32 bits.

INT8 is symmetric, zero point 0, codes -127 to 127: scale = r / 127. FP8 is float8e4m3fn (opset 19, TensorRT 10 and
newer): scale = r / 448. `uint8` activations are for CPUs: a value that is never negative (behind a ReLU) uses all 255
steps, scale = r / 255, zero point 0, and ONNX Runtime can merge the ReLU into the integer convolution; others use zero
point 128. TensorRT rejects such a file.

With 7-bit weights, codes -63 to 63, a CPU without VNNI computes exactly with its fast instruction, which adds the
products of two pairs of codes in 16 bits and saturates: 2 * 255 * 63 = 32,130 fits, 2 * 255 * 127 does not.

The pairs are not written by `onnxruntime.quantization`, whose INT8 graphs are equal (the tests compare them): its FP8
scales follow the spread of the weights instead of the calibrated range, and it cannot round scales up to float16.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from .calibrate import Observed
from .float_types import FLOAT8, FloatType
from .graph import add_constant, load_typed, raise_opset

Codes = Literal["int8", "uint8", "fp8"]
#: dtype of the codes, and their largest magnitude
_CODES: dict[str, tuple[Any, float]] = {
    "int8": (np.int8, 127.0),
    "uint8": (np.uint8, 255.0),
    "fp8": (ml_dtypes.float8_e4m3fn, FLOAT8.largest),
}
#: appended to a value's name behind its Q/DQ pair
DEQUANTIZED = "/dequantized"
#: operator -> axis of the output channels in its weights
_CHANNEL_AXES = {"Conv": 0, "Gemm": 1, "MatMul": -1}


class QuantizableLayer(NamedTuple):
    """A node that can be quantized: its name, the value and the weights it reads, their axis of output channels."""

    node: str
    source: str
    weights: str
    axis: int


class Scale(NamedTuple):
    """Scale of a value or of weights, () or (channels,) float32, and zero point (0, or 128 for uint8 of both signs)."""

    values: NDArray[np.float32]
    zero_point: int = 0


def find_quantizable(model: onnx.ModelProto) -> list[QuantizableLayer]:
    """Find the nodes with weights that INT8 and FP8 kernels exist for, in execution order.

    ConvTranspose is left out: in these nets it is a fixed bilinear enlargement of scores.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type not in _CHANNEL_AXES or node.input[1] not in constants or node.input[0] in constants:
            continue
        axis = _CHANNEL_AXES[node.op_type] % len(constants[node.input[1]].dims)
        if node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute):
            axis = 0
        found.append(QuantizableLayer(node.name, node.input[0], node.input[1], axis))
    return found


def scale_weights(weights: NDArray[Any], axis: int | None, rest: FloatType | None = None, *, bits: int = 8) -> Scale:
    """Scale weights for INT8 per output channel along an axis, or for FP8 per tensor; all-zero channels get scale 1.

    `bits` is the number of bits of INT8 codes that are used.
    """
    if axis is None:
        return Scale(_divide(np.abs(weights).max(initial=0.0), FLOAT8.largest, rest))
    others = tuple(place for place in range(weights.ndim) if place != axis)
    return Scale(_divide(np.abs(weights).max(axis=others), 2.0 ** (bits - 1) - 1, rest))


def scale_values(reach: float, seen: Observed, codes: Codes, rest: FloatType | None = None) -> Scale:
    """Scale an activation to cover magnitudes up to `reach`."""
    if codes == "uint8" and seen.least < 0:
        return Scale(_divide(reach, 127.0, rest), 128)
    return Scale(_divide(reach, _CODES[codes][1], rest))


def _divide(largest: Any, steps: float, rest: FloatType | None) -> NDArray[np.float32]:
    """Return largest / steps; in the type of the rest of the graph rounded up, so that rounding clips nothing."""
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
    *,
    weight_bits: int = 8,
) -> onnx.ModelProto:
    """Return a copy of a float32 graph with Q/DQ pairs; `cast_graph` may narrow the rest of it.

    `layers` are those to quantize, `reaches` the largest magnitude to cover of each of their inputs, `seen` the
    observed ranges of the inputs. `codes` is the type of the activations' codes; weights are int8 of
    `weight_bits`, or fp8 with fp8.
    Scales must fit into `rest`, the narrow type the rest of the graph will be cast to.
    """
    result = load_typed(raise_opset(model, 19 if codes == "fp8" or rest is not None else 17))
    chosen = {layer.node: layer for layer in layers}
    made: dict[tuple[ir.Value, int | None], ir.Value] = {}
    for node in list(result.graph):
        layer = chosen.get(str(node.name))
        if layer is None:
            continue
        source, weights = node.inputs[:2]
        assert source is not None, node.name
        assert weights is not None, node.name
        assert weights.const_value is not None, node.name
        if (source, None) not in made:
            scale = scale_values(reaches[layer.source], seen[layer.source], codes, rest)
            made[source, None] = _insert_pair(result.graph, source, scale, codes, None, node)
        axis = None if codes == "fp8" else layer.axis
        if (weights, axis) not in made:
            scale = scale_weights(weights.const_value.numpy(), axis, rest, bits=weight_bits)
            made[weights, axis] = _insert_pair(
                result.graph, weights, scale, "fp8" if axis is None else "int8", axis, node
            )
        node.replace_input_with(0, made[source, None])
        node.replace_input_with(1, made[weights, axis])
    return ir.to_proto(result)


def _insert_pair(
    graph: ir.Graph, value: ir.Value, scale: Scale, codes: Codes, axis: int | None, before: ir.Node
) -> ir.Value:
    """Insert a Q/DQ pair behind a value, or before a node if the value is a constant or an input."""
    name = str(value.name)
    step = add_constant(graph, f"{name}/scale", scale.values)
    zeros = np.full(scale.values.shape, scale.zero_point).astype(_CODES[codes][0])
    zero = add_constant(graph, f"{name}/zero_point", zeros)
    assert zero.type is not None
    coded = ir.Value(name=f"{name}/codes", shape=value.shape, type=zero.type)
    result = ir.Value(name=f"{name}{DEQUANTIZED}", shape=value.shape, type=ir.TensorType(ir.DataType.FLOAT))
    attributes = {} if axis is None else {"axis": axis}
    pair = [
        ir.node(op_type, [read, step, zero], attributes, outputs=[written], name=f"{name}/{op_type}/node")
        for op_type, read, written in (("QuantizeLinear", value, coded), ("DequantizeLinear", coded, result))
    ]
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, pair)
    else:
        graph.insert_before(before, pair)
    return result
