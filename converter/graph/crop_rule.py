"""The offset of a Crop without crop_param.

BVLC Caffe crops at offset 0. The Caffe of 2015 behind FCN, HED and CRF-RNN had no crop_param and took the offset from
the graph. The text is the same, so the whole file decides:

1. a dialect given by the caller: its `automatic_crop` decides;
2. a detected dialect with `automatic_crop`: the graph;
3. a file with crop_param anywhere, or with a layer that this Caffe lacks: 0;
4. any other file: the graph. If an offset is then not a whole number, no such Caffe ran the file, and the builder uses
   0 for all its Crops.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from ..dialects.known import Dialect

_YOUNGER_LAYERS = frozenset(
    {"BatchNorm", "Bias", "Clip", "ELU", "Input", "LSTM", "LSTMUnit", "Parameter", "RNN", "Scale", "Swish"}
)
"""Layers that BVLC Caffe added with its own Crop or later."""


class CropRule(Enum):
    """The start of a Crop without crop_param."""

    ZERO = "offset 0"
    GRAPH = "the graph's offset"
    GRAPH_ASSUMED = "the graph's offset, unless it is not a whole number"


def find_crop_rule(messages: Iterable[Any], dialect: Dialect, *, given: bool) -> CropRule:
    """The rule of a file with these LayerParameter messages; `given`: the caller named the dialect."""
    if dialect.automatic_crop:
        return CropRule.GRAPH
    layers = list(messages)
    crops = [layer for layer in layers if layer.type == "Crop"]
    if given or not crops or any(layer.HasField("crop_param") for layer in crops):
        return CropRule.ZERO
    is_younger = any(layer.type in _YOUNGER_LAYERS or layer.convolution_param.dilation for layer in layers)
    return CropRule.ZERO if is_younger else CropRule.GRAPH_ASSUMED
