"""LSTM, RNN and LSTMUnit of BVLC Caffe.

Bottoms: x (T, N, ...), cont (T, N), optionally a static input (N, ...), then with expose_hidden the first states
(1, N, H): h, and c for the LSTM. Tops: the sequence (T, N, H), then with expose_hidden the last states.
Blobs of the LSTM: W_x (4 H, K), b (4 H), [W_static (4 H, K')], W_h (4 H, H); gates in the order i, f, o, g:
c = cont f c + i g, h = o tanh(c), the gates from W_x x + b + W_h (cont h).
Blobs of the RNN: W_x, b, [W_static], W_h, W_y, b_y: h = tanh(W_x x + b + W_h (cont h)), y = tanh(W_y h + b_y).
In ONNX the steps are one Loop for any T: ONNX's LSTM has no cont, and OpenCV 5 no Scan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ..graph.net import Shape
from .base import ModuleSpec, Operator, count, given, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value


class _Recurrent(Operator):
    """Base of LSTM and RNN: bottoms, states, and the part of each step that does not depend on the state."""

    bottom_range = (2, None)
    top_range = (1, None)
    allows_in_place = False
    states: ClassVar[int]
    gates: ClassVar[int]

    def set_up(self) -> None:
        self.param = self.context.message.recurrent_param
        self.outputs = self.param.num_output
        self.require_positive(num_output=self.outputs)
        self.exposed = self.states if self.param.expose_hidden else 0
        if len(self.bottoms) not in (2 + self.exposed, 3 + self.exposed):
            self.refuse(f"has {len(self.bottoms)} bottoms; needs {2 + self.exposed}, or one more with a static input")
        if len(self.context.top_names) != 1 + self.exposed:
            self.refuse(f"has {len(self.context.top_names)} tops; needs {1 + self.exposed}")
        shapes = [blob.shape for blob in self.bottoms]
        if len(shapes[0]) < 3:  # its InnerProduct begins at axis 2
            self.refuse(f"needs x (T, N, ...), has {shapes[0]}")
        self.steps, self.batch = shapes[0][:2]
        if shapes[1] != (self.steps, self.batch):
            self.refuse(f"needs cont of shape {(self.steps, self.batch)} (T, N), has {shapes[1]}")
        self.inputs = count(shapes[0][2:])
        self.static_inputs = 0
        if len(self.bottoms) == 3 + self.exposed:
            if not shapes[2] or shapes[2][0] != self.batch:
                self.refuse(f"needs a static input of {self.batch} items, has {shapes[2]}")
            self.static_inputs = count(shapes[2][1:])
        for blob in self.bottoms[len(self.bottoms) - self.exposed :]:
            if blob.shape != (1, self.batch, self.outputs):
                self.refuse(f'needs states {(1, self.batch, self.outputs)}; "{blob.name}" is {blob.shape}')

    def top_shapes(self) -> tuple[Shape, ...]:
        state: Shape = (1, self.batch, self.outputs)
        return ((self.steps, self.batch, self.outputs), *(state,) * self.exposed)

    def weight_shapes(self) -> tuple[Shape, ...]:
        rows = self.gates * self.outputs
        static: tuple[Shape, ...] = ((rows, self.static_inputs),) if self.static_inputs else ()
        return ((rows, self.inputs), (rows,), *static, (rows, self.outputs))

    def fillers(self) -> tuple[Any, ...]:
        return tuple(
            self.param.weight_filler if len(shape) == 2 else self.param.bias_filler for shape in self.weight_shapes()
        )

    def multiply_adds(self) -> int:
        static = self.gates * self.outputs * self.static_inputs
        each_step = sum(count(shape) for shape in self.weight_shapes() if len(shape) == 2) - static
        return int(self.batch * (self.steps * each_step + static))

    def parameter_names(self) -> tuple[str, ...]:
        """Attributes of the module, in the order of the blobs."""
        return ("weight_x", "bias", *(["weight_static"] if self.static_inputs else []), "weight_h")

    def module_spec(self) -> ModuleSpec:
        optional = given(static_inputs=self.static_inputs, exposes_state=bool(self.exposed))
        arguments = {"inputs": self.inputs, "outputs": self.outputs} | optional
        return ModuleSpec(type(self).__name__, arguments, self.parameter_names())

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x, cont = bottoms[:2]
        (steps, batch), rows = x.shape[:2], self.gates * self.outputs
        flat = graph.reshape(x.name, [-1, self.inputs])
        weights = {name: graph.parameter(name, getattr(module, name)) for name in self.parameter_names()}
        linear = graph.add("Gemm", [flat, weights["weight_x"], weights["bias"]], transB=1)
        inputs = graph.reshape(linear, [steps, batch, rows])
        if self.static_inputs:
            static = graph.reshape(bottoms[2].name, [-1, self.static_inputs])
            inputs = graph.add("Add", [inputs, graph.add("Gemm", [static, weights["weight_static"]], transB=1)])
        if self.exposed:
            first = [graph.reshape(state.name, [-1, self.outputs]) for state in bottoms[-self.exposed :]]
        else:
            first = [graph.zeros(graph.shape_tensor([batch, self.outputs]))] * self.states

        def step(states: Sequence[str], items: Sequence[str]) -> list[str]:
            column = graph.add("Unsqueeze", [items[1], graph.constant([1], "int64")])
            held = graph.add("Mul", [states[0], column])
            total = graph.add("Gemm", [held, weights["weight_h"], items[0]], transB=1)
            return self.emit_step(graph, total, column, states)

        hidden, *last = emit_loop(graph, step, first, [None, self.outputs], [inputs, cont.name], self.exposed)
        return [self.emit_output(graph, module, hidden), *last]

    def emit_step(self, graph: OnnxGraph, total: str, cont: str, states: Sequence[str]) -> list[str]:
        """The states after a step, h first, from the summed inputs (N, rows) and cont (N, 1)."""
        raise NotImplementedError

    def emit_output(self, graph: OnnxGraph, module: Any, hidden: str) -> str:
        """The top from all hidden states (T, N, H)."""
        return hidden


def _emit_unit(graph: OnnxGraph, gates: str, cont: str, cell: str, size: int, axis: int) -> tuple[str, str]:
    """(cell, hidden) after a step."""
    sizes = graph.constant([size] * 4, "int64")
    i, f, o, g = graph.add_multiple("Split", [gates, sizes], 4, axis=axis)
    kept = graph.add("Mul", [graph.add("Mul", [cont, graph.add("Sigmoid", [f])]), cell])
    added = graph.add("Mul", [graph.add("Sigmoid", [i]), graph.add("Tanh", [g])])
    cell = graph.add("Add", [kept, added])
    return cell, graph.add("Mul", [graph.add("Sigmoid", [o]), graph.add("Tanh", [cell])])


def emit_loop(
    graph: OnnxGraph,
    step: Callable[[Sequence[str], Sequence[str]], Sequence[str]],
    first: Sequence[str],
    shape: Sequence[int | None],
    scanned: Sequence[str],
    exposed: int,
) -> list[str]:
    """A Loop over the first axis of values.

    Args:
        graph: the graph.
        step: emits a step: the states, and the items of `scanned`, to the next states.
        first: the first states.
        shape: the shape of a state; None for an open size.
        scanned: the values, which have the same first axis.
        exposed: number of last states to return.

    Returns:
        The first state of each step, stacked, then last states as (1, N, ...).
    """
    from onnx import TensorProto, helper

    number, goes_on, *states = (graph.unique(f"loop/{i}") for i in range(2 + len(first)))
    zero = graph.constant([0], "int64")
    with graph.body() as nodes:
        place = graph.reshape(number, [1])  # OpenCV 5 counts in a vector
        items = [graph.add("Squeeze", [graph.add("Gather", [value, place], axis=0), zero]) for value in scanned]
        results = step(states, items)
        written = [*results, graph.add("Identity", [results[0]])]
        still = graph.add("Identity", [goes_on])
    body = helper.make_graph(
        nodes,
        f"{number}/body",
        [
            helper.make_tensor_value_info(number, TensorProto.INT64, []),
            helper.make_tensor_value_info(goes_on, TensorProto.BOOL, []),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in states),
        ],
        [
            helper.make_tensor_value_info(still, TensorProto.BOOL, []),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in written),
        ],
    )
    count = graph.add("Squeeze", [graph.add("Shape", [scanned[0]], start=0, end=1)])
    always = graph.constant(True, "bool")  # TensorRT's body has no condition without one
    *last, sequence = graph.add_multiple("Loop", [count, always, *first], len(first) + 1, body=body)
    return [sequence, *(graph.add("Unsqueeze", [state, zero]) for state in last[:exposed])]


@register_layer("LSTM")
class LSTM(_Recurrent):
    """Long short-term memory without peepholes."""

    states = 2
    gates = 4

    def emit_step(self, graph: OnnxGraph, total: str, cont: str, states: Sequence[str]) -> list[str]:
        cell, hidden = _emit_unit(graph, total, cont, states[1], self.outputs, 1)
        return [hidden, cell]


@register_layer("RNN")
class RNN(_Recurrent):
    """Recurrence with tanh, and a tanh layer over its states."""

    states = 1
    gates = 1

    def weight_shapes(self) -> tuple[Shape, ...]:
        return (*super().weight_shapes(), (self.outputs, self.outputs), (self.outputs,))

    def parameter_names(self) -> tuple[str, ...]:
        return (*super().parameter_names(), "weight_y", "bias_y")

    def emit_step(self, graph: OnnxGraph, total: str, cont: str, states: Sequence[str]) -> list[str]:
        return [graph.add("Tanh", [total])]

    def emit_output(self, graph: OnnxGraph, module: Any, hidden: str) -> str:
        transposed = graph.add("Transpose", [graph.parameter("weight_y", module.weight_y)], perm=[1, 0])
        linear = graph.add("MatMul", [hidden, transposed])
        return graph.add("Tanh", [graph.add("Add", [linear, graph.parameter("bias_y", module.bias_y)])])


@register_layer("LSTMUnit")
class LSTMUnit(Operator):
    """One step of an LSTM, from cell state, gate inputs and cont to the new cell state and h."""

    bottom_range = (3, 3)
    top_range = (2, 2)
    allows_in_place = False

    def set_up(self) -> None:
        cell, gates, cont = (blob.shape for blob in self.bottoms)
        if len(cell) != 3 or cell[0] != 1 or gates != (*cell[:2], 4 * cell[2]) or cont != cell[:2]:
            self.refuse(f"needs a cell state (1, N, H), gates (1, N, 4 H) and cont (1, N), has {cell}, {gates}, {cont}")

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("LSTMUnit")

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        cell, gates, cont = bottoms
        column = graph.add("Unsqueeze", [cont.name, graph.constant([2], "int64")])
        return list(_emit_unit(graph, gates.name, column, cell.name, cell.shape[2], 2))
