"""Known errors and limits of OpenCV 4's Caffe importer, which explain its differences from Caffe.

Each entry was found on a recording of real Caffe. :data:`ERRORS` are silent: OpenCV computes something else.
:data:`REFUSALS` raise. An entry names the minimal trigger, by layer type and parameters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atrous.converter.graph.net import Layer


@dataclass(frozen=True)
class KnownError:
    """A silent error.

    Attributes:
        type: the affected layer type.
        applies: whether a layer of this type is affected.
        text: the behavior of OpenCV.
    """

    type: str
    applies: Callable[[Layer], bool]
    text: str


def _has(message: str, *fields: str) -> Callable[[Layer], bool]:
    """A test for layers whose parameter message sets one of these fields."""

    def applies(layer: Layer) -> bool:
        param = getattr(layer.message, message)
        listed = {field.name for field, _ in param.ListFields()}
        return any(field in listed for field in fields)

    return applies


def _window_outside(layer: Layer) -> bool:
    window = layer.operator.window()
    if window is None or any(window.pad):
        return False
    sizes, tops = layer.bottoms[0].shape[2:], layer.tops[0].shape[2:]
    return any((top - 1) * stride >= size for top, stride, size in zip(tops, window.stride, sizes, strict=True))


def _clips_both_axes(layer: Layer) -> bool:
    window = layer.operator.window()
    return window is not None and any(window.pad) and not all(window.pad)


def _fractional_boxes(layer: Layer) -> bool:
    param = layer.message.prior_box_param
    return any(size != int(size) for size in (*param.min_size, *param.max_size))


def _keeps_the_best(layer: Layer) -> bool:
    return bool(layer.message.detection_output_param.keep_top_k > -1)


def _has_no_alpha(layer: Layer) -> bool:
    return not layer.message.lrn_param.HasField("alpha")


def _writes_over_a_bottom(layer: Layer) -> bool:
    return layer.tops[0].name in {blob.name for blob in layer.bottoms}


def _has_four_axes(layer: Layer) -> bool:
    return len(layer.tops[0].shape) == 4


ERRORS = (
    KnownError("Crop", lambda layer: not layer.message.HasField("crop_param"), "a Crop without parameters cuts at 0"),
    KnownError("Deconvolution", _has("convolution_param", "dilation"), "the dilation of a Deconvolution is ignored"),
    KnownError("DetectionOutput", _keeps_the_best, "DetectionOutput keeps other boxes of equal score than Caffe"),
    KnownError("Eltwise", _writes_over_a_bottom, "an Eltwise in place adds to a bottom that Caffe cleared"),
    KnownError("InnerProduct", _has_four_axes, "the four axes of a 2014 InnerProduct become two"),
    KnownError("InnerProduct", _has("inner_product_param", "transpose"), "transpose of InnerProduct is ignored"),
    KnownError("Interp", _has("interp_param", "pad_beg", "pad_end"), "pad_beg and pad_end of Interp are ignored"),
    KnownError("Interp", _has("interp_param", "shrink_factor"), "shrink_factor of Interp is ignored"),
    KnownError("LRN", _has_no_alpha, "the default of LRN's alpha is 0.0001 instead of 1"),
    KnownError("LRN", _has("lrn_param", "k"), "k of LRN is ignored"),
    KnownError("Log", _has("log_param", "base", "scale", "shift"), "base, scale and shift of Log are ignored"),
    KnownError("Pooling", _window_outside, "a MAX window wholly outside the input gives 0 instead of -FLT_MAX"),
    KnownError("Pooling", _has("pooling_param", "round_mode", "ceil_mode"), "round_mode of Pooling is ignored"),
    KnownError("Pooling", _clips_both_axes, "padding on one axis does not clip the last window of the other"),
    KnownError("PriorBox", _fractional_boxes, "box sizes keep their fractions, which Caffe truncates"),
    KnownError("Reshape", lambda layer: len(layer.tops[0].shape) < 2, "a blob of one axis gets a second"),
    KnownError("Swish", _has("swish_param", "beta"), "beta of Swish is ignored"),
)

#: the difference disappears if every blob has its own name
PUBLISHED_ONLY = "in-place layers: different layers read the overwritten blob than in Caffe"


@dataclass(frozen=True)
class KnownRefusal:
    """A refusal.

    Attributes:
        pattern: regular expression for OpenCV's reason; its group, if any, is the type of the layer at fault.
        text: the meaning; may use the group.
        at_fault: selects the layers at fault; None if the group of the pattern does.
    """

    pattern: str
    text: str
    at_fault: Callable[[Layer], bool] | None = None


def _is(kind: str, condition: Callable[[Layer], bool] = lambda layer: True) -> Callable[[Layer], bool]:
    return lambda layer: layer.type == kind and condition(layer)


def _cuts_equally(layer: Layer) -> bool:
    return layer.type == "Slice" and not layer.message.slice_param.slice_point


def _inserts_axis(layer: Layer) -> bool:
    return layer.type == "Reshape" and len(layer.tops[0].shape) > len(layer.bottoms[0].shape)


def _exceeds_its_input(layer: Layer) -> bool:
    window = layer.operator.window()
    sizes = layer.bottoms[0].shape[2:]
    return window is not None and any(k > size for k, size in zip(window.kernel, sizes, strict=True))


_pools_by_fork = _is("Pooling", _has("pooling_param", "round_mode", "ceil_mode"))
_convolution_axis = _has("convolution_param", "axis")
_bn = _is("BN")

#: the first match counts
REFUSALS = (
    KnownRefusal(r'Can\'t create layer ".*" of type "(\w+)"', r"has no layer type \1"),
    KnownRefusal(r"UnknownField", "its text parser rejects a fork's message of a single field", _bn),
    KnownRefusal(r"ConcatLayer", "concat_dim is ignored", _is("Concat", _has("concat_param", "concat_dim"))),
    KnownRefusal(r"splits", "a Slice without slice_point and axis is not split", _cuts_equally),
    KnownRefusal(r"out_port", "all tops of an equal Slice must be read", _cuts_equally),
    KnownRefusal(r"input channels", "axis of Convolution is ignored", _is("Convolution", _convolution_axis)),
    KnownRefusal(r"total\(os", "Interp cannot shrink", _is("Interp", _has("interp_param", "shrink_factor"))),
    KnownRefusal(r"total\(os", "a pooling window must fit into its input", _is("Pooling", _exceeds_its_input)),
    KnownRefusal(r"outputBlobs\.empty", "a net must have an input", _is("DummyData")),
    KnownRefusal(r"paddings", "Padding is a different layer in OpenCV", _is("Padding")),
    KnownRefusal(r"Wh\.rows", "LSTM differs from Caffe's", _is("LSTM")),
    KnownRefusal(r"repeats", "tiles of Tile is not read", _is("Tile")),
    KnownRefusal(r"share_location", "share_location has no default", _is("DetectionOutput")),
    KnownRefusal(r"_minSize", "a PriorBox must have min_size", _is("PriorBox")),
    KnownRefusal(r"(?:kernel|strides)\[i\]", "a fork's field in pooling_param drops the whole message", _pools_by_fork),
    KnownRefusal(r"axisSize|r\.start", "a Reshape cannot insert an axis", _inserts_axis),
)  # fmt: skip


def explain_difference(layer: Layer) -> str:
    """The known OpenCV error that affects a layer, or ""."""
    return next((known.text for known in ERRORS if layer.type == known.type and known.applies(layer)), "")


def explain_refusal(reason: str, layers: Sequence[Layer]) -> tuple[str, list[Layer]]:
    """The meaning of OpenCV's reason for a net of these layers, and the layers at fault; "" and no layers if unknown.

    An unknown reason may follow from a known error in an earlier layer: most of them change a size.
    """
    for known in REFUSALS:
        found = re.search(known.pattern, reason)
        if found is None:
            continue
        at_fault = known.at_fault or _is(found[1])
        layers_at_fault = [layer for layer in layers if at_fault(layer)]
        if layers_at_fault:
            return found.expand(known.text), layers_at_fault
    wrong = {layer: explain_difference(layer) for layer in layers if explain_difference(layer)}
    return "; ".join(dict.fromkeys(wrong.values())), list(wrong)
