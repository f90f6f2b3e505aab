"""What a Crop without crop_param means in a file.

BVLC Caffe crops at offset 0. The Caffe of 2015 that FCN, HED and CRF-RNN stand on had no crop_param: its Crop takes the
offset from the graph. The text looks the same, so the file as a whole is asked:

1. a dialect given by the caller decides: the forks in AUTOMATIC_DIALECTS take the offset from the graph, others 0;
2. so does the file's own dialect where it is one of those forks;
3. a file that gives crop_param anywhere, or has a layer that Caffe does not know, means 0;
4. any other is taken to mean the graph. If some offset is then no whole number, no such Caffe ever ran the file, and
   all its Crops mean 0 (the layout finds that out).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

#: Caffes whose Crop has no parameters.
AUTOMATIC_DIALECTS = frozenset({"crfasrnn", "deconvnet", "hed"})

#: Layers of BVLC Caffe that came after that Crop was replaced, or with what replaced it.
_YOUNGER_LAYERS = frozenset(
    {"BatchNorm", "Bias", "Clip", "ELU", "Input", "LSTM", "LSTMUnit", "Parameter", "RNN", "Scale", "Swish"}
)


class CropRule(Enum):
    """Where a Crop without crop_param starts."""

    ZERO = "at 0"
    GRAPH = "where the graph says"
    GRAPH_ASSUMED = "where the graph says, as far as the file shows"


def tell_crop_rule(messages: Iterable[Any], dialect: str, *, given: bool) -> CropRule:
    """The rule of a file.

    Args:
        messages: its LayerParameter messages, V2 types.
        dialect: which Caffe it is from.
        given: the caller named the dialect, it is not told from the file.
    """
    if dialect in AUTOMATIC_DIALECTS:
        return CropRule.GRAPH
    layers = list(messages)
    crops = [layer for layer in layers if layer.type == "Crop"]
    if given or not crops or any(layer.HasField("crop_param") for layer in crops):
        return CropRule.ZERO
    is_younger = any(layer.type in _YOUNGER_LAYERS or layer.convolution_param.dilation for layer in layers)
    return CropRule.ZERO if is_younger else CropRule.GRAPH_ASSUMED
