"""Layer types that a converted net does not compute.

Data sources become inputs, training-only layers are dropped, and types without a conversion are refused with a reason.

The types of known forks are listed per dialect in `dialects/known.py`; only those of no particular fork are here. Forks
that atrous does not know are recognized by the names that they give such layers.
"""

from __future__ import annotations

from typing import Any

from ..dialects.known import DIALECTS

_LOSS = "a loss: only training needs it"
_METRIC = "measures against labels: use `atrous evaluate`"
_WRITER = "writes its bottoms to files: the net's outputs take its place"
_LOSS_BY_NAME = "a loss by its name: only training needs it"
_METRIC_BY_NAME = "measures against labels, by its name: use `atrous evaluate`"

DATA_SOURCES = frozenset({"data"}.union(*(dialect.data_layers for dialect in DIALECTS.values())))
"""Layers that read files or memory: their tops become inputs."""

TRAINING_ONLY: dict[str, str] = {
    **dict.fromkeys(("CTCLoss", "TripletLoss", "WeightedSoftmaxWithLoss"), _LOSS),
    "SaveOutput": _WRITER,
    "Silence": "only prevents its bottoms from being printed",
}
"""Layers that only measure, write or train -> the reason for dropping them."""

for _dialect in DIALECTS.values():
    TRAINING_ONLY.update(dict.fromkeys(_dialect.losses, _LOSS))
    TRAINING_ONLY.update(dict.fromkeys(_dialect.metrics, _METRIC))
    TRAINING_ONLY.update(dict.fromkeys(_dialect.writers, _WRITER))

PYTHON_LAYER = "Python"
"""The type of layers whose code is in another file."""

_WEAK_LABELS = "trains with image labels instead of pixel labels; no deploy net has it"
_SCHEMA_ONLY = "named in the fork's schema; no known published net uses it, and its computation is undocumented"
_VIDEO = "runs over time as well as height and width; nets of video clips are not supported"
_CUT = "cut the net before it, or add it as a plug-in (docs/plugins.md)"

UNSUPPORTED: dict[str, str] = {
    "AdaptiveBiasChannel": _WEAK_LABELS,
    "BiasChannel": _WEAK_LABELS,
    "UniqueLabel": _WEAK_LABELS,
    "BoxAnnotatorOHEM": "picks hard examples in training",
    "CTCGreedyDecoder": "decodes text from a sequence; no recording to verify it",
    "L2Normalization": "no recording to verify it; `Normalize` of SSD is converted",
    "LSTMConv": "the older form of ConvLSTM; no recording to verify it",
    "Region": "decodes the boxes of YOLO v2; cut the net before it and decode in your own code",
    **dict.fromkeys(
        (
            "CensorLabel",
            "ChannelAggregator",
            "DominantChannel",
            "DropoutChannel",
            "GainChannel",
            "Histogram",
            "IgnoreOverlay",
            "OneHot",
            "RelativeError",
            "SelectSegBinary",
            "WindowSegBinary",
        ),
        _SCHEMA_ONLY,
    ),
}
"""Types of known forks without a conversion -> the reason."""

ELSEWHERE: dict[str, str] = {
    **dict.fromkeys(("Convolution3D", "Deconvolution3D", "Pooling3D", "NdConvolution", "NdPooling"), _VIDEO),
    **dict.fromkeys(("Correlation", "Correlation1D"), f"compares two feature maps at many shifts (FlowNet); {_CUT}"),
    **dict.fromkeys(("FlowWarp", "Warp"), f"moves pixels along a flow field; {_CUT}"),
    "Resample": f"resizes with an antialiasing filter (FlowNet); {_CUT}",
    **dict.fromkeys(("Augmentation", "DataAugmentation", "GenerateAugmentationParameters"), "augments training data"),
    **dict.fromkeys(("SpatialTransformer", "GridGenerator"), f"samples a bottom on a grid that a net computes; {_CUT}"),
    "DeformableConvolution": f"samples where another layer points; {_CUT}",
    **dict.fromkeys(("ROIAlign", "PSROIAlign"), f"interpolates in regions of interest; {_CUT}"),
    "BoxOutput": f"suppresses boxes of MS-CNN; {_CUT}",
    "Nms": f"finds peaks of OpenPose's heat maps; {_CUT}",
    "ImResize": f"resizes bicubically (OpenPose); {_CUT}",
    "Lstm": f"a recurrent layer from before BVLC's `LSTM`, with other blobs; {_CUT}",
    **dict.fromkeys(
        ("Transpose", "Reverse", "ContinuationIndicator"),
        f"prepares sequences (CRNN, CTPN); {_CUT}",
    ),
    "Permutohedral": f"filters with a permutohedral lattice inside the net; {_CUT}",
    "Segmentation": f"finds superpixels; {_CUT}",
}
"""Types of forks whose schema atrous lacks -> the reason for refusing them."""


def reads_data(message: Any, *, is_registered: bool) -> bool:
    """Whether a layer is a source of data: known as one, code without bottoms, or by its name.

    Args:
        message: its LayerParameter.
        is_registered: its type has a conversion.
    """
    if message.type in DATA_SOURCES:
        return True
    if message.bottom or not message.top or is_registered:
        return False
    return message.type == PYTHON_LAYER or "Data" in message.type


def training_reason(kind: str, *, is_registered: bool) -> str | None:
    """The reason for dropping a layer of this type, or None if it is not one of training."""
    known = TRAINING_ONLY.get(kind)
    if known is not None or is_registered or kind in UNSUPPORTED:
        return known
    if "Loss" in kind:
        return _LOSS_BY_NAME
    return _METRIC_BY_NAME if kind.endswith(("Accuracy", "Evaluate")) else None


def unsupported_reason(kind: str) -> str | None:
    """The reason for refusing a type that is known without a conversion, or None if it is unknown."""
    return UNSUPPORTED.get(kind) or ELSEWHERE.get(kind)
