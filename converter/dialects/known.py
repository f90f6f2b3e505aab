"""The Caffes whose files atrous reads, one entry each.

The field numbers of a fork's binaries are `(wire)` options in `proto/caffe.proto`; its syntaxes, layer types and
behavior are here. docs/adding-a-dialect.md explains how to add one. No other package compares dialect names: layers and
readers ask a flag of the `Dialect`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from ...errors import NetError
from ...proto import schema


@dataclass(frozen=True)
class Dialect:
    """The differences between one Caffe and BVLC Caffe."""

    name: str  # the name in options, manifests and the schema
    # the syntaxes it reads: "V0", "V1" (`layers { }`) and "V2" (`layer { }`)
    formats: tuple[str, ...] = ("V0", "V1", "V2")
    layers: tuple[str, ...] = ()  # layer types it adds, except those below
    data_layers: tuple[str, ...] = ()  # layer types it adds that read files; their tops become inputs
    losses: tuple[str, ...] = ()  # layer types it adds for training only
    metrics: tuple[str, ...] = ()  # layer types it adds that measure against labels
    writers: tuple[str, ...] = ()  # layer types it adds that write files
    # layer type -> parameter messages, where the type's name does not give them
    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # field of its V1 syntax -> advice for a V2 file that uses it
    replacements: Mapping[str, str] = field(default_factory=dict)
    # of `input_shape` and `input_dim`, the shape counts; other Caffes reject a net with both
    shape_before_dims: bool = False
    automatic_crop: bool = False  # Crop has no parameters and takes its offset from the graph
    has_hole: bool = False  # convolutions of V1 binaries keep `hole` in fields 17 to 19
    four_axis_blobs: bool = False  # every blob has four axes: convolution biases, InnerProduct and Flatten
    argmax_per_pixel: bool = False  # ArgMax without `axis` runs over the channels
    # Interp rejects more than one of zoom, shrink and size; others take the first that applies
    one_interp_form: bool = False
    has_batch_variance: bool = True  # BatchNorm without global statistics computes the variance of the batch
    has_mean: bool = True  # its published nets subtract a mean from their images
    bn_blobs: int = 0  # blobs of its BN layer: 2 (scale, shift) or 4 (slope, bias, mean, variance); 0 without one

    @property
    def layer_types(self) -> tuple[str, ...]:
        """Every layer type it adds."""
        return (*self.layers, *self.data_layers, *self.losses, *self.metrics, *self.writers)


BVLC = Dialect(
    "bvlc",
    data_layers=("Data", "HDF5Data", "ImageData", "Input", "MemoryData", "WindowData"),
    losses=(
        "ContrastiveLoss",
        "EuclideanLoss",
        "HingeLoss",
        "InfogainLoss",
        "MultinomialLogisticLoss",
        "SigmoidCrossEntropyLoss",
        "SoftmaxLoss",
        "SoftmaxWithLoss",
    ),
    metrics=("Accuracy",),
    writers=("HDF5Output",),
    parameters={
        "Deconvolution": ("convolution_param",),
        "Im2col": ("convolution_param",),
        "LSTM": ("recurrent_param",),
        "RNN": ("recurrent_param",),
        "SoftmaxWithLoss": ("softmax_param", "softmaxloss_param"),
    },
    shape_before_dims=True,
)

_V1 = ("V0", "V1")
_SEG_DATA = {"ImageSegData": ("image_data_param",)}
_DEEPLAB = Dialect(  # shared by the versions of DeepLab
    "",
    layers=("AdaptiveBiasChannel", "BiasChannel", "DenseCRF", "Interp", "UniqueLabel"),
    data_layers=("ImageSegData", "MatRead"),
    metrics=("SegAccuracy",),
    writers=("MatWrite",),
    parameters=_SEG_DATA,
)
_DEEPLAB_V2 = replace(
    _DEEPLAB,
    name="deeplab_v2",
    layers=(*_DEEPLAB.layers, "DomainTransform", "SpatialProduct"),
    has_batch_variance=False,
)

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        BVLC,
        replace(
            _DEEPLAB,
            name="deeplab_v1",
            formats=_V1,
            layers=(*_DEEPLAB.layers, "Padding"),
            replacements={
                "ConvolutionParameter.hole": 'write "dilation"',
                "ConvolutionParameter.hole_h": 'write "dilation" twice, height first',
                "ConvolutionParameter.hole_w": 'write "dilation" twice, height first',
            },
            has_hole=True,
            four_axis_blobs=True,
            argmax_per_pixel=True,
            one_interp_form=True,
        ),
        _DEEPLAB_V2,
        Dialect("segnet", layers=("BN", "Upsample"), data_layers=("DenseImageData",), has_mean=False, bn_blobs=2),
        replace(_DEEPLAB_V2, name="pspnet", layers=(*_DEEPLAB_V2.layers, "BN"), bn_blobs=4),
        Dialect("enet", layers=("BN", "Upsample"), has_mean=False, bn_blobs=2),
        Dialect(
            "ssd",
            layers=("DetectionOutput", "Normalize", "Permute", "PriorBox"),
            data_layers=("AnnotatedData", "VideoData"),
            losses=("MultiBoxLoss",),
            metrics=("DetectionEvaluate",),
            parameters={"AnnotatedData": ("annotated_data_param", "data_param"), "Normalize": ("norm_param",)},
            shape_before_dims=True,
        ),
        Dialect(
            "deconvnet",
            formats=_V1,
            layers=("BN", "Unpooling"),
            data_layers=("ImageSegData", "WindowClsData", "WindowInstSegData", "WindowSegData"),
            losses=("RedSoftmaxWithLoss",),
            metrics=("BinaryAccuracy", "EltwiseAccuracy", "RedAccuracy"),
            parameters=_SEG_DATA,
            automatic_crop=True,
            bn_blobs=2,
        ),
        Dialect("crfasrnn", layers=("MultiStageMeanfield",), automatic_crop=True),
        Dialect(
            "hed",
            formats=_V1,
            data_layers=("ImageLabelmapData",),
            parameters={"ImageLabelmapData": ("image_data_param",)},
            automatic_crop=True,
        ),
        Dialect("faster_rcnn", layers=("Proposal", "ROIPooling"), losses=("SmoothL1Loss",)),
        Dialect(
            "rfcn",
            layers=("BoxAnnotatorOHEM", "PSROIPooling", "ROIPooling"),
            losses=("SmoothL1Loss", "SmoothL1LossOHEM", "SoftmaxWithLossOHEM"),
        ),
        Dialect("deeplab_v2_xmyqsh"),
        Dialect("crfasrnn_crfrnn"),
        Dialect("fyu_dilation", data_layers=("BinLabelData", "ImageLabelData")),
        Dialect("shufflenet", layers=("ShuffleChannel",)),
        # Known from text files only:
        *map(Dialect, ("caffe_windows", "ccnn", "faceboxes", "facebook", "ief", "intel", "lip_attention")),
        *map(Dialect, ("opencv", "selective_search", "tsn", "unet")),
        Dialect("caffe_face", losses=("CenterLoss",)),
        Dialect("colorization", layers=("ColorConv",)),
        Dialect("convlstm", layers=("LSTMConv",)),
        Dialect("flownet", layers=("L2Normalization",), losses=("L1Loss",)),
        Dialect(
            "mobilenet",
            layers=("ConvolutionDepthwise", "DepthwiseConvolution", "ReLU6"),
            parameters=dict.fromkeys(("ConvolutionDepthwise", "DepthwiseConvolution"), ("convolution_param",))
            | {"ReLU6": ("relu_param",)},
        ),
        Dialect("naibaf7", layers=("MergeCrop",)),
        Dialect("nvcaffe", data_layers=("DetectNetTransformation",)),
        Dialect("openvino", layers=("CTCGreedyDecoder",), parameters={"CTCGreedyDecoder": ("ctc_decoder_param",)}),
        Dialect("parsenet", layers=("Normalize", "Unpooling")),
        Dialect("fusenet", layers=("Unpooling",)),
        Dialect("senet", layers=("Axpy",)),
        Dialect("synopsys", layers=("ResizeBilinear", "Squeeze")),
        Dialect(
            "yolo",
            layers=("Region", "Reorg", "YoloDetectionOutput", "Yolov3DetectionOutput"),
            losses=("RegionLoss",),
            metrics=("EvalDetection",),
        ),
    )
}
"""Every dialect by name, BVLC first. Where a file fits several equally well, the first in this order is chosen."""


def find_dialect(name: str, file_format: str | None = None) -> Dialect:
    """The entry of a dialect that reads the syntax of a file ("V0", "V1" or "V2"; None: any).

    Raises NetError if the name is unknown, or the dialect does not read that syntax.
    """
    if name not in DIALECTS:
        raise NetError(f'unknown dialect "{name}"; choose one of: {", ".join(sorted(DIALECTS))}')
    dialect = DIALECTS[name]
    if file_format is not None and file_format not in dialect.formats:
        raise NetError(
            f"the file uses the {file_format} syntax, which {name} cannot read ({', '.join(dialect.formats)} only); "
            "omit the dialect, or name the Caffe that reads it"
        )
    return dialect


@cache
def fork_layer_types() -> dict[str, tuple[str, ...]]:
    """Layer type that BVLC Caffe lacks -> the dialects that have it, in order."""
    found: dict[str, tuple[str, ...]] = {}
    for name, dialect in DIALECTS.items():
        for layer_type in dialect.layer_types if dialect is not BVLC else ():
            found[layer_type] = (*found.get(layer_type, ()), name)
    return found


@cache
def binary_dialects(file_format: str) -> tuple[str, ...]:
    """The dialects that write layers of "V1" or "V2" binaries in numbers of their own, and BVLC, in order."""
    message, loaded = "LayerParameter" if file_format == "V2" else "V1LayerParameter", schema.load_schema()
    wires = [wire for (holder, _), wire in loaded.field_wires.items() if holder == message]
    wires += [wire for (holder, _), wire in loaded.value_wires.items() if holder.startswith(f"{message}.")]
    numbered = {name for wire in wires for name, number in wire.items() if number is not None}
    return tuple(name for name, dialect in DIALECTS.items() if dialect is BVLC or name in numbered)
