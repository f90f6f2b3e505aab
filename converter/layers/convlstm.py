"""ConvLSTM (agethen's layer, used by the video saliency nets).

Bottoms: x (T, N, C, H, W), cont (T, N), with expose_hidden also the first states h and c (1, N, M, H, W).
Tops: the sequence (T, N, M, H, W), with expose_hidden also the last states.
15 blobs: the kernels over x of the gates i, f, o, g, without bias; kernel and bias over h of the same; the factors of
i, f, o on the cell state, shaped like the num_axes_hadamard axes of the state from axis_hadamard on (by default a
plane). Unlike h, the cell state that they read is not multiplied by cont.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...proto import schema
from ..graph.net import FloatArray, Shape
from .base import ModuleSpec, Operator, count, given, register_layer
from .recurrent import emit_loop

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value


@register_layer("ConvLSTM")
class ConvLSTM(Operator):
    """Convolutional long short-term memory with peepholes."""

    bottom_range = (2, 4)
    top_range = (1, 3)
    allows_in_place = False

    def set_up(self) -> None:
        message = self.context.message
        self.param = message.lstm_conv_param
        self.exposed = 2 if message.recurrent_param.expose_hidden else 0
        if (len(self.bottoms), len(self.context.top_names)) != (2 + self.exposed, 1 + self.exposed):
            self.refuse(
                f"has {len(self.bottoms)} bottoms and {len(self.context.top_names)} tops; needs {2 + self.exposed} and "
                f"{1 + self.exposed} (a static input is not supported)"
            )
        x, cont = (blob.shape for blob in self.bottoms[:2])
        if len(x) != 5 or cont != x[:2]:
            self.refuse(f"needs x (T, N, C, H, W) and cont (T, N), has {x} and {cont}")
        self.require_positive(num_output=self.param.num_output)
        self.kernel = self._pair("kernel_size", None)
        self.pad, self.dilation = self._pair("pad", 0), self._pair("dilation", 1)
        for size, pad, dilation in zip(self.kernel, self.pad, self.dilation, strict=True):
            if size <= 0 or dilation <= 0 or 2 * pad != dilation * (size - 1):
                self.refuse(f"its state would change size: pad must be dilation * (kernel - 1) / 2, not {pad}")
        self.state: Shape = (1, x[1], self.param.num_output, *x[3:])
        for blob in self.bottoms[2:]:
            if blob.shape != self.state:
                self.refuse(f'needs states {self.state}; "{blob.name}" is {blob.shape}')
        self.peepholes, self.broadcast_shape = self._peepholes()

    def _pair(self, field: str, default: int | None) -> tuple[int, int]:
        values = list(getattr(self.param, field)) or ([] if default is None else [default])
        if len(values) not in (1, 2):
            self.refuse(f"has {len(values)} {field} values; give one, or one for height and one for width")
        return values[0], values[-1]

    def _peepholes(self) -> tuple[Shape, Shape]:
        """Shape of the factors, and the same with ones for the remaining axes of the state."""
        debug = self.context.message.lstm_debug_param
        axis = debug.axis_hadamard if debug.HasField("axis_hadamard") else 3
        axes = debug.num_axes_hadamard if debug.HasField("num_axes_hadamard") else 2
        if not 1 <= axis <= axis + axes <= 5:
            self.refuse(f"axis_hadamard {axis} and num_axes_hadamard {axes} are out of range for states {self.state}")
        shape = self.state[axis : axis + axes]
        return shape, (*shape, *(1,) * (5 - axis - axes))

    def top_shapes(self) -> tuple[Shape, ...]:
        steps = self.bottoms[0].shape[0]
        return ((steps, *self.state[1:]), *(self.state,) * self.exposed)

    def weight_shapes(self) -> tuple[Shape, ...]:
        outputs = self.param.num_output
        over_x: Shape = (outputs, self.bottoms[0].shape[2], *self.kernel)
        over_h: Shape = (outputs, outputs, *self.kernel)
        return ((over_x,) * 4) + ((over_h, (outputs,)) * 4) + ((self.peepholes,) * 3)

    def fillers(self) -> tuple[Any, ...]:
        ones = schema.message("FillerParameter")(type="constant", value=1)
        weight, bias = self.param.weight_filler, self.param.bias_filler
        return ((weight,) * 4) + ((weight, bias) * 4) + ((ones,) * 3)

    def multiply_adds(self) -> int:
        steps, batch, channels, *plane = self.bottoms[0].shape
        kernel = count(self.kernel) * 4 * self.param.num_output
        return int(steps * batch * count(plane) * kernel * (channels + self.param.num_output))

    def module_spec(self) -> ModuleSpec:
        arguments: dict[str, Any] = {
            "inputs": self.bottoms[0].shape[2],
            "outputs": self.param.num_output,
            "kernel_size": self.kernel,
            "padding": self.pad,
            "dilation": self.dilation,
            "peepholes": self.broadcast_shape,
        }
        return ModuleSpec("ConvLSTM", arguments | given(exposes_state=bool(self.exposed)))

    def load(self, module: Any, blobs: Sequence[FloatArray]) -> None:
        from ..export.torch_parameters import copy_blob

        copy_blob(module.convolve_x.weight, np.concatenate(blobs[:4]))
        copy_blob(module.convolve_h.weight, np.concatenate(blobs[4:12:2]))
        copy_blob(module.convolve_h.bias, np.concatenate(blobs[5:12:2]))
        copy_blob(module.peepholes, np.stack(blobs[12:]))

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x, cont = bottoms[:2]
        outputs = self.param.num_output
        sizes = x.shape
        folded = graph.reshape(x.name, [-1, *sizes[2:]])
        over_x = self._convolve(graph, [folded, graph.parameter("convolve_x.weight", module.convolve_x.weight)])
        steps = graph.reshape(over_x, [*sizes[:2], 4 * outputs, *sizes[3:]])
        state = graph.shape_tensor([sizes[1], outputs, *sizes[3:]])
        if self.exposed:
            first = [graph.add("Squeeze", [value.name, graph.constant([0], "int64")]) for value in bottoms[2:]]
        else:
            first = [graph.zeros(state)] * 2
        weights = [
            graph.parameter(f"convolve_h.{name}", getattr(module.convolve_h, name)) for name in ("weight", "bias")
        ]
        factors = graph.parameter("peepholes", module.peepholes)

        def step(states: Sequence[str], items: Sequence[str]) -> list[str]:
            h, c = states
            column = graph.add("Unsqueeze", [items[1], graph.constant([1, 2, 3], "int64")])
            hidden = self._convolve(graph, [graph.add("Mul", [h, column]), *weights])
            total = graph.add("Add", [items[0], hidden])
            parts = graph.add_multiple("Split", [total, graph.constant([outputs] * 4, "int64")], 4, axis=1)
            gates = []
            for index, part in enumerate(parts[:3]):
                factor = graph.add("Gather", [factors, graph.constant(index, "int64")], axis=0)
                seen = graph.add("Add", [part, graph.add("Mul", [factor, c])])
                gates.append(graph.add("Sigmoid", [seen]))
            held = graph.add("Mul", [graph.add("Mul", [column, gates[1]]), c])
            cell = graph.add("Add", [held, graph.add("Mul", [gates[0], graph.add("Tanh", [parts[3]])])])
            return [graph.add("Mul", [gates[2], graph.add("Tanh", [cell])]), cell]

        return emit_loop(graph, step, first, [None] * 4, [steps, cont.name], self.exposed)

    def _convolve(self, graph: OnnxGraph, inputs: Sequence[str]) -> str:
        pads, dilations = [*self.pad, *self.pad], list(self.dilation)
        return graph.add("Conv", inputs, kernel_shape=list(self.kernel), pads=pads, dilations=dilations)
