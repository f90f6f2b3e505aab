"""The graph: a Caffe net with every name resolved to a single assignment and every shape known.

What it is: plain data between the readers and everything that consumes a net (torch, ONNX, inspection).
What it does not know: text, bytes, torch. A blob that an in-place layer rewrites becomes a new :class:`Blob` of the
same name; whoever reads it holds the version Caffe would show it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..layers.base import Operator
    from .build import NetDefinition

Shape = tuple[int, ...]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Blob:
    """One version of a named blob.

    Attributes:
        name: Caffe's blob name.
        shape: its shape at the laid-out input sizes, Caffe's axis order (N, C, H, W for images).
        producer: the layer that wrote this version, or None for a net input.
        top_index: which of the producer's tops it is.
    """

    name: str
    shape: Shape
    producer: Layer | None = field(repr=False)
    top_index: int = 0


@dataclass(eq=False)
class Layer:
    """One layer that runs in the TEST phase.

    Attributes:
        name: Caffe's layer name; may repeat within a net.
        attribute: the unique name under which the torch module holds it.
        type: Caffe's type string, CamelCase as in V2.
        line: its line in the prototxt, or None.
        operator: what it computes.
        bottoms: the blob versions it reads.
        tops: the blob versions it writes.
        parameters: for each of its blobs the key of the array in :attr:`Net.parameters`; a shared blob has its owner's.
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
    """Blob `index` of the layer held under `attribute`; printed as `<attribute>/<index>`."""

    attribute: str
    index: int

    def __str__(self) -> str:
        return f"{self.attribute}/{self.index}"


@dataclass(frozen=True)
class DroppedLayer:
    """A layer of the file that is not part of the converted net, and why."""

    name: str
    type: str
    line: int | None
    reason: str


@dataclass(frozen=True, eq=False)
class Net:
    """A Caffe net, laid out.

    Attributes:
        name: the net's own name.
        inputs: blobs that a caller supplies (declared inputs and the tops of data layers).
        outputs: blobs nobody reads, in Caffe's order.
        layers: the layers that run, in Caffe's order.
        parameters: array of each parameter blob, in Caffe's own shape; empty where no weights were given.
        dropped: layers left out, each with its reason.
        dialect: which Caffe the file is from (`bvlc`, `deeplab_v1`, ...).
        dialect_evidence: why.
        warnings: what a person should know, in plain sentences.
        definition: the laid-out net's source; :meth:`reshape` lays it out again.
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
        return sum(int(np.prod(shape, dtype=np.int64)) for shape in self.parameter_shapes().values())

    def reshape(self, input_shapes: Mapping[str, Sequence[int]]) -> Net:
        """The same net laid out for other input shapes, with the same parameters.

        Args:
            input_shapes: input name -> new shape; inputs not named keep theirs.

        Raises:
            NetError: a layer cannot take these sizes.
        """
        from .build import lay_out

        shapes = {blob.name: blob.shape for blob in self.inputs} | {k: tuple(v) for k, v in input_shapes.items()}
        net = lay_out(self.definition, shapes)
        twins = dict(zip(map(id, self.blobs()), net.blobs(), strict=True))
        return replace(net, outputs=tuple(twins[id(blob)] for blob in self.outputs), parameters=self.parameters)

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
