"""The miniature DeepLab-LargeFOV as a PyTorch module to train; `deeplab-miniature.prototxt` is the same net for Caffe.

Every convolution but the last is trained with batch normalization after it. `fold_blobs` folds that into weights and
biases, so the saved net is the plain VGG-style net of the prototxt: only convolution, ReLU and pooling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

FloatArray = NDArray[np.float32]

MEAN_BGR = (104.008, 116.669, 122.675)
"""Mean subtracted from the blue, green and red of a 0..255 image: the official nets' `mean_value`."""

STRIDE = 8
"""Pixels per score of ``fc8_scenes``; images of size 8k + 1 get scores of their own size."""


@dataclass(frozen=True)
class Convolution:
    """One CONVOLUTION of the prototxt, all of stride 1 and padded to keep their size; ReLU follows all but the last."""

    name: str
    outputs: int
    kernel: int = 3
    hole: int = 1


@dataclass(frozen=True)
class Pooling:
    """One POOLING of the prototxt: kernel 3, pad 1."""

    name: str
    stride: int
    average: bool = False


LAYERS: tuple[Convolution | Pooling, ...] = (
    Convolution("conv1_1", 16),
    Convolution("conv1_2", 16),
    Pooling("pool1", stride=2),
    Convolution("conv2_1", 32),
    Convolution("conv2_2", 32),
    Pooling("pool2", stride=2),
    Convolution("conv3_1", 48),
    Convolution("conv3_2", 48),
    Convolution("conv3_3", 48),
    Pooling("pool3", stride=2),
    Convolution("conv4_1", 72),
    Convolution("conv4_2", 72),
    Convolution("conv4_3", 72),
    Pooling("pool4", stride=1),
    Convolution("conv5_1", 72, hole=2),
    Convolution("conv5_2", 72, hole=2),
    Convolution("conv5_3", 72, hole=2),
    Pooling("pool5", stride=1),
    Pooling("pool5a", stride=1, average=True),
    Convolution("fc6", 128, hole=12),
    Convolution("fc7", 128, kernel=1),
)
SCORES = "fc8_scenes"
DROPOUT_RATIO = 0.1


class MiniatureNet(nn.Module):
    """A small DeepLab-LargeFOV: scores at stride 8 from a BGR image with the mean subtracted.

    Args:
        classes: channels of the scores.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict()
        self.norms = nn.ModuleDict()
        channels = 3
        for layer in LAYERS:
            if isinstance(layer, Convolution):
                pad = layer.hole * (layer.kernel // 2)
                self.convolutions[layer.name] = nn.Conv2d(
                    channels, layer.outputs, layer.kernel, padding=pad, dilation=layer.hole, bias=False
                )
                self.norms[layer.name] = nn.BatchNorm2d(layer.outputs)
                channels = layer.outputs
        self.convolutions[SCORES] = nn.Conv2d(channels, classes, 1)
        self.dropout = nn.Dropout(DROPOUT_RATIO)
        for name in self.convolutions:
            weight = self.find_convolution(name).weight
            nn.init.kaiming_normal_(weight, nonlinearity="linear" if name == SCORES else "relu")

    def find_convolution(self, name: str) -> nn.Conv2d:
        """The convolution of a layer name."""
        return cast(nn.Conv2d, self.convolutions[name])

    def find_norm(self, name: str) -> nn.BatchNorm2d | None:
        """The batch normalization after a convolution, None after the last."""
        return cast(nn.BatchNorm2d, self.norms[name]) if name in self.norms else None

    def forward(self, data: Tensor) -> Tensor:
        """Score every eighth pixel.

        Args:
            data: (N, 3, H, W) float32, BGR, 0..255 minus `MEAN_BGR`.

        Returns:
            (N, classes, h, w) float32, where h is H after three ceil-mode halvings: (H - 1) / 8 + 1 if H is 8k + 1.
        """
        blob = data
        for layer in LAYERS:
            if isinstance(layer, Convolution):
                blob = F.relu(self.norms[layer.name](self.convolutions[layer.name](blob)), inplace=True)
                if layer.name.startswith("fc"):
                    blob = self.dropout(blob)
            elif layer.average:
                blob = F.avg_pool2d(blob, 3, layer.stride, padding=1, ceil_mode=True)
            else:
                blob = F.max_pool2d(blob, 3, layer.stride, padding=1, ceil_mode=True)
        scores: Tensor = self.convolutions[SCORES](blob)
        return scores


def zoom_scores(scores: Tensor) -> Tensor:
    """INTERP with ``zoom_factor: 8``: (N, C, h, w) to (N, C, 8(h-1)+1, 8(w-1)+1), bilinear, corners aligned."""
    height, width = (STRIDE * (side - 1) + 1 for side in scores.shape[-2:])
    return F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=True)


def prepare_data(images: NDArray[np.uint8]) -> Tensor:
    """Turn (N, H, W, 3) uint8 RGB into (N, 3, H, W) float32 BGR minus the mean."""
    planes = images[..., ::-1].astype(np.float32) - np.asarray(MEAN_BGR, np.float32)
    return torch.from_numpy(np.ascontiguousarray(planes.transpose(0, 3, 1, 2)))


def pad_data(data: Tensor) -> Tensor:
    """Pad (N, 3, H, W) below and on the right with 0, the mean, to sides of 8k + 1, as DeepLab does."""
    below, right = ((1 - side) % STRIDE for side in data.shape[2:])
    return F.pad(data, (0, right, 0, below))


def fold_blobs(net: MiniatureNet) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Weight and bias of each convolution by its name, its batch normalization folded in.

    y = gamma (W x - mean) / s + beta with s = sqrt(variance + eps) is one convolution with the weights gamma W / s and
    the bias beta - gamma mean / s; padding stays exact because the normalization comes after it.
    """
    blobs = {}
    for name in net.convolutions:
        convolution, norm = net.find_convolution(name), net.find_norm(name)
        weight, bias = convolution.weight.detach().double(), convolution.bias
        if norm is not None:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            gain = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
            weight = weight * gain[:, None, None, None]
            bias = norm.bias.detach().double() - gain * norm.running_mean.double()
        assert bias is not None
        blobs[name] = (weight.float().contiguous().numpy(), bias.detach().float().numpy())
    return blobs
