"""A small ONNX graph writer with sizes that may only be known at run time.

Layers write their nodes with it; it knows nothing of Caffe.
Sizes are integers, or expressions in the inputs' sizes (:class:`~..graph.sizes.Size`) that become int64 nodes where a
layer needs them as a tensor, so one emitter serves static and dynamic nets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...bundle.choices import Detection
from ...errors import ExportError
from ..graph.net import Shape
from ..graph.sizes import Guard, Size, Terms, Trace

DEFAULT_OPSET = 17


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph.

    Attributes:
        name: its name in the graph.
        shape: its shape, with a :class:`~..graph.sizes.Size` for each axis whose size is only known at run time.
    """

    name: str
    shape: Shape

    def is_dynamic(self, axis: int) -> bool:
        """Whether the size along an axis is only known at run time."""
        return isinstance(self.shape[axis], Size)


class OnnxGraph:
    """Collects nodes and initializers; :meth:`model` makes the checked ONNX model."""

    def __init__(self, name: str, opset: int = DEFAULT_OPSET, detection: Detection = "standard") -> None:
        self.name, self.opset, self.detection = name, opset, detection
        #: operators that ONNX lacks and an engine has as its own
        self.foreign: set[str] = set()
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        #: expression -> the tensor that holds it; atom -> (value, axis, addend): the size there is atom + addend
        self._sizes: dict[tuple[Trace, Terms], str] = {}
        self._sources: dict[tuple[Trace, int], tuple[str, int, int]] = {}
        #: whether a condition holds at all sizes that the graph will see; the exporter may know more than the layers
        self.proves: Callable[[Guard], bool] = lambda guard: False
        #: pooling whose windows lie side by side -> height and width of the plane it reads
        self.tiled_planes: dict[object, Shape] = {}
        #: shapes of the current layer's tops
        self.top_shapes: tuple[Shape, ...] = ()
        # the tensor is kept too: its id may be reused once it is freed
        self._parameters: dict[tuple[int, tuple[int, ...]], tuple[str, Any]] = {}
        self._used: set[str] = set()
        self._scope, self._scope_start = "graph", 0
        self._renamed: dict[str, str] = {}

    def enter_layer(self, layer: str, top_shapes: tuple[Shape, ...] = ()) -> None:
        """Name the nodes and values that follow after this layer, whose tops have these shapes."""
        self.top_shapes = top_shapes
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
        """Reserve a name for a value that :meth:`add` will write."""
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
            tensor: that attribute itself, not a view of it: sharing is detected by identity.
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

    def dim(self, value: Value, axis: int) -> int:
        """The size of a value along an axis; calculate with it as with an int (+ - * // %)."""
        return value.shape[axis]

    def bind_sizes(self, value: Value) -> None:
        """Read sizes that follow from this value's, up to an addend, from this value."""
        for axis, size in enumerate(value.shape):
            if isinstance(size, Size) and (found := size.split_atom()) is not None:
                atom, addend = found
                self._sources[size.trace, atom] = (value.name, axis, addend)

    def is_certain(self, size: int, relation: str) -> bool:
        """Whether a size is surely `==` or `>=` 0, whatever the sizes at run time."""
        if isinstance(size, Size):
            return self.proves(Guard(size.terms, relation))
        return bool(Guard((), relation).holds(size))

    def size_tensor(self, size: int) -> str:
        """The name of a one-element int64 tensor that holds this size: a constant, or computed by nodes."""
        if not isinstance(size, Size):
            return self.constant([size], np.int64)
        key = (size.trace, size.terms)
        if key not in self._sizes:
            terms = sorted(size.terms, key=lambda term: term[1] < 0)  # begin with an addend
            total = ""
            for monomial, coefficient in terms:
                factor = abs(coefficient) if total else coefficient
                product = self.constant([factor], np.int64) if factor != 1 or not monomial else ""
                for atom in monomial:
                    other = self._atom_tensor(size.trace, atom)
                    product = self.add("Mul", [other, product]) if product else other
                total = self.add("Add" if coefficient > 0 else "Sub", [total, product]) if total else product
            self._sizes[key] = total
        return self._sizes[key]

    def _atom_tensor(self, trace: Trace, atom: int) -> str:
        key = (trace, (((atom,), 1),))
        if key not in self._sizes:
            kind, operands = trace.atoms[atom]
            if (trace, atom) in self._sources:
                # By a Slice of the whole shape: TensorRT's parser before 10 ignores the `start` and `end` of Shape.
                name, axis, addend = self._sources[trace, atom]
                bounds = [self.constant([bound], np.int64) for bound in (axis, axis + 1, 0)]
                size = self.add("Slice", [self.add("Shape", [name]), *bounds])
                self._sizes[key] = self.add("Sub", [size, self.constant([addend], np.int64)]) if addend else size
            else:
                parts = [self.size_tensor(trace.at(terms, {})) for terms in operands]
                self._sizes[key] = self.add({"floor": "Div", "max": "Max"}[kind], parts)
        return self._sizes[key]

    def shape_tensor(self, sizes: Sequence[int]) -> str:
        """A 1-D int64 tensor of these sizes: a constant where all are known."""
        if not any(isinstance(size, Size) for size in sizes):
            return self.constant(list(sizes), np.int64)
        return self.add("Concat", [self.size_tensor(size) for size in sizes], axis=0)

    def reshape(self, value: str, sizes: Sequence[int]) -> str:
        """Reshape to these sizes (-1 infers one, as ONNX)."""
        return self.add("Reshape", [value, self.shape_tensor(sizes)])

    def zeros(self, sizes: str) -> str:
        """Zeros of the shape that is a value of the graph; the fill is written out because OpenCV 5 has no default."""
        return self.add("ConstantOfShape", [sizes], value=helper.make_tensor("value", FLOAT, [1], [0.0]))

    def select_rows(self, value: str, kept: str) -> str:
        """The rows where a vector is true; Compress, which neither TensorRT nor OpenCV has, does the same."""
        return self.add("Gather", [value, self.reshape(self.add("NonZero", [kept]), [-1])], axis=0)

    def slice(self, value: str, axis: int, start: int, end: int) -> str:
        """The part [start, end) along one axis."""
        bounds = [self.size_tensor(start), self.size_tensor(end)]
        return self.add("Slice", [value, *bounds, self.constant([axis], np.int64)])

    def reduce(self, op_type: str, value: str, axes: Sequence[int], *, keepdims: bool = True) -> str:
        """A Reduce* node over these axes, which are an attribute before opset 18 (ReduceSum: 13) and an input since."""
        if op_type == "ReduceSum" or self.opset >= 18:
            return self.add(op_type, [value, self.constant(axes, np.int64)], keepdims=int(keepdims))
        return self.add(op_type, [value], axes=list(axes), keepdims=int(keepdims))

    def find_kind(self, value: str) -> str:
        """The operator that made a value; "" for an input."""
        return next((node.op_type for node in reversed(self._nodes) if value in node.output), "")

    @contextmanager
    def body(self) -> Iterator[list[Any]]:
        """Collect the nodes added inside in a list of their own, for the body of a Loop.

        They may read values and weights of the graph around them. Size tensors are not for use inside.
        """
        outer, self._nodes = self._nodes, []
        try:
            yield self._nodes
        finally:
            self._nodes = outer

    def fold_gather(self, gathered: str) -> bool:
        """Remove a Gather of channels that only convolutions read, by reordering their weights.

        Args:
            gathered: the output of the Gather: axis 1 of a value, in the order of a constant.

        Returns:
            Whether it was removed; it stays where a reader is not a Conv of one group with stored weights.
        """
        gather = next(node for node in self._nodes if gathered in node.output)
        readers = [node for node in self._nodes if gathered in _names_read([node])]
        if not all(self._folds_into(node, gathered) for node in readers):
            return False
        order = np.argsort(numpy_helper.to_array(self._initializers[gather.input[1]]))
        used_elsewhere = _names_read(node for node in self._nodes if gathered not in node.input)
        reordered: dict[str, str] = {}
        for node in readers:
            name = node.input[1]
            if name not in reordered:
                weights = np.ascontiguousarray(numpy_helper.to_array(self._initializers[name])[:, order])
                reordered[name] = self.unique(name) if name in used_elsewhere else name
                self._initializers[reordered[name]] = numpy_helper.from_array(weights, reordered[name])
            node.input[:2] = [gather.input[0], reordered[name]]
        self._nodes.remove(gather)
        return True

    def _folds_into(self, node: Any, value: str) -> bool:
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        is_plain = node.op_type == "Conv" and groups == 1
        return is_plain and node.input[0] == value and node.input[1] in self._initializers

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
