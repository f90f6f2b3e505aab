"""Which Caffe a file is from, told by evidence.

Text names its fields, so for text the dialect is only reported. Binaries carry numbers, and the same number means
different things in different forks. The evidence, from strongest to weakest:

1. A V2 layer's type beside a contested parameter number: "Interp" with 143 is DeepLab v2's, "Input" with 143 BVLC's.
2. A V1 layer's type number beside its parameter: 39 with convolution_param is DECONVOLUTION, with image_data_param
   DeepLab v1's IMAGE_SEG_DATA.
3. Fields 17 to 19 of a V1 convolution: DeepLab v1's hole, hole_h, hole_w (BVLC added its own only with V2).

Without any of it the file reads the same in every Caffe, and is called BVLC's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..files.wire import LENGTH, VARINT, WireError, WireReader
from .renumber import BVLC, LAYER_TYPES, belongs, contested_layer_fields, enum_values, wire_fields
from .upgrade import camel_case, v1_type_names

V1_ONLY = frozenset({"deeplab_v1", "deconvnet", "hed"})
"""Forks from before `layer { }`: what only they know cannot stand in one."""

FORK_TYPES: dict[str, tuple[str, ...]] = {
    "AdaptiveBiasChannel": ("deeplab_v1", "deeplab_v2", "pspnet"),
    "AnnotatedData": ("ssd",),
    "Axpy": ("senet",),
    "BN": ("segnet", "pspnet", "deconvnet"),
    "BiasChannel": ("deeplab_v1", "deeplab_v2", "pspnet"),
    "BinLabelData": ("fyu_dilation",),
    "BoxAnnotatorOHEM": ("rfcn",),
    "CTCGreedyDecoder": ("openvino",),
    "CenterLoss": ("caffe_face",),
    "ColorConv": ("colorization",),
    "ConvolutionDepthwise": ("mobilenet",),
    "DenseCRF": ("deeplab_v1", "deeplab_v2", "pspnet"),
    "DenseImageData": ("segnet",),
    "DepthwiseConvolution": ("mobilenet",),
    "DetectNetTransformation": ("nvcaffe",),
    "DetectionEvaluate": ("ssd",),
    "DetectionOutput": ("ssd",),
    "DomainTransform": ("deeplab_v2", "pspnet"),
    "EvalDetection": ("yolo",),
    "ImageLabelData": ("fyu_dilation",),
    "ImageLabelmapData": ("hed",),
    "ImageSegData": ("deeplab_v1", "deeplab_v2", "pspnet", "deconvnet"),
    "Interp": ("deeplab_v1", "deeplab_v2", "pspnet"),
    "L2Normalization": ("flownet",),
    "LSTMConv": ("convlstm",),
    "MatRead": ("deeplab_v1", "deeplab_v2", "pspnet"),
    "MatWrite": ("deeplab_v1", "deeplab_v2", "pspnet"),
    "MergeCrop": ("naibaf7",),
    "MultiBoxLoss": ("ssd",),
    "MultiStageMeanfield": ("crfasrnn",),
    "Normalize": ("ssd", "parsenet"),
    "PSROIPooling": ("rfcn",),
    "Padding": ("deeplab_v1",),
    "Permute": ("ssd",),
    "PriorBox": ("ssd",),
    "Proposal": ("faster_rcnn",),
    "ROIPooling": ("faster_rcnn", "rfcn"),
    "ReLU6": ("mobilenet",),
    "Region": ("yolo",),
    "RegionLoss": ("yolo",),
    "Reorg": ("yolo",),
    "ResizeBilinear": ("synopsys",),
    "SegAccuracy": ("deeplab_v1", "deeplab_v2", "pspnet"),
    "ShuffleChannel": ("shufflenet",),
    "SmoothL1Loss": ("faster_rcnn", "rfcn"),
    "SpatialProduct": ("deeplab_v2", "pspnet"),
    "Squeeze": ("synopsys",),
    "UniqueLabel": ("deeplab_v1", "deeplab_v2", "pspnet"),
    "Unpooling": ("deconvnet", "parsenet"),
    "Upsample": ("segnet",),
    "VideoData": ("ssd",),
    "Yolov3DetectionOutput": ("yolo",),
}
"""Layer types that BVLC Caffe does not have -> the forks known for them."""

_V2_DIALECTS = (
    BVLC,
    "deeplab_v2",
    "pspnet",
    "segnet",
    "enet",
    "ssd",
    "crfasrnn",
    "faster_rcnn",
    "rfcn",
    "deeplab_v2_xmyqsh",
    "crfasrnn_crfrnn",
    "fyu_dilation",
    "shufflenet",
)
_V1_DIALECTS = (BVLC, "deeplab_v1", "deconvnet", "crfasrnn", "hed")
"""In the order of preference between equals."""

_CONV_PARAM_V1 = 10
_MIN_CONTESTED_TYPE = 39
_MIN_CONTESTED_FIELD = 42
_MIN_PARAM = 9
_V1_COMMON = frozenset({32, 33, 35, 36, 1001, 1002})
"""include, exclude, loss_weight, transform_param, param, blob_share_mode: the same everywhere."""


@dataclass(frozen=True)
class Dialect:
    """Whose numbers a binary carries.

    Attributes:
        name: the fork, or "bvlc".
        evidence: sentences for people; empty where nothing in the file depends on the dialect.
        also: other forks that fit as well.
        ambiguous: these would read the file differently.
    """

    name: str
    evidence: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    ambiguous: bool = False


@dataclass(frozen=True)
class LayerEvidence:
    """What identification needs of a layer in a binary.

    Attributes:
        type: type string of V2; empty in V1.
        type_number: type number of V1, or None.
        structure: the layer's bytes without its blobs.
    """

    type: str
    type_number: int | None
    structure: bytes


def identify(layers: Sequence[LayerEvidence], version: str) -> Dialect:
    """Tells the dialect of a binary.

    Args:
        layers: in file order.
        version: "V0", "V1" or "V2".

    Raises:
        WireError: a layer's bytes are no message.
    """
    if version == "V0":
        return Dialect(BVLC)
    return _identify_v2(layers) if version == "V2" else _identify_v1(layers)


def name_v1_type(number: int, dialect: str) -> str | None:
    """The enum name a dialect gives to a V1 type number."""
    return v1_type_names().get(enum_values(LAYER_TYPES, dialect).get(number, number))


def _identify_v2(layers: Iterable[LayerEvidence]) -> Dialect:
    pairs: dict[tuple[str, int], int] = {}
    for layer in layers:
        for number in _field_numbers(layer.structure):
            if number in contested_layer_fields():
                pairs[layer.type, number] = pairs.get((layer.type, number), 0) + 1
    clashes = dict.fromkeys(_V2_DIALECTS, 0)
    evidence = []
    for (kind, number), count in pairs.items():
        fitting = [name for name in _V2_DIALECTS if _fits(kind, number, name)]
        for name in _V2_DIALECTS:
            clashes[name] += bool(fitting) and name not in fitting
        if not fitting:
            evidence.append(f'type "{kind}" beside field {number}, {count} time(s): no known Caffe keeps it there')
        elif BVLC not in fitting:
            evidence.append(f'type "{kind}" beside field {number}, {count} time(s): {", ".join(fitting)}')
    fewest = min(clashes.values())
    best = [name for name in _V2_DIALECTS if clashes[name] == fewest]
    if fewest:
        evidence.append("no single known Caffe explains all of these: a private mix")
    return Dialect(best[0], tuple(evidence), () if best[0] == BVLC else tuple(best[1:]))


def _fits(kind: str, number: int, dialect: str) -> bool:
    item = wire_fields("LayerParameter", dialect).get(number)
    return item is not None and belongs(kind, item.name)


def _identify_v1(layers: Iterable[LayerEvidence]) -> Dialect:
    clashes = dict.fromkeys(_V1_DIALECTS, 0)
    contested: dict[int, int] = {}
    evidence: dict[str, None] = {}
    for layer in layers:
        if _has_hole(layer.structure):
            evidence["a convolution with one of the fields 17 to 19: hole, hole_h, hole_w of deeplab_v1"] = None
            _count_clashes(clashes, ["deeplab_v1"])
        kind, numbers = layer.type_number or 0, _field_numbers(layer.structure)
        if kind >= _MIN_CONTESTED_TYPE:
            contested[kind] = contested.get(kind, 0) + 1
        elif not any(number >= _MIN_CONTESTED_FIELD and number not in _V1_COMMON for number in numbers):
            continue
        fitting = [name for name in _V1_DIALECTS if _fits_v1(kind, numbers, name)]
        _count_clashes(clashes, fitting)
        if len(fitting) < len(_V1_DIALECTS):
            params = sorted(number for number in numbers if number >= _MIN_PARAM and number not in _V1_COMMON)
            beside = f" beside field {', '.join(map(str, params))}" if params else ""
            evidence[f"type number {kind}{beside}: {', '.join(fitting) or 'no known Caffe'}"] = None
    fewest = min(clashes.values())
    best = [name for name in _V1_DIALECTS if clashes[name] == fewest]
    readings = {name: tuple(name_v1_type(number, name) for number in contested) for name in best}
    ambiguous = len(set(readings.values())) > 1 or bool(fewest and contested)
    also = () if best[0] == BVLC and not ambiguous else tuple(best[1:])
    return Dialect(best[0], tuple(evidence), also, ambiguous)


def _count_clashes(clashes: dict[str, int], fitting: Sequence[str]) -> None:
    for name in clashes:
        clashes[name] += name not in fitting


def _fits_v1(number: int, fields: frozenset[int], dialect: str) -> bool:
    enum_name = name_v1_type(number, dialect)
    if enum_name is None:
        return False
    known = wire_fields("V1LayerParameter", dialect)
    params = [known.get(field) for field in fields if field >= _MIN_PARAM]
    return all(
        item is not None and (not item.name.endswith("_param") or belongs(camel_case(enum_name), item.name))
        for item in params
        if item is None or item.name not in ("transform_param", "loss_param", "softmax_param")
    )


def _has_hole(structure: bytes) -> bool:
    reader = WireReader(structure)
    return any(
        inner.number in (17, 18, 19) and inner.wire_type == VARINT
        for outer in reader.fields(0, len(structure))
        if outer.number == _CONV_PARAM_V1 and outer.wire_type == LENGTH
        for inner in reader.fields(outer.start, outer.stop)
    )


def _field_numbers(structure: bytes) -> frozenset[int]:
    return frozenset(found.number for found in WireReader(structure).fields(0, len(structure)))


__all__ = [
    "BVLC",
    "FORK_TYPES",
    "V1_ONLY",
    "Dialect",
    "LayerEvidence",
    "WireError",
    "identify",
    "name_v1_type",
]
