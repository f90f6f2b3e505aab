"""Upgrade of older nets: V0 (2013) -> V1 (2014) -> V2 (`layer { type: "Convolution" }`).

The rules are those of Caffe's own upgrade, plus the forks' layer types:

1. V0: parameters move from one flat message to the message of their type; a parameter that the type lacks is dropped
   with a warning, as in Caffe.
2. V0: a `padding` layer is folded into the convolution or pooling that reads it.
3. V1: `blobs_lr`, `weight_decay`, `param` and `blob_share_mode` become `param { }` entries.
4. V1: scale, mean_file, crop_size and mirror of a data layer move to `transform_param`.
5. V1: enum types become names. The parameter messages keep their field names.

`input`, `input_dim` and `input_shape` stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from ...errors import PrototxtError
from ...proto import schema
from .known import DIALECTS

_V1_NAMES = {
    "NONE": "",
    "BIN_ACCURACY": "BinaryAccuracy",
    "RED_SOFTMAX_LOSS": "RedSoftmaxWithLoss",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
}
"""Enum names whose V2 name has other letters."""
_CASES = (
    "AbsVal", "ArgMax", "BNLL", "Convolution3D", "Deconvolution3D", "ELU", "LRN", "LSTM", "MVN", "OneHot", "PReLU",
    "Pooling3D", "RNN", "ROIAlign", "ReLU", "SPP", "TanH",
)  # fmt: skip
"""Types whose name is not the capitalized words of their enum name, besides those of `known.py`."""

_V0_UPPERCASED = (
    "accuracy bnll concat data dropout euclidean_loss flatten hdf5_data hdf5_output im2col infogain_loss lrn "
    "multinomial_logistic_loss relu sigmoid softmax softmax_loss split tanh window_data"
)
_V0_TYPES = {"conv": "CONVOLUTION", "innerproduct": "INNER_PRODUCT", "pool": "POOLING", "images": "IMAGE_DATA"} | {
    name: name.upper() for name in _V0_UPPERCASED.split()
}
_V0_PARAMETERS = {
    "conv": ("convolution_param", "num_output biasterm weight_filler bias_filler pad kernelsize stride group"),
    "innerproduct": ("inner_product_param", "num_output biasterm weight_filler bias_filler"),
    "pool": ("pooling_param", "pad kernelsize stride pool"),
    "dropout": ("dropout_param", "dropout_ratio"),
    "lrn": ("lrn_param", "local_size alpha beta k"),
    "concat": ("concat_param", "concat_dim"),
    "data": ("data_param", "source batchsize rand_skip"),
    "hdf5_data": ("hdf5_data_param", "source batchsize"),
    "images": ("image_data_param", "source batchsize rand_skip shuffle_images new_height new_width"),
    "window_data": (
        "window_data_param",
        "source batchsize det_fg_threshold det_bg_threshold det_fg_fraction det_context_pad det_crop_mode",
    ),
    "infogain_loss": ("infogain_loss_param", "source"),
    "hdf5_output": ("", "hdf5_output_param"),
}
"""V0 type -> (parameter message of V1, its V0 fields)."""
_V0_RENAMED = {
    "biasterm": "bias_term",
    "kernelsize": "kernel_size",
    "batchsize": "batch_size",
    "shuffle_images": "shuffle",
}
_V0_TRANSFORM = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}
_V0_COMMON = ("name", "blobs", "blobs_lr", "weight_decay")
_V1_REPLACED = ("type", "param", "blob_share_mode", "blobs_lr", "weight_decay", "layer")
_DATA_LAYERS = {"DATA": "data_param", "IMAGE_DATA": "image_data_param", "WINDOW_DATA": "window_data_param"}


@dataclass(frozen=True)
class UpgradedNet:
    """A net in V2 form, and the origin of its layers."""

    net: Any  # a NetParameter with all layers in `layer`
    format: str  # the original syntax: "V0", "V1" or "V2"
    sources: tuple[int, ...]  # for each layer, the index of its entry in `layer` or `layers`
    warnings: tuple[str, ...]  # one for each parameter left out


def camel_case(enum_name: str) -> str:
    """The V2 type of a V1 enum name: SOFTMAX_LOSS -> SoftmaxWithLoss, IMAGE_SEG_DATA -> ImageSegData."""
    if enum_name in _V1_NAMES:
        return _V1_NAMES[enum_name]
    words = enum_name.split("_")
    return _types_by_letters().get("".join(words).lower(), "".join(map(str.capitalize, words)))


@cache
def _types_by_letters() -> dict[str, str]:
    names = [*_CASES, *(name for dialect in DIALECTS.values() for name in dialect.layer_types)]
    return {name.lower(): name for name in reversed(names)}


@cache
def v1_type_names() -> dict[int, str]:
    """Number of a V1 type in the merged schema -> its enum name."""
    enum = schema.descriptor("V1LayerParameter").enum_types_by_name["LayerType"]
    return {value.number: value.name for value in enum.values}


def upgrade_net(
    net: Any,
    *,
    path: str | Path | None = None,
    lines: Sequence[int] = (),
    unknown_types: Mapping[int, str] | None = None,
) -> UpgradedNet:
    """Upgrade a parsed NetParameter to V2 form; `net` itself may be changed.

    `lines` has the line of each entry of `layer` or `layers`, and is empty for binaries. `unknown_types` are the enum
    names of V1 entries that the schema lacks, by index. Raises PrototxtError for `layer` and `layers` in one net, V0
    and V1 entries in one net, an unknown V0 type, or a padding layer before a layer that has no pad.
    """
    if not net.layers:
        return UpgradedNet(net, "V2", tuple(range(len(net.layer))), ())
    return _Upgrade(net, path, lines, unknown_types or {}).run()


class _Upgrade:
    def __init__(
        self, net: Any, path: str | Path | None, lines: Sequence[int], unknown_types: Mapping[int, str]
    ) -> None:
        self._net, self._path, self._lines, self._unknown_types = net, path, lines, unknown_types
        self._warnings: list[str] = []

    def run(self) -> UpgradedNet:
        net = self._net
        if net.layer:
            self._fail('has both "layer" and "layers"; Caffe reads one syntax per file: convert the rest', None)
        flat = [entry.HasField("layer") for entry in net.layers]
        sources = list(range(len(net.layers)))
        if any(flat):
            if not all(flat):
                self._fail(
                    "mixes the syntaxes of 2013 (layers { layer { } }) and 2014; convert the rest", flat.index(False)
                )
            sources = self._fold_padding()
            entries = [self._from_v0(index) for index in sources]
        else:
            entries = list(net.layers)
        for index, entry in zip(sources, entries, strict=True):
            _move_transform(entry)
            _from_v1(entry, net.layer.add(), self._unknown_types.get(index))
        net.ClearField("layers")
        version = "V0" if any(flat) else "V1"
        return UpgradedNet(net, version, tuple(sources), tuple(self._warnings))

    def _fold_padding(self) -> list[int]:
        """Move each `padding` layer into its reader (rule 2) and return the remaining entries."""
        kept: list[int] = []
        maker: dict[str, int] = {}
        for index, entry in enumerate(self._net.layers):
            kind = entry.layer.type
            if kind != "padding":
                kept.append(index)
            for position, blob in enumerate(entry.bottom):
                padding = self._net.layers[maker[blob]] if blob in maker else None
                if padding is None or padding.layer.type != "padding":
                    continue
                if kind not in ("conv", "pool"):
                    self._fail(
                        f'a padding layer feeds a layer of type "{kind}"; only conv and pool can read one', index
                    )
                if len(entry.bottom) != 1 or len(padding.bottom) != 1 or len(padding.top) != 1:
                    self._fail("a padding layer and its reader must have one input each", index)
                entry.layer.pad = padding.layer.pad
                entry.bottom[position] = padding.bottom[0]
            maker.update(dict.fromkeys(entry.top, index))
        return kept

    def _from_v0(self, index: int) -> Any:
        """One V0 entry as V1 (rule 1)."""
        entry = self._net.layers[index]
        old, kind = entry.layer, entry.layer.type
        new = schema.message("V1LayerParameter")()
        new.bottom.extend(entry.bottom)
        new.top.extend(entry.top)
        if kind not in _V0_TYPES:
            self._fail(f'layer "{old.name}" has the type "{kind}", which Caffe of 2013 lacks', index)
        new.type = new.LayerType.Value(_V0_TYPES[kind])
        holder, fields = _V0_PARAMETERS.get(kind, ("", ""))
        for field, value in old.ListFields():
            if field.name in _V0_COMMON:
                assign(new, field.name, value)
            elif field.name in _V0_TRANSFORM:
                assign(new.transform_param, _V0_TRANSFORM[field.name], value)
            elif field.name in fields.split():
                name = _V0_RENAMED.get(field.name, field.name.removeprefix("det_"))
                assign(getattr(new, holder) if holder else new, name, value)
            elif field.name != "type":
                self._warnings.append(
                    f'layer "{old.name}"{self._at_line(index)}: '
                    f'ignoring {field.name}: not a parameter of "{kind}" layers'
                )
        return new

    def _at_line(self, index: int) -> str:
        return f" (line {self._lines[index]})" if index < len(self._lines) else ""

    def _fail(self, text: str, index: int | None) -> NoReturn:
        line = self._lines[index] if index is not None and index < len(self._lines) else None
        raise PrototxtError(text, path=self._path, line=line)


def assign(message: Any, name: str, value: Any) -> None:
    """Set a field of any kind; repeated fields are extended."""
    target = getattr(message, name)
    if hasattr(target, "CopyFrom"):
        target.CopyFrom(value)
    elif not hasattr(target, "extend"):
        setattr(message, name, value)
    elif hasattr(value, "extend"):
        target.extend(value)
    else:
        target.append(value)


def _move_transform(entry: Any) -> None:
    """Rule 4."""
    holder = _DATA_LAYERS.get(v1_type_names().get(entry.type, ""))
    if holder is None or not entry.HasField(holder):
        return
    data = getattr(entry, holder)
    for name in ("scale", "mean_file", "crop_size", "mirror"):
        if data.HasField(name):
            setattr(entry.transform_param, name, getattr(data, name))
            data.ClearField(name)


def _from_v1(old: Any, new: Any, unknown_type: str | None = None) -> None:
    """One V1 entry as V2 (rules 3 and 5)."""
    if unknown_type is not None or old.HasField("type"):
        new.type = camel_case(unknown_type or v1_type_names()[old.type])
    for field, value in old.ListFields():
        if field.name not in _V1_REPLACED:
            assign(new, field.name, value)
    count = max(len(old.param), len(old.blob_share_mode), len(old.blobs_lr), len(old.weight_decay))
    for index in range(count):
        spec = new.param.add()
        if index < len(old.param):
            spec.name = old.param[index]
        if index < len(old.blob_share_mode):
            spec.share_mode = old.blob_share_mode[index]
        if index < len(old.blobs_lr):
            spec.lr_mult = old.blobs_lr[index]
        if index < len(old.weight_decay):
            spec.decay_mult = old.weight_decay[index]
