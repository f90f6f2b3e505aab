"""Pointwise layers: one bottom, one top of the same shape, in place or not.

Torch's own classes where they exist, else those of `converter.modules.activation`. Sources: the layers of BVLC Caffe;
from forks ReLU6, `relu_param.relu6`, the mask of ReLU and two variants of Dropout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ..graph.net import Shape
from .base import ModuleSpec, Operator, given, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value

#: log of the largest float32
MAX_EXPONENT = 88.72


class _Pointwise(Operator):
    """A layer whose ONNX form is an expression of its one bottom."""

    def expression(self, graph: OnnxGraph, x: str) -> str:
        """Add the nodes that compute the layer from `x`; return the result's name."""
        raise NotImplementedError

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        return [self.expression(graph, bottoms[0].name)]


class _Plain(_Pointwise):
    """A function without parameters, available in both torch and ONNX."""

    torch_class: ClassVar[str]
    onnx_op: ClassVar[str]

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec(self.torch_class)

    def expression(self, graph: OnnxGraph, x: str) -> str:
        return graph.add(self.onnx_op, [x])


@register_layer("Sigmoid")
class Sigmoid(_Plain):
    """1 / (1 + exp(-x))."""

    torch_class, onnx_op = "nn.Sigmoid", "Sigmoid"


@register_layer("TanH")
class TanH(_Plain):
    """tanh(x)."""

    torch_class, onnx_op = "nn.Tanh", "Tanh"


@register_layer("BNLL")
class BNLL(_Plain):
    """log(1 + exp(x))."""

    torch_class, onnx_op = "nn.Softplus", "Softplus"


@register_layer("AbsVal")
class AbsVal(_Plain):
    """|x|; the only pointwise layer that Caffe refuses to run in place."""

    allows_in_place = False
    torch_class, onnx_op = "AbsVal", "Abs"


@register_layer("ReLU")
class ReLU(_Pointwise):
    """max(x, 0) + negative_slope min(x, 0); `relu6` (a fork) caps it at 6; the second top (DecoupledNet) is x > 0."""

    top_range = (1, 2)

    def set_up(self) -> None:
        self.slope = self.context.message.relu_param.negative_slope
        self.capped = self.context.message.relu_param.relu6
        self.with_mask = len(self.context.top_names) == 2
        if self.with_mask and self.capped:
            self.refuse("no Caffe fork has both relu6 and a mask as second top; remove one of them")

    def module_spec(self) -> ModuleSpec:
        if self.with_mask:
            return ModuleSpec("ReLUWithMask", given(negative_slope=self.slope))
        if self.slope == 0:
            return ModuleSpec("nn.ReLU6" if self.capped else "nn.ReLU")
        return ModuleSpec("LeakyReLU6" if self.capped else "nn.LeakyReLU", {"negative_slope": self.slope})

    def expression(self, graph: OnnxGraph, x: str) -> str:
        if self.slope == 0:
            return _clip(graph, x, 0.0, 6.0) if self.capped else graph.add("Relu", [x])
        leaky = graph.add("LeakyRelu", [x], alpha=self.slope)
        return graph.add("Min", [leaky, graph.constant(6.0)]) if self.capped else leaky

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        tops = super().emit(graph, module, bottoms)
        if self.with_mask:
            tops.append(graph.add("Cast", [graph.add("Greater", [bottoms[0].name, graph.constant(0.0)])], to=1))
        return tops


@register_layer("ReLU6")
class ReLU6(_Plain):
    """min(max(x, 0), 6), of the MobileNet forks."""

    torch_class = "nn.ReLU6"

    def expression(self, graph: OnnxGraph, x: str) -> str:
        return _clip(graph, x, 0.0, 6.0)


@register_layer("PReLU")
class PReLU(Operator):
    """max(x, 0) + slope min(x, 0); the slope has shape (C), or () with `channel_shared`."""

    def set_up(self) -> None:
        self.param = self.context.message.prelu_param
        if len(self.bottoms[0].shape) < 2:
            self.refuse(f"needs a bottom with a channel axis (N, C, ...), has {self.bottoms[0].shape}")
        self.slopes = 1 if self.param.channel_shared else self.bottoms[0].shape[1]

    def weight_shapes(self) -> tuple[Shape, ...]:
        return (() if self.param.channel_shared else (self.slopes,),)

    def fillers(self) -> tuple[Any, ...]:
        return (self.filler_or(self.param, "filler", 0.25),)

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("nn.PReLU", {"num_parameters": self.slopes}, ("weight",))

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        # ONNX broadcasts the slope from the last axis
        shape = (self.slopes,) + (1,) * (len(bottoms[0].shape) - 2)
        return [graph.add("PRelu", [bottoms[0].name, graph.parameter("weight", module.weight, shape)])]


@register_layer("ELU")
class ELU(_Pointwise):
    """max(x, 0) + alpha (exp(min(x, 0)) - 1)."""

    def set_up(self) -> None:
        self.alpha = self.context.message.elu_param.alpha

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("nn.ELU", {"alpha": self.alpha})

    def expression(self, graph: OnnxGraph, x: str) -> str:
        return graph.add("Elu", [x], alpha=self.alpha)


@register_layer("Swish")
class Swish(_Pointwise):
    """Beta-scaled swish: x sigmoid(beta x)."""

    def set_up(self) -> None:
        self.beta = self.context.message.swish_param.beta

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("nn.SiLU") if self.beta == 1 else ModuleSpec("Swish", {"beta": self.beta})

    def expression(self, graph: OnnxGraph, x: str) -> str:
        return graph.add("Mul", [x, graph.add("Sigmoid", [_affine(graph, x, self.beta, 0.0)])])


@register_layer("Clip")
class Clip(_Pointwise):
    """max(min, min(x, max))."""

    def set_up(self) -> None:
        param = self.context.message.clip_param
        # with min above max Caffe gives min everywhere
        self.minimum, self.maximum = param.min, max(param.min, param.max)

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("Clip", {"minimum": self.minimum, "maximum": self.maximum})

    def expression(self, graph: OnnxGraph, x: str) -> str:
        return _clip(graph, x, self.minimum, self.maximum)


@register_layer("Threshold")
class Threshold(_Pointwise):
    """1 where x > threshold, else 0."""

    def set_up(self) -> None:
        self.threshold = self.context.message.threshold_param.threshold

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("Threshold", {"threshold": self.threshold})

    def expression(self, graph: OnnxGraph, x: str) -> str:
        return graph.add("Cast", [graph.add("Greater", [x, graph.constant(self.threshold)])], to=1)


@register_layer("Power")
class Power(_Pointwise):
    """(shift + scale x) ^ power; shift ^ power for every x, infinity included, if power or scale is 0."""

    def set_up(self) -> None:
        param = self.context.message.power_param
        self.power, self.scale, self.shift = param.power, param.scale, param.shift

    def module_spec(self) -> ModuleSpec:
        given = {"power": (self.power, 1), "scale": (self.scale, 1), "shift": (self.shift, 0)}
        return ModuleSpec("Power", {name: value for name, (value, default) in given.items() if value != default})

    def expression(self, graph: OnnxGraph, x: str) -> str:
        if self.power * self.scale == 0:
            base = graph.add("Expand", [graph.constant(self.shift), graph.add("Shape", [x])])
        else:
            base = _affine(graph, x, self.scale, self.shift)
        if self.power == 1:
            return base
        # some engines compute Pow of negative numbers as NaN
        if self.power == 2:
            return graph.add("Mul", [base, base])
        return graph.add("Pow", [base, graph.constant(self.power)])


def _log_base(operator: Operator, base: float) -> float:
    """log(base) of Exp and Log; base -1 stands for e."""
    if base == -1:
        return 1.0
    if base <= 0:
        operator.refuse(f"base must be above 0, or -1 for e, not {base}")
    return math.log(base)


@register_layer("Exp")
class Exp(_Pointwise):
    """exp(log(base) (shift + scale x))."""

    def set_up(self) -> None:
        param = self.context.message.exp_param
        log_base = _log_base(self, param.base)
        exponent = log_base * param.shift
        if exponent > MAX_EXPONENT:
            self.refuse(f"base {param.base} to the power of shift {param.shift} overflows float32; reduce shift")
        self.inner, self.outer = log_base * param.scale, math.exp(exponent)

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("Exp", {"inner": self.inner, "outer": self.outer})

    def expression(self, graph: OnnxGraph, x: str) -> str:
        return _affine(graph, graph.add("Exp", [_affine(graph, x, self.inner, 0.0)]), self.outer, 0.0)


@register_layer("Log")
class Log(_Pointwise):
    """Logarithm to `base` of (shift + scale x)."""

    def set_up(self) -> None:
        param = self.context.message.log_param
        log_base = _log_base(self, param.base)
        if log_base == 0:
            self.refuse("base 1 has no logarithm; use another base, or -1 for e")
        self.scale, self.shift, self.outer = param.scale, param.shift, 1 / log_base

    def module_spec(self) -> ModuleSpec:
        return ModuleSpec("Log", {"scale": self.scale, "shift": self.shift, "outer": self.outer})

    def expression(self, graph: OnnxGraph, x: str) -> str:
        return _affine(graph, graph.add("Log", [_affine(graph, x, self.scale, self.shift)]), self.outer, 0.0)


@register_layer("Dropout")
class Dropout(_Pointwise):
    """The identity at test time, except in two forks.

    Bayesian SegNet's `sample_weights_test` samples in TEST too, in ONNX as Dropout in training mode.
    ParseNet's `scale_train: false` does not rescale during training and multiplies by 1 - ratio at test time.
    """

    def set_up(self) -> None:
        param = self.context.message.dropout_param
        self.ratio, self.samples, self.scales = param.dropout_ratio, param.sample_weights_test, not param.scale_train
        self.is_random = bool(self.samples)
        if (self.samples or self.scales) and not 0 <= self.ratio < 1:
            self.refuse(f"dropout_ratio must be at least 0 and below 1, not {self.ratio}")

    def module_spec(self) -> ModuleSpec:
        if self.samples:
            return ModuleSpec("SampledDropout", {"ratio": self.ratio})
        return ModuleSpec("Power", {"scale": 1 - self.ratio}) if self.scales else ModuleSpec("nn.Identity")

    def notes(self) -> tuple[str, ...]:
        if self.context.phase == "TEST" or self.samples:
            return ()
        return ("is converted as in phase TEST; Caffe's phase TRAIN drops values at random",)

    def expression(self, graph: OnnxGraph, x: str) -> str:
        if self.samples:
            return graph.add("Dropout", [x, graph.constant(self.ratio), graph.constant(True, "bool")])
        return _affine(graph, x, 1 - self.ratio, 0.0) if self.scales else x


def _affine(graph: OnnxGraph, x: str, scale: float, shift: float) -> str:
    """Nodes for scale x + shift, leaving out a scale of 1 and a shift of 0."""
    scaled = graph.add("Mul", [x, graph.constant(scale)]) if scale != 1 else x
    return graph.add("Add", [scaled, graph.constant(shift)]) if shift != 0 else scaled


def _clip(graph: OnnxGraph, x: str, minimum: float, maximum: float) -> str:
    return graph.add("Clip", [x, graph.constant(minimum), graph.constant(maximum)])
