"""A small ONNX graph writer with sizes that may only be known at run time.

What it is: the pen that layers write their nodes with. What it does not know: Caffe.
A :class:`Dim` is either a number or the name of a one-element int64 tensor; arithmetic on it folds where it can and
adds nodes where it cannot, so one emitter serves static and dynamic nets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...errors import ExportError

DEFAULT_OPSET = 17


@dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    Attributes:
        name: its name in the graph.
        shape: its shape at the laid-out sizes.
        dynamic: for each axis, whether its size may differ at run time.
    """

    name: str
    shape: tuple[int, ...]
    dynamic: tuple[bool, ...]

    def is_dynamic(self, axis: int) -> bool:
        """Whether the size along an axis is only known at run time."""
        return self.dynamic[axis]


class Dim:
    """A size: a number, or a one-element int64 tensor computed in the graph."""

    def __init__(self, graph: OnnxGraph, value: int | str) -> None:
        self._graph, self.value = graph, value

    @property
    def is_static(self) -> bool:
        """Whether the size is a plain number."""
        return isinstance(self.value, int)

    def tensor(self) -> str:
        """The name of the one-element int64 tensor that holds this size."""
        return self._graph.constant([self.value], np.int64) if isinstance(self.value, int) else self.value

    def _apply(self, op_type: str, other: Dim | int) -> Dim:
        right = other if isinstance(other, Dim) else Dim(self._graph, other)
        if isinstance(self.value, int) and isinstance(right.value, int):
            a, b = self.value, right.value
            folded = {
                "Add": a + b,
                "Sub": a - b,
                "Mul": a * b,
                "Div": a // b if b else 0,
                "Max": max(a, b),
                "Min": min(a, b),
            }
            return Dim(self._graph, folded[op_type])
        if (op_type, right.value) in (("Add", 0), ("Sub", 0), ("Mul", 1), ("Div", 1)):
            return self
        return Dim(self._graph, self._graph.add(op_type, [self.tensor(), right.tensor()]))

    def __add__(self, other: Dim | int) -> Dim:
        return self._apply("Add", other)

    def __sub__(self, other: Dim | int) -> Dim:
        return self._apply("Sub", other)

    def __mul__(self, other: Dim | int) -> Dim:
        return self._apply("Mul", other)

    def __floordiv__(self, other: Dim | int) -> Dim:
        """Integer division of non-negative sizes."""
        return self._apply("Div", other)

    def at_least(self, other: Dim | int) -> Dim:
        """The larger of two sizes."""
        return self._apply("Max", other)

    def at_most(self, other: Dim | int) -> Dim:
        """The smaller of two sizes."""
        return self._apply("Min", other)


class OnnxGraph:
    """Collects nodes and initializers; :meth:`model` makes the checked ONNX model."""

    def __init__(self, name: str, opset: int = DEFAULT_OPSET) -> None:
        self.name, self.opset = name, opset
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._dims: dict[tuple[str, int], Dim] = {}
        # the tensor is kept with its name: an id means nothing once its object is gone
        self._parameters: dict[tuple[int, tuple[int, ...]], tuple[str, Any]] = {}
        self._used: set[str] = set()
        self._scope, self._scope_start = "graph", 0
        self._renamed: dict[str, str] = {}

    def enter_layer(self, layer: str) -> None:
        """Name the nodes and values that follow after this layer."""
        self._scope, self._scope_start = layer, len(self._nodes)
        self._renamed.clear()

    def unique(self, hint: str) -> str:
        """A value name not used so far, `hint` itself where it is free."""
        name, number = hint, 1
        while name in self._used:
            number += 1
            name = f"{hint}.{number}"
        self._used.add(name)
        return name

    def is_used(self, name: str) -> bool:
        """Whether a value of this name exists or is reserved."""
        return name in self._used

    def reserve(self, name: str) -> None:
        """Keep a name for a value that :meth:`add` will be told to write."""
        self._used.add(name)

    def add(self, op_type: str, inputs: Sequence[str], *, output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        return self.add_multiple(op_type, inputs, 1, outputs=[output] if output else None, **attributes)[0]

    def add_multiple(
        self,
        op_type: str,
        inputs: Sequence[str],
        output_count: int,
        *,
        outputs: Sequence[str] | None = None,
        **attributes: Any,
    ) -> list[str]:
        """Add a node with several outputs; returns their names. Attributes that are None are left out."""
        names = list(outputs) if outputs else [self.unique(f"{self._scope}/{op_type}") for _ in range(output_count)]
        kept = {key: value for key, value in attributes.items() if value is not None}
        node = helper.make_node(op_type, list(inputs), names, name=self.unique(f"{self._scope}/{op_type}/node"), **kept)
        self._nodes.append(node)
        return names

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """A small constant tensor; equal constants are written once."""
        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.initializer(f"constant_{len(self._constants)}", array)
        return self._constants[key]

    def initializer(self, name: str, array: NDArray[Any]) -> str:
        """A named tensor stored in the model."""
        name = self.unique(name)
        self._initializers[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def parameter(self, name: str, tensor: Any, shape: Sequence[int] | None = None) -> str:
        """A weight of the current layer's module under its state_dict name; a shared weight is stored once.

        Args:
            name: the attribute of the module.
            tensor: that attribute itself, not a view of it: who shares it is told by its identity.
            shape: the shape to store it in, where that is not its own.
        """
        key = (id(tensor), tuple(tensor.shape if shape is None else shape))
        if key not in self._parameters:
            if tensor.is_floating_point() and tensor.element_size() != 4:
                raise ExportError(
                    f"{name} is {str(tensor.dtype).removeprefix('torch.')}, the graph is float32; call module.float()",
                    layer=self._scope,
                )
            array = tensor.detach().cpu().numpy().reshape(key[1])
            self._parameters[key] = self.initializer(f"{self._scope}.{name}", array), tensor
        return self._parameters[key][0]

    def dim(self, value: Value, axis: int) -> Dim:
        """The size of a value along an axis."""
        axis %= len(value.shape)
        if not value.is_dynamic(axis):
            return Dim(self, value.shape[axis])
        key = (value.name, axis)
        if key not in self._dims:
            self._dims[key] = Dim(self, self.sizes(value.name, axis, axis + 1))
        return self._dims[key]

    def sizes(self, name: str, start: int, end: int | None = None) -> str:
        """The sizes of a value from axis `start` up to `end`, a 1-D int64 tensor.

        By a Slice of its whole shape: TensorRT's parser before 10 passes over the `start` and `end` of Shape itself.
        """
        stop = np.iinfo(np.int32).max if end is None else end
        bounds = [self.constant([bound], np.int64) for bound in (start, stop, 0)]
        return self.add("Slice", [self.add("Shape", [name]), *bounds])

    def number(self, value: int) -> Dim:
        """A known size as a Dim."""
        return Dim(self, value)

    def shape_tensor(self, dims: Sequence[Dim | int]) -> str:
        """A 1-D int64 tensor of these sizes: a constant where all are known."""
        sizes = [d if isinstance(d, Dim) else Dim(self, d) for d in dims]
        if all(isinstance(d.value, int) for d in sizes):
            return self.constant([d.value for d in sizes], np.int64)
        return self.add("Concat", [d.tensor() for d in sizes], axis=0)

    def reshape(self, value: str, dims: Sequence[Dim | int]) -> str:
        """Reshape to these sizes (-1 infers one, as ONNX)."""
        return self.add("Reshape", [value, self.shape_tensor(dims)])

    def slice(self, value: str, axis: int, start: Dim | int, end: Dim | int) -> str:
        """The part [start, end) along one axis."""
        bounds = [d if isinstance(d, Dim) else Dim(self, d) for d in (start, end)]
        return self.add("Slice", [value, bounds[0].tensor(), bounds[1].tensor(), self.constant([axis], np.int64)])

    def reduce(self, op_type: str, value: str, axes: Sequence[int], *, keepdims: bool = True) -> str:
        """A Reduce* node over these axes, which are an attribute before opset 18 (ReduceSum: 13) and an input since."""
        if op_type == "ReduceSum" or self.opset >= 18:
            return self.add(op_type, [value, self.constant(axes, np.int64)], keepdims=int(keepdims))
        return self.add(op_type, [value], axes=list(axes), keepdims=int(keepdims))

    @contextmanager
    def body(self) -> Iterator[list[Any]]:
        """Collect the nodes added inside in a list of their own, for the body of a Scan or Loop.

        They may read values and weights of the graph around them. Sizes by :meth:`dim` are not for use inside.
        """
        outer, self._nodes = self._nodes, []
        try:
            yield self._nodes
        finally:
            self._nodes = outer

    def name_top(self, value: str, wanted: str) -> None:
        """Give a value the current layer returns the name `wanted`, by an Identity where it is not the layer's own."""
        value = self._renamed.get(value, value)
        own = self._nodes[self._scope_start :]
        if value in self._renamed.values() or all(value not in node.output for node in own):
            self.add("Identity", [value], output=wanted)
            return
        self._renamed[value] = wanted
        for node in own:
            node.output[:] = [wanted if name == value else name for name in node.output]
            node.input[:] = [wanted if name == value else name for name in node.input]
        self._dims = {(wanted if name == value else name, axis): dim for (name, axis), dim in self._dims.items()}

    def model(self, *, producer: str, version: str) -> onnx.ModelProto:
        """The finished model; unused initializers are left out."""
        read = _names_read(self._nodes) | {output.name for output in self.outputs}
        graph = helper.make_graph(
            self._nodes,
            self.name or "net",
            self.inputs,
            self.outputs,
            [tensor for name, tensor in self._initializers.items() if name in read],
        )
        # IR version 8 is what opset 17 came with; TensorRT 8.5 and older runtimes read it.
        ir_version = 8 if self.opset <= 18 else 9 if self.opset <= 20 else 10
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=ir_version,
            producer_name=producer,
            producer_version=version,
        )


def _names_read(nodes: Iterable[Any]) -> set[str]:
    """Names that nodes read, in their bodies too."""
    names: set[str] = set()
    for node in nodes:
        names.update(node.input)
        for attribute in node.attribute:
            names |= _names_read(attribute.g.node)
    return names


FLOAT = TensorProto.FLOAT
UINT8 = TensorProto.UINT8
