"""What a layer type is to a converted net: data that becomes an input, training that is dropped, or computation.

The types of BVLC and of every fork in docs are named here with the reason a person is told. A type that is neither
listed nor registered as an operator is unsupported.
"""

from __future__ import annotations

#: Layers that read files or memory: their tops become inputs.
DATA_SOURCES = frozenset(
    {
        "AnnotatedData",
        "BinLabelData",
        "Data",
        "DenseImageData",
        "DetectNetTransformation",
        "HDF5Data",
        "ImageData",
        "ImageLabelData",
        "ImageLabelmapData",
        "ImageSegData",
        "Input",
        "MatRead",
        "MemoryData",
        "VideoData",
        "WindowClsData",
        "WindowData",
        "WindowInstSegData",
        "WindowSegData",
        "data",
    }
)

#: Layers that only measure, write or train: dropped, with the reason.
TRAINING_ONLY: dict[str, str] = {
    **dict.fromkeys(
        (
            "CTCLoss",
            "CenterLoss",
            "ContrastiveLoss",
            "EuclideanLoss",
            "HingeLoss",
            "InfogainLoss",
            "L1Loss",
            "MultiBoxLoss",
            "MultinomialLogisticLoss",
            "RedSoftmaxWithLoss",
            "RegionLoss",
            "SigmoidCrossEntropyLoss",
            "SmoothL1Loss",
            "SmoothL1LossOHEM",
            "SoftmaxLoss",
            "SoftmaxWithLoss",
            "SoftmaxWithLossOHEM",
            "TripletLoss",
            "WeightedSoftmaxWithLoss",
        ),
        "a loss: only training needs it",
    ),
    **dict.fromkeys(
        (
            "Accuracy",
            "EvalDetection",
            "DetectionEvaluate",
            "EltwiseAccuracy",
            "BinaryAccuracy",
            "RedAccuracy",
            "SegAccuracy",
        ),
        "measures against labels: use `atrous evaluate`",
    ),
    **dict.fromkeys(
        ("HDF5Output", "MatWrite", "SaveOutput"), "writes its bottoms to files: the net's outputs take its place"
    ),
    "Silence": "only keeps its bottoms from being printed",
}

#: Types that read and write nothing Caffe could hand to another program.
PYTHON_LAYER = "Python"
