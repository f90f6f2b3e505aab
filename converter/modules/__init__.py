"""Torch modules with Caffe's arithmetic, where torch has none of its own.

Every class stands alone: its source names nothing but `torch`, `nn`, `F` and `math`, so that the readable `model.py`
can carry it verbatim. Files follow the families of `converter.layers`.
"""

from .activation import AbsVal, Clip, Exp, LeakyReLU6, Log, Power, ReLUWithMask, SampledDropout, Swish, Threshold
from .anchors import PriorBox
from .color import LabOfBGR
from .convolution import (
    FoldedConv1d,
    FoldedConv2d,
    FoldedConv3d,
    FoldedConvTranspose1d,
    FoldedConvTranspose2d,
    FoldedConvTranspose3d,
    SidePaddedConv2d,
)
from .crop import Crop, MergeCrop
from .data import Constant, Parameter
from .detection import DetectionOutput, Yolov3DetectionOutput
from .elementwise import Axpy, EltwiseMax, EltwiseProduct, EltwiseSum
from .lattice import DenseCRF, LabelCRF, MultiStageMeanfield, PermutohedralLattice
from .linear import Embed, InnerProduct
from .normalization import MVN, BatchStatisticsNorm, LRNAcrossChannels, LRNWithinChannel, Normalize, SegNetBN
from .pooling import AveragePool2d, MaxPool2d, MaxPoolWithMask2d
from .rearrangement import Im2col, Reorg, SpatialPyramidPool
from .recurrent import LSTM, RNN, ConvLSTM, LSTMUnit
from .reduction import ArgMax, BatchReindex, Filter, Reduction
from .resize import Interp
from .roi import PositionSensitiveROIPool, Proposal, ROIPool
from .scale import Bias, BiasByBottom, Scale, ScaleByBottom
from .segmentation import DomainTransform
from .shape import Concat, Permute, Reshape, Slice, Split, Squeeze, Tile
from .upsampling import MaxUnpool, RepeatPixels, RepeatToFit, ResizeFromOrigin, StrideUnpool

__all__ = [
    "LSTM",
    "MVN",
    "RNN",
    "AbsVal",
    "ArgMax",
    "AveragePool2d",
    "Axpy",
    "BatchReindex",
    "BatchStatisticsNorm",
    "Bias",
    "BiasByBottom",
    "Clip",
    "Concat",
    "Constant",
    "ConvLSTM",
    "Crop",
    "DenseCRF",
    "DetectionOutput",
    "DomainTransform",
    "EltwiseMax",
    "EltwiseProduct",
    "EltwiseSum",
    "Embed",
    "Exp",
    "Filter",
    "FoldedConv1d",
    "FoldedConv2d",
    "FoldedConv3d",
    "FoldedConvTranspose1d",
    "FoldedConvTranspose2d",
    "FoldedConvTranspose3d",
    "Im2col",
    "InnerProduct",
    "Interp",
    "LRNAcrossChannels",
    "LRNWithinChannel",
    "LSTMUnit",
    "LabOfBGR",
    "LabelCRF",
    "LeakyReLU6",
    "Log",
    "MaxPool2d",
    "MaxPoolWithMask2d",
    "MaxUnpool",
    "MergeCrop",
    "MultiStageMeanfield",
    "Normalize",
    "Parameter",
    "Permute",
    "PermutohedralLattice",
    "PositionSensitiveROIPool",
    "Power",
    "PriorBox",
    "Proposal",
    "ROIPool",
    "ReLUWithMask",
    "Reduction",
    "Reorg",
    "RepeatPixels",
    "RepeatToFit",
    "Reshape",
    "ResizeFromOrigin",
    "SampledDropout",
    "Scale",
    "ScaleByBottom",
    "SegNetBN",
    "SidePaddedConv2d",
    "Slice",
    "SpatialPyramidPool",
    "Split",
    "Squeeze",
    "StrideUnpool",
    "Swish",
    "Threshold",
    "Tile",
    "Yolov3DetectionOutput",
]
