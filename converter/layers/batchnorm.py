"""BatchNorm of BVLC and NVCaffe, and BN of SegNet and of PSPNet.

BatchNorm (BVLC): blobs mean m, variance v and factor f (1); with s = 1/f, or 0 where f is 0,
y = (x - s m) / sqrt(s v + eps). use_global_stats: false uses mean and biased variance of the batch instead; the default
is true in phase TEST only. DeepLab v2 and PSPNet compute the same with global statistics; without them their code never
computes the variance.
BatchNorm (NVCaffe, with scale_bias or one of its fillers): two more blobs, scale and bias; m and v are stored unscaled,
the third blob is not used, and eps is at least 1e-5. Weights of NVCaffe 0.15 and DIGITS 5 have the order scale, bias,
mean, variance, unused; NVCaffe recognizes it by a fifth blob of one number, which leaves one channel open. A file of
three blobs fills scale and bias.
BN (SegNet, DeconvNet): blobs scale, shift. LEARN: statistics of the batch in every phase, eps 1e-9.
INFERENCE: x * scale + shift.
BN (PSPNet): blobs slope, bias, mean, variance: y = slope (x - mean) / sqrt(variance + eps) + bias. In phase TRAIN,
unless frozen, mean and biased variance are the batch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...proto import schema
from ..graph.fillers import fill_blob
from ..graph.net import FloatArray, Shape
from .base import ModuleSpec, Operator, register_layer

if TYPE_CHECKING:
    from ..export.onnx_graph import OnnxGraph, Value

#: cuDNN's smallest eps; NVCaffe raises smaller ones to it
NVCAFFE_LEAST_EPS = 1e-5
#: OpenCV 5 merges a BatchNormalization after these with a convolution before them, as if they were not there
_MERGED_BY_OPENCV = ("Elu", "Sigmoid", "Tanh")


def _norm_class(operator: Operator) -> str:
    """The torch class for the bottom's number of axes."""
    axes = len(operator.bottoms[0].shape)
    if not 2 <= axes <= 5:
        operator.refuse(f"needs a bottom of 2 to 5 axes (N, C, ...), has {operator.bottoms[0].shape}")
    return f"nn.BatchNorm{max(1, axes - 2)}d"


def _emit_norm(graph: OnnxGraph, module: Any, x: Value, eps: float) -> str:
    channels = x.shape[1]
    if graph.find_kind(x.name) in _MERGED_BY_OPENCV:
        deviation = (module.running_var.double() + eps).sqrt()
        scale = (1.0 if module.weight is None else module.weight.double()) / deviation
        shift = (0.0 if module.bias is None else module.bias.double()) - module.running_mean.double() * scale
        shape = (channels, *(1,) * (len(x.shape) - 2))
        factors, terms = (graph.constant(values.detach().cpu().numpy().reshape(shape)) for values in (scale, shift))
        return graph.add("Add", [graph.add("Mul", [x.name, factors]), terms])
    affine = [
        graph.parameter(name, getattr(module, name))
        if getattr(module, name) is not None
        else graph.constant(np.full(channels, default))
        for name, default in (("weight", 1.0), ("bias", 0.0))
    ]
    statistics = [graph.parameter(name, getattr(module, name)) for name in ("running_mean", "running_var")]
    return graph.add("BatchNormalization", [x.name, *affine, *statistics], epsilon=eps)


def _emit_mean(graph: OnnxGraph, x: str, axes: int) -> str:
    """Mean over all axes except the channels (axis 1).

    The last axis is reduced first: sums of partial sums round about four times less than one long sum.
    """
    last = graph.reduce("ReduceMean", x, [axes - 1]) if axes > 2 else x
    rest = [axis for axis in range(max(axes - 1, 2)) if axis != 1]
    return graph.reduce("ReduceMean", last, rest)


def _emit_batch_norm(graph: OnnxGraph, x: Value, eps: float) -> tuple[str, str, str]:
    """(x - mean) / sqrt(variance + eps) with the batch's statistics, then its mean and variance."""
    mean = _emit_mean(graph, x.name, len(x.shape))
    centered = graph.add("Sub", [x.name, mean])
    variance = _emit_mean(graph, graph.add("Mul", [centered, centered]), len(x.shape))
    deviation = graph.add("Sqrt", [graph.add("Add", [variance, graph.constant(eps)])])
    return graph.add("Div", [centered, deviation]), mean, variance


@register_layer("BatchNorm")
class BatchNorm(Operator):
    """Normalization per channel (axis 1); those of NVCaffe and Intel's Caffe may have their own scale and bias."""

    adds_per_value = 1

    def set_up(self) -> None:
        param = self.context.message.batch_norm_param
        self.class_name = _norm_class(self)
        self.channels = self.bottoms[0].shape[1]
        self.of_nvcaffe = param.scale_bias or param.HasField("scale_filler") or param.HasField("bias_filler")
        of_intel = param.HasField("use_weight_bias") and param.use_weight_bias
        self.scales = self.of_nvcaffe or of_intel or self.context.blob_count == 5
        self.param = param
        self.eps = max(param.eps, NVCAFFE_LEAST_EPS) if self.scales else param.eps
        by_phase = self.context.phase == "TEST"
        self.uses_global = param.use_global_stats if param.HasField("use_global_stats") else by_phase
        if self.scales and not self.uses_global:
            self.refuse("scale_bias with statistics of the batch is not supported; set use_global_stats: true")

    def notes(self) -> tuple[str, ...]:
        if self.uses_global or self.context.dialect.has_batch_variance:
            return ()
        return (
            "normalizes with statistics of the batch, whose variance DeepLab v2's Caffe never computes: there the "
            "result depends on the number of passes; here it is that of BVLC Caffe",
        )

    def weight_shapes(self) -> tuple[Shape, ...]:
        each: Shape = (self.channels,)
        return (each, each, (1,), each, each) if self.scales else (each, each, (1,))

    def adapt_blobs(self, blobs: dict[int, Any]) -> tuple[dict[int, Any], str | None]:
        """NVCaffe's orders of blobs."""
        note = None
        if self.scales and len(blobs) == 5 and np.size(blobs[4]) == 1:
            blobs, note = self._reorder(blobs)
        elif len(blobs) == 3 and np.size(blobs[2]) == 1:
            factor = float(np.asarray(blobs[2]).reshape(()))
            if factor == 0 and any(np.any(np.asarray(blobs[index])) for index in (0, 1)):
                note = "the factor of its statistics is 0, so that Caffe computes with mean 0 and variance 0"
            if self.scales:
                blobs = self._fill_scale(blobs, factor)
                note = "the file has no scale and bias; they keep their fillers, as in NVCaffe"
        return blobs, note

    def _reorder(self, blobs: dict[int, Any]) -> tuple[dict[int, Any], str | None]:
        """Five blobs of NVCaffe 0.15 in today's order. Of one channel, all have one number; no variance is negative."""
        is_old = self.channels > 1 or float(np.asarray(blobs[3]).reshape(())) >= 0
        if is_old:
            blobs = dict(enumerate((blobs[2], blobs[3], np.ones(1, np.float32), blobs[0], blobs[1])))
        if self.channels > 1:
            return blobs, None
        order = "scale, bias, mean, variance, unused" if is_old else "mean, variance, unused, scale, bias"
        return blobs, f"its five blobs of one number were read as {order}; compare the layer's output with Caffe's"

    def _fill_scale(self, blobs: dict[int, Any], factor: float) -> dict[int, Any]:
        """Five blobs of three: statistics divided by their factor, and the fillers of scale and bias."""
        inverse = np.float32(1 / factor if factor else 0)
        statistics = [np.asarray(blobs[index], np.float32) * inverse for index in (0, 1)]
        affine = [
            fill_blob(f"{self.context.name}/{index}", (self.channels,), self.fillers()[index]) for index in (3, 4)
        ]
        return dict(enumerate([*statistics, np.ones(1, np.float32), *affine]))

    def fillers(self) -> tuple[Any, ...]:
        if not self.scales:
            return (None, None, None)
        factor = schema.message("FillerParameter")(type="constant", value=1)
        return (None, None, factor, self.filler_or(self.param, "scale_filler", 1.0), self.param.bias_filler)

    def module_spec(self) -> ModuleSpec:
        if not self.uses_global:
            return ModuleSpec("BatchStatisticsNorm", {"eps": self.eps})
        arguments = {"num_features": self.channels, "eps": self.eps, "affine": bool(self.scales)}
        return ModuleSpec(self.class_name, arguments)

    def load(self, module: Any, blobs: Sequence[FloatArray]) -> None:
        from ..export.torch_parameters import copy_blob

        if not self.uses_global:
            return
        mean, variance, factor = blobs[:3]
        if self.scales:
            copy_blob(module.weight, blobs[3])
            copy_blob(module.bias, blobs[4])
        if not self.of_nvcaffe:  # which ignores its third blob; Intel's Caffe, whose scale is the default, divides
            inverse = np.float32(1) / factor[0] if factor[0] else np.float32(self.scales)
            mean, variance = mean * inverse, variance * inverse
        copy_blob(module.running_mean, mean)
        copy_blob(module.running_var, variance)

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0]
        if self.uses_global:
            return [_emit_norm(graph, module, x, self.eps)]
        return [_emit_batch_norm(graph, x, self.eps)[0]]


@register_layer("BN")
class BN(Operator):
    """SegNet's BN of 2 blobs (scale, shift) or PSPNet's of 4 (slope, bias, mean, variance).

    The number of blobs in the weights decides, else the fields, else the dialect.
    """

    top_range = (1, 3)
    adds_per_value = 1

    def set_up(self) -> None:
        self.param = self.context.message.bn_param
        self.require_planes()
        self.channels = self.bottoms[0].shape[1]
        self.blobs = self._count_blobs()
        self.learns = self.blobs == 2 and self.param.bn_mode == 0
        trains = self.blobs == 4 and self.context.phase == "TRAIN" and not self.param.frozen
        self.uses_batch = self.learns or trains
        if len(self.context.top_names) > 1 and not self.learns:
            self.refuse("only SegNet's LEARN mode writes the batch's mean and variance as further tops")

    def _count_blobs(self) -> int:
        stored = self.context.blob_count
        fields = {
            2: ("scale_filler", "shift_filler", "bn_mode"),
            4: ("slope_filler", "bias_filler", "momentum", "eps", "frozen", "engine"),
        }
        used = {blobs for blobs, names in fields.items() if any(self.param.HasField(name) for name in names)}
        if stored and (stored not in fields or used - {stored}):
            kinds = " and ".join(f"the {blobs}-blob kind" for blobs in sorted(used)) or "neither kind"
            self.refuse(
                f"has {stored} blob(s) in the weights and fields of {kinds}: "
                "SegNet's BN has 2 blobs (scale, shift), PSPNet's 4 (slope, bias, mean, variance)"
            )
        candidates = {stored} if stored else used or {self.context.dialect.bn_blobs}
        blobs = next(iter(candidates))
        if len(candidates) > 1 or not blobs:
            self.refuse("SegNet and PSPNet both have a BN; give the weights, or the dialect segnet or pspnet")
        return blobs

    def top_shapes(self) -> tuple[Shape, ...]:
        statistics: Shape = (1, self.channels, 1, 1)
        return (self.bottoms[0].shape, statistics, statistics)[: len(self.context.top_names)]

    def weight_shapes(self) -> tuple[Shape, ...]:
        return ((1, self.channels, 1, 1),) * self.blobs

    def fillers(self) -> tuple[Any, ...]:
        param = self.param
        if self.blobs == 2:
            return (param.scale_filler, param.shift_filler)
        return (param.slope_filler, param.bias_filler, None, None)

    def module_spec(self) -> ModuleSpec:
        if self.uses_batch:
            statistics = len(self.context.top_names) - 1
            arguments = {"channels": self.channels} | ({"statistics": statistics} if statistics else {})
            own_eps = {"eps": self.param.eps} if self.blobs == 4 else {}
            return ModuleSpec("SegNetBN", arguments | own_eps, ("scale", "shift"))
        if self.blobs == 4:
            names = ("weight", "bias", "running_mean", "running_var")
            return ModuleSpec("nn.BatchNorm2d", {"num_features": self.channels, "eps": self.param.eps}, names)
        return ModuleSpec("Scale", {"shape": (self.channels, 1, 1), "bias": True}, ("weight", "bias"))

    def load(self, module: Any, blobs: Sequence[FloatArray]) -> None:
        super().load(module, blobs[:2] if self.uses_batch else blobs)
        if self.blobs == 4 and not self.uses_batch:
            module.num_batches_tracked.zero_()

    def emit(self, graph: OnnxGraph, module: Any, bottoms: Sequence[Value]) -> list[str]:
        x = bottoms[0]
        if self.uses_batch:
            normal, mean, variance = _emit_batch_norm(graph, x, module.eps)
            scaled = graph.add("Mul", [normal, graph.parameter("scale", module.scale)])
            y = graph.add("Add", [scaled, graph.parameter("shift", module.shift)])
            return [y, mean, variance][: len(self.context.top_names)]
        if self.blobs == 4:
            return [_emit_norm(graph, module, x, self.param.eps)]
        scaled = graph.add("Mul", [x.name, graph.parameter("weight", module.weight)])
        return [graph.add("Add", [scaled, graph.parameter("bias", module.bias)])]
