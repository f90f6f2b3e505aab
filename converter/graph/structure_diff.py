"""Comparison of a prototxt with the structure saved in the caffemodel, to detect a wrong pair of files.

Layers are matched by name. Compared are the type and the fields of the layer's own parameter message, except those that
do not change results, such as fillers and engines. Differences are reported, not refused: the prototxt decides, and
nets are often edited after training on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .net import Net

#: parameter messages of training and input data
_IGNORED_MESSAGES = frozenset(
    {"transform_param", "loss_param", "data_param", "image_data_param", "input_param", "memory_data_param", "include"}
)
#: values of repeated fields that are left out
_WINDOW_DEFAULTS = {"stride": (1,), "pad": (0,)}
_DILATION_NAMES = ("hole", "filter_stride", "dilation")
_IGNORED_FIELDS = frozenset({"engine", "force_nd_im2col", "use_global_stats", "moving_average_fraction"})


@dataclass(frozen=True)
class StructureDifference:
    """One disagreement."""

    layer: str  # the layer's name
    field: str  # the field that differs, such as `convolution_param.dilation`
    prototxt: str  # its value in the prototxt
    caffemodel: str  # its value in the caffemodel

    def __str__(self) -> str:
        return f'"{self.layer}" {self.field}: {self.prototxt} in the prototxt, {self.caffemodel} in the weights file'


def compare_structure(net: Net, saved: Any) -> tuple[StructureDifference, ...]:
    """Differences of a net to the V2-form NetParameter saved with its weights, in the order of the net's layers."""
    theirs = {layer.name: layer for layer in reversed(saved.layer)}
    # other tools write names, types and blobs only
    has_parameters = any(_has_parameters(layer) for layer in saved.layer)
    differences: list[StructureDifference] = []
    for layer in net.layers:
        other = theirs.get(layer.name)
        if other is not None:
            differences += _compare_layers(layer.message, other, has_parameters)
    return tuple(differences)


def _has_parameters(layer: Any) -> bool:
    return any(field.name.endswith("_param") for field, _ in layer.ListFields())


def _compare_layers(mine: Any, theirs: Any, has_parameters: bool) -> Iterator[StructureDifference]:
    if mine.type != theirs.type:
        yield StructureDifference(mine.name, "type", mine.type, theirs.type)
        return
    if not has_parameters:
        return
    for descriptor in mine.DESCRIPTOR.fields:
        is_parameters = descriptor.message_type is not None and descriptor.name.endswith("_param")
        if not is_parameters or descriptor.name in _IGNORED_MESSAGES:
            continue
        if mine.HasField(descriptor.name) or theirs.HasField(descriptor.name):
            yield from _compare_messages(
                mine.name, descriptor.name, getattr(mine, descriptor.name), getattr(theirs, descriptor.name)
            )


def _compare_messages(layer: str, path: str, mine: Any, theirs: Any) -> Iterator[StructureDifference]:
    window = path == "convolution_param"
    for descriptor in mine.DESCRIPTOR.fields:
        name = descriptor.name
        if name in _IGNORED_FIELDS or name.endswith("filler") or (window and name in _DILATION_NAMES):
            continue
        if descriptor.message_type is not None:
            continue
        a, b = _plain(getattr(mine, name)), _plain(getattr(theirs, name))
        if window and name in _WINDOW_DEFAULTS:
            a, b = a or _WINDOW_DEFAULTS[name], b or _WINDOW_DEFAULTS[name]
        if a != b:
            yield StructureDifference(layer, f"{path}.{name}", str(a), str(b))
    if window and _dilation(mine) != _dilation(theirs):
        yield StructureDifference(layer, f"{path}.dilation", str(_dilation(mine)), str(_dilation(theirs)))


def _dilation(param: Any) -> tuple[int, ...]:
    """Dilation, also where a fork has another name for it; (1,) by default."""
    for name in _DILATION_NAMES[:2]:
        if param.HasField(name):
            return (getattr(param, name),)
    values = tuple(param.dilation) or (1,)
    return values[:1] if len(set(values)) == 1 else values


def _plain(value: Any) -> Any:
    """Repeated fields as tuples, shortened to one value if all are equal."""
    if isinstance(value, (str, bytes, int, float)):
        return value
    values = tuple(value)
    return values[:1] if values and len(set(values)) == 1 else values
