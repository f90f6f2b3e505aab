"""Comparison of a variant with its float32 reference: emulation of narrow types, and the error of every blob.

ONNX Runtime's CPU has no kernels for most narrow types. It rejects bfloat16, and for float16 it converts to float32,
computes a whole chain of layers and converts back at the end, which shows the rounding of the weights but not of the
activations in between. `emulate` therefore makes a float32 graph of the same meaning:

1. narrow weights become the float32 numbers they represent, exactly;
2. every value a node stores in a narrow type is rounded to it and cast back to float32;
3. Q/DQ nodes stay as they are, with float32 scales.

This covers the rounding of everything stored, with sums in float32, as in tensor cores. It does not cover kernels that
sum in float16, other orders of summation, and fused layers that round less often.

`Comparison` joins that graph and the reference into one and measures every blob inside it. Only four numbers per blob
leave it: the largest difference, the largest reference value, and the energies of both; so a comparison needs no more
memory than the two nets themselves.

error  largest absolute difference / max(1, largest absolute reference value), as in `verify`
noise  square root of (energy of the difference / energy of the reference): 0.01 is a signal-to-noise ratio of 40 dB
step   a blob's noise minus the largest noise of the blobs it is computed from: the part its own layer added
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from .graph import infer_types, layer_of, list_blobs, make_feed, open_session, raise_opset, read_opset
from .images import Array

_NARROW = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
_PREFIX = "variant/"
_NUMBERS = ("error", "reference", "difference_energy", "reference_energy")


def emulate(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the float32 graph that computes what a typed or quantized graph means; values keep their names."""
    types = infer_types(model)
    graph = onnx.GraphProto(name=model.graph.name)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.initializer.extend(map(_widen, model.graph.initializer))
    for node in model.graph.node:
        widened = graph.node.add()
        widened.CopyFrom(node)
        for attribute in widened.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _NARROW:
                attribute.i = TensorProto.FLOAT  # the rounding follows, as for any other node
        narrow = {name: types[name] for name in node.output if types.get(name) in _NARROW}
        widened.output[:] = [f"{name}/exact" if name in narrow else name for name in node.output]
        for name, kind in narrow.items():
            cast = [(f"{name}/exact", f"{name}/stored", kind), (f"{name}/stored", name, TensorProto.FLOAT)]
            graph.node.extend(helper.make_node("Cast", [read], [written], to=to) for read, written, to in cast)
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)


def _widen(tensor: TensorProto) -> TensorProto:
    if tensor.data_type not in _NARROW:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


@dataclass
class BlobError:
    """Error of a blob over all images, the layer it leaves, and the blobs it is computed from.

    error, noise and step are those of the module docstring, inf if the variant is not finite; `energies` are the sums
    of the difference and of the reference.
    """

    name: str
    layer: str
    feeds: tuple[str, ...]
    error: float = 0.0
    noise: float = 0.0
    step: float = 0.0
    energies: tuple[float, float] = (0.0, 0.0)

    def add(self, error: float, reference: float, difference_energy: float, reference_energy: float) -> None:
        """Add one image."""
        if not (math.isfinite(error) and math.isfinite(difference_energy)):
            self.error = self.noise = math.inf
            return
        self.error = max(self.error, error / max(1.0, reference))
        self.energies = (self.energies[0] + difference_energy, self.energies[1] + reference_energy)
        if math.isfinite(self.noise):
            self.noise = measure_noise(*self.energies)

    def to_json(self) -> dict[str, Any]:
        """Return plain data, infinity as text: JSON has no infinity."""
        numbers = {"error": self.error, "noise": self.noise, "step": self.step}
        return {"name": self.name, "layer": self.layer} | {key: to_json(number) for key, number in numbers.items()}


def measure_noise(difference_energy: float, reference_energy: float) -> float:
    """Return the square root of the energy ratio, inf if only the reference is 0."""
    if difference_energy == 0:
        return 0.0
    return math.sqrt(difference_energy / reference_energy) if reference_energy > 0 else math.inf


def to_json(number: float) -> float | str:
    """Return a finite number as it is, others as text."""
    return number if math.isfinite(number) else str(number)


class Comparison:
    """Runs a reference and a variant side by side and accumulates the errors of the blobs."""

    def __init__(self, reference: onnx.ModelProto, variant: onnx.ModelProto, *, threads: int | None = None) -> None:
        """Join a float32 graph and a graph of the same input and output, all of whose float values are float32."""
        reference = raise_opset(reference, read_opset(variant))
        variant = raise_opset(variant, read_opset(reference))
        theirs = list_blobs(variant)
        layers = {name: layer_of(node.name) for name, node in list_blobs(reference).items() if name in theirs}
        feeds = _find_feeds(reference, layers.keys())
        self.rows = {name: BlobError(name, layer, feeds[name]) for name, layer in layers.items()}
        joined = compose.merge_graphs(reference.graph, variant.graph, io_map=[], prefix2=_PREFIX)
        self._inputs = [value.name for value in joined.input]
        self._wanted = [value.name for value in joined.output]
        for place, name in enumerate(self.rows):
            joined.node.extend(_measure(name, place))
            measured = [f"measured/{place}/{number}" for number in _NUMBERS]
            joined.output.extend(helper.make_tensor_value_info(each, TensorProto.FLOAT, []) for each in measured)
            self._wanted += measured
        version = max(reference.ir_version, variant.ir_version)
        model = helper.make_model(joined, opset_imports=list(variant.opset_import), ir_version=version)
        self._reference, self._session = reference, open_session(model, threads=threads)

    def run(self, image: Array) -> tuple[Array, Array]:
        """Compare on one H x W x 3 uint8 RGB image; returns both heads' outputs, of the reference and the variant."""
        feeds = dict.fromkeys(self._inputs, make_feed(self._reference, image))
        reference, variant, *numbers = self._session.run(self._wanted, feeds)
        for place, row in enumerate(self.rows.values()):
            row.add(*(float(number) for number in numbers[4 * place : 4 * place + 4]))
        for row in self.rows.values():
            before = max((self.rows[feed].noise for feed in row.feeds), default=0.0)
            row.step = max(0.0, row.noise - before) if math.isfinite(before) else 0.0
        return reference, variant


def _measure(name: str, place: int) -> list[onnx.NodeProto]:
    at = f"measured/{place}"
    return [
        helper.make_node("Sub", [f"{_PREFIX}{name}", name], [f"{at}/difference"]),
        helper.make_node("Abs", [f"{at}/difference"], [f"{at}/absolute"]),
        helper.make_node("ReduceMax", [f"{at}/absolute"], [f"{at}/error"], keepdims=0),
        helper.make_node("Abs", [name], [f"{at}/magnitude"]),
        helper.make_node("ReduceMax", [f"{at}/magnitude"], [f"{at}/reference"], keepdims=0),
        helper.make_node("ReduceSumSquare", [f"{at}/difference"], [f"{at}/difference_energy"], keepdims=0),
        helper.make_node("ReduceSumSquare", [name], [f"{at}/reference_energy"], keepdims=0),
    ]


def _find_feeds(model: onnx.ModelProto, blobs: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Find the blobs that each blob is computed from, through values that are not blobs."""
    sources: dict[str, tuple[str, ...]] = {}
    feeds: dict[str, tuple[str, ...]] = {}
    for node in model.graph.node:
        read: dict[str, None] = {}
        for name in node.input:
            read |= dict.fromkeys((name,) if name in blobs else sources.get(name, ()))
        for name in node.output:
            sources[name] = tuple(read)
            if name in blobs:
                feeds[name] = tuple(read)
    return feeds
