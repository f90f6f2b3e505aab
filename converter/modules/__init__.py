"""Torch modules with Caffe's arithmetic, where torch has none of its own.

Every class stands alone: its source names nothing but `torch`, `nn`, `F` and `math`, so that the readable `model.py`
can carry it verbatim. Files follow the families of `converter.layers`.
"""

from .convolution import (
    FoldedConv1d,
    FoldedConv2d,
    FoldedConv3d,
    FoldedConvTranspose1d,
    FoldedConvTranspose2d,
    FoldedConvTranspose3d,
    SidePaddedConv2d,
)
from .pooling import AveragePool2d, MaxPool2d, MaxPoolWithMask2d
from .resize import Interp

__all__ = [
    "AveragePool2d",
    "FoldedConv1d",
    "FoldedConv2d",
    "FoldedConv3d",
    "FoldedConvTranspose1d",
    "FoldedConvTranspose2d",
    "FoldedConvTranspose3d",
    "Interp",
    "MaxPool2d",
    "MaxPoolWithMask2d",
    "SidePaddedConv2d",
]
