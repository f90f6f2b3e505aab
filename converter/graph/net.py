"""The graph: a Caffe net with every name resolved to a single assignment and every shape known.

Plain data between the readers and the consumers of a net (torch, ONNX, inspection); it knows no text, bytes or torch.
A blob that an in-place layer rewrites becomes a new :class:`Blob` of the same name; each reader holds the version that
Caffe would give it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .definition import DroppedLayer, NetDefinition

if TYPE_CHECKING:
    from ..layers.base import Operator

Shape = tuple[int, ...]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Blob:
    """One version of a named blob.

    Attributes:
        name: Caffe's blob name.
        shape: its shape at the net's input sizes, in Caffe's axis order (N, C, H, W for images).
        producer: the layer that wrote this version, or None for a net input.
        top_index: its index among the producer's tops.
    """

    name: str
    shape: Shape
    producer: Layer | None = field(repr=False)
    top_index: int = 0


@dataclass(eq=False)
class Layer:
    """One layer that runs.

    Attributes:
        name: Caffe's layer name; may repeat within a net.
        attribute: the unique name under which the torch module holds it.
        type: Caffe's type string, CamelCase as in V2.
        line: its line in the prototxt, or None.
        operator: its type's computation, set up for this layer.
        bottoms: the blob versions it reads.
        tops: the blob versions it writes.
        parameters: key in :attr:`Net.parameters` of each of its blobs; a shared blob has its owner's key.
        message: the LayerParameter message.
    """

    name: str
    attribute: str
    type: str
    line: int | None
    operator: Operator = field(repr=False)
    bottoms: tuple[Blob, ...] = field(repr=False)
    message: Any = field(repr=False)
    tops: tuple[Blob, ...] = field(default=(), repr=False)
    parameters: tuple[ParameterKey, ...] = ()


@dataclass(frozen=True, order=True)
class ParameterKey:
    """Blob `index` of the layer with submodule name `attribute`; printed as `<attribute>/<index>`."""

    attribute: str
    index: int

    def __str__(self) -> str:
        return f"{self.attribute}/{self.index}"


@dataclass(frozen=True, eq=False)
class Net:
    """A Caffe net at given input sizes.

    Attributes:
        name: the net's own name.
        inputs: blobs that the caller supplies (declared inputs and the tops of data layers).
        outputs: blobs that no layer reads, in Caffe's order.
        layers: the layers that run, in Caffe's order.
        parameters: array of each parameter blob, in Caffe's own shape; empty where no weights were given.
        dropped: layers left out, each with its reason.
        dialect: the Caffe that the file comes from (`bvlc`, `deeplab_v1`, ...).
        dialect_evidence: the evidence for it.
        warnings: for people, in full sentences.
        definition: the definition it was built from; `reshape_net` builds it again.
    """

    name: str
    inputs: tuple[Blob, ...]
    outputs: tuple[Blob, ...]
    layers: tuple[Layer, ...]
    dropped: tuple[DroppedLayer, ...]
    dialect: str
    dialect_evidence: tuple[str, ...]
    warnings: tuple[str, ...]
    definition: NetDefinition = field(repr=False)
    parameters: Mapping[ParameterKey, FloatArray] = field(default_factory=dict, repr=False)

    def parameter_shapes(self) -> dict[ParameterKey, Shape]:
        """Shape of every distinct parameter blob, in Caffe's own shape, shared blobs once."""
        shapes: dict[ParameterKey, Shape] = {}
        for layer in self.layers:
            for key, shape in zip(layer.parameters, layer.operator.weight_shapes(), strict=True):
                shapes.setdefault(key, shape)
        return shapes

    def parameter_count(self) -> int:
        """Number of float32 parameters, shared blobs counted once."""
        return sum(map(math.prod, self.parameter_shapes().values()))

    def blobs(self) -> list[Blob]:
        """Every version of every blob: inputs, then tops in execution order."""
        return [*self.inputs, *(top for layer in self.layers for top in layer.tops)]

    def recorded_tops(self) -> Iterator[tuple[str, Blob]]:
        """Every top with its key `<layer>:<top>`, in execution order; a repeated key gets `#2`, `#3`, ..."""
        seen: dict[str, int] = {}
        for source in self.definition.input_tops:
            blob = next((b for b in self.inputs if b.name == source.top), None)
            if blob is not None and source.layer is not None:
                yield _count_key(seen, f"{source.layer}:{source.top}"), blob
        for layer in self.layers:
            for top in layer.tops:
                yield _count_key(seen, f"{layer.name}:{top.name}"), top


def _count_key(seen: dict[str, int], key: str) -> str:
    seen[key] = seen.get(key, 0) + 1
    return key if seen[key] == 1 else f"{key}#{seen[key]}"
