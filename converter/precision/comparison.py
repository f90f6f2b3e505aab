"""A variant beside its float32 reference on the same images, every blob measured inside the graph.

Both graphs are joined into one, behind one image. Of each blob only four numbers leave it: the largest difference, the
largest reference value, and the energies of both; so a comparison needs no more memory than the two nets themselves.

error  largest absolute difference / max(1, largest absolute reference value), as `verify` counts it
noise  square root of (energy of the difference / energy of the reference): 0.01 is 40 dB of signal to noise
step   a blob's noise minus the largest noise of the blobs it is computed from: what its own layer added
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper

from .graph_values import list_blobs, open_session
from .naming import layer_of
from .opset import raise_opset, read_opset

Array = NDArray[Any]
_PREFIX = "variant/"
_NUMBERS = ("error", "reference", "difference_energy", "reference_energy")


@dataclass
class BlobError:
    """What a variant does to one blob, over all images compared.

    Attributes:
        name: the value in the graph.
        layer: the layer it leaves.
        feeds: blobs it is computed from.
        error, noise, step: see the module docstring; inf where the variant is not finite.
    """

    name: str
    layer: str
    feeds: tuple[str, ...]
    error: float = 0.0
    noise: float = 0.0
    step: float = 0.0
    _energies: list[float] = field(default_factory=lambda: [0.0, 0.0], repr=False)

    def add(self, error: float, reference: float, difference_energy: float, reference_energy: float) -> None:
        """Take in one image."""
        if not (math.isfinite(error) and math.isfinite(difference_energy)):
            self.error = self.noise = math.inf
            return
        self.error = max(self.error, error / max(1.0, reference))
        self._energies[0] += difference_energy
        self._energies[1] += reference_energy
        if math.isfinite(self.noise):
            self.noise = _divide_root(*self._energies)

    def to_json(self) -> dict[str, Any]:
        """Plain data; JSON knows no infinity."""
        return {
            "name": self.name,
            "layer": self.layer,
            **{key: _plain(getattr(self, key)) for key in ("error", "noise", "step")},
        }


def _divide_root(difference: float, reference: float) -> float:
    if difference == 0:
        return 0.0
    return math.sqrt(difference / reference) if reference > 0 else math.inf


def _plain(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)


class Comparison:
    """Runs a reference and a variant side by side and gathers what differs."""

    def __init__(self, reference: onnx.ModelProto, variant: onnx.ModelProto, *, threads: int | None = None) -> None:
        """Join two graphs.

        Args:
            reference: the float32 graph.
            variant: a graph of the same input and output whose float values are all float32 (see `emulation`).
            threads: of one run.
        """
        reference = raise_opset(reference, read_opset(variant))
        variant = raise_opset(variant, read_opset(reference))
        ours, theirs = list_blobs(reference), list_blobs(variant)
        common = {name: node for name, node in ours.items() if name in theirs}
        feeds = _find_feeds(reference, set(common))
        self.rows = {name: BlobError(name, layer_of(node.name), feeds[name]) for name, node in common.items()}
        self._input, self._output = reference.graph.input[0].name, reference.graph.output[0].name
        joined = _join(reference, variant)
        for place, name in enumerate(self.rows):
            joined.graph.node.extend(_measure(name, place))
            joined.graph.output.extend(
                helper.make_tensor_value_info(f"measured/{place}/{number}", TensorProto.FLOAT, [])
                for number in _NUMBERS
            )
        self._session = open_session(joined, threads=threads)
        self._wanted = [self._output, f"{_PREFIX}{self._output}"]
        self._wanted += [f"measured/{place}/{number}" for place in range(len(self.rows)) for number in _NUMBERS]

    def run(self, image: Array) -> tuple[Array, Array]:
        """Compare on one H x W x 3 uint8 RGB image; returns both heads' outputs, of the reference and the variant."""
        reference, variant, *numbers = self._session.run(self._wanted, {self._input: image[None]})
        for place, row in enumerate(self.rows.values()):
            row.add(*(float(number) for number in numbers[4 * place : 4 * place + 4]))
        for row in self.rows.values():
            before = max((self.rows[feed].noise for feed in row.feeds), default=0.0)
            row.step = max(0.0, row.noise - before) if math.isfinite(before) else 0.0
        return reference, variant


def _join(reference: onnx.ModelProto, variant: onnx.ModelProto) -> onnx.ModelProto:
    """Both graphs behind the reference's image; the variant's names begin with `variant/`."""
    other = compose.add_prefix_graph(variant.graph, _PREFIX)
    image, renamed = reference.graph.input[0].name, f"{_PREFIX}{variant.graph.input[0].name}"
    for node in other.node:
        node.input[:] = [image if name == renamed else name for name in node.input]
    graph = onnx.GraphProto(name="comparison")
    graph.input.extend(reference.graph.input)
    graph.output.extend([*reference.graph.output, *other.output])
    graph.initializer.extend([*reference.graph.initializer, *other.initializer])
    graph.node.extend([*reference.graph.node, *other.node])
    version = max(reference.ir_version, variant.ir_version)
    return helper.make_model(graph, opset_imports=list(variant.opset_import), ir_version=version)


def _measure(name: str, place: int) -> list[onnx.NodeProto]:
    other, at = f"{_PREFIX}{name}", f"measured/{place}"
    return [
        helper.make_node("Sub", [other, name], [f"{at}/difference"]),
        helper.make_node("Abs", [f"{at}/difference"], [f"{at}/absolute"]),
        helper.make_node("ReduceMax", [f"{at}/absolute"], [f"{at}/error"], keepdims=0),
        helper.make_node("Abs", [name], [f"{at}/magnitude"]),
        helper.make_node("ReduceMax", [f"{at}/magnitude"], [f"{at}/reference"], keepdims=0),
        helper.make_node("ReduceSumSquare", [f"{at}/difference"], [f"{at}/difference_energy"], keepdims=0),
        helper.make_node("ReduceSumSquare", [name], [f"{at}/reference_energy"], keepdims=0),
    ]


def _find_feeds(model: onnx.ModelProto, blobs: set[str]) -> dict[str, tuple[str, ...]]:
    """The blobs that each blob is computed from, through values that are none."""
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
