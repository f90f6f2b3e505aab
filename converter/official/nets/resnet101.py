"""DeepLab v2's ResNet-101: the net at three image sizes with shared parameters, fused by the maximum.

    data ── 1 ───── ResNet-101, stride 8, then four 3x3 classifiers with dilations 6, 12, 18, 24, summed ──┐
         ├─ 1/2 ─── the same, upsampled by 2 ──────────────────────────────────────────────────────────── MAX ─ x 8
         └─ 3/4 ─── the same, upsampled by 4/3 ────────────────────────────────────────────────────────────┘

Stages 4 and 5 have stride 1; their 3x3 convolutions have dilations 2 and 4 instead. A caffemodel of this net holds the
parameters three times, once for each size, under the names of the three branches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .text import Head, NetText

_DILATIONS = (6, 12, 18, 24)
#: suffix of the branch, interp_param that downsamples the image, interp_param that upsamples the scores
_BRANCHES = (
    ("", None, None),
    ("_res05", {"shrink_factor": 2}, {"zoom_factor": 2}),
    ("_res075", {"shrink_factor": 4, "zoom_factor": 3}, {"shrink_factor": 3, "zoom_factor": 4}),
)


@dataclass(frozen=True)
class _Stage:
    """The units of one resolution."""

    number: int
    units: tuple[str, ...]  # a, b1, b2, ...
    width: int
    stride: int
    dilation: int


_STAGES = (
    _Stage(2, ("a", "b", "c"), 64, 1, 1),
    _Stage(3, ("a", "b1", "b2", "b3"), 128, 2, 1),
    _Stage(4, ("a", *(f"b{index}" for index in range(1, 23))), 256, 1, 2),
    _Stage(5, ("a", "b", "c"), 512, 1, 4),
)


def write_resnet101(name: str, head: Head | None) -> str:
    """The three-branch net; 513 x 513 in and out."""
    net = NetText(name, "V2", 513)
    images = ["data"]
    for suffix, downsample, _ in _BRANCHES[1:]:
        assert downsample is not None
        images.append(net.add("Interp", f"data{suffix}", "data", interp_param=downsample))
    features = [_add_branch(net, image, suffix) for image, (suffix, _, _) in zip(images, _BRANCHES, strict=True)]
    if head is None:
        return str(net)
    scores = []
    for feature, (suffix, _, upsample) in zip(features, _BRANCHES, strict=True):
        score = _add_scores(net, feature, suffix, head)
        if upsample is not None:
            score = net.add("Interp", f"{score}_interp", score, interp_param=upsample)
        scores.append(score)
    own, half, larger = scores
    net.add("Eltwise", "fc_fusion", [own, larger, half], eltwise_param={"operation": "MAX"})
    net.add("Interp", "fc1_interp", "fc_fusion", interp_param={"zoom_factor": 8})
    return str(net)


def _add_branch(net: NetText, image: str, suffix: str) -> str:
    """conv1 to res5c at one image size; returns the top."""
    blob = _add_unit_convolution(net, ("conv1", "conv1"), image, suffix, 64, 7, pad=3, stride=2)
    net.add_relu(f"conv1_relu{suffix}", blob)
    blob = net.add_pooling(f"pool1{suffix}", blob, 3, 2)
    for stage, unit, stride in _units():
        blob = _add_unit(net, stage, unit, blob, suffix, stride)
    return blob


def _units() -> Iterator[tuple[_Stage, str, int]]:
    for stage in _STAGES:
        for unit in stage.units:
            yield stage, unit, stage.stride if unit == "a" else 1


def _add_unit(net: NetText, stage: _Stage, unit: str, bottom: str, suffix: str, stride: int) -> str:
    """A bottleneck: 1x1, dilated 3x3, 1x1, added to the bottom (in the first unit, to a 1x1 convolution of it)."""
    key = f"{stage.number}{unit}"

    def convolve(branch: str, blob: str, outputs: int, kernel: int, step: int = 1) -> str:
        dilation = stage.dilation if kernel == 3 else 1
        pad = dilation if kernel == 3 else 0
        names = (f"res{key}_branch{branch}", f"{key}_branch{branch}")
        return _add_unit_convolution(net, names, blob, suffix, outputs, kernel, pad=pad, stride=step, dilation=dilation)

    shortcut = convolve("1", bottom, 4 * stage.width, 1, stride) if unit == "a" else bottom
    blob = convolve("2a", bottom, stage.width, 1, stride)
    net.add_relu(f"res{key}_branch2a_relu{suffix}", blob)
    blob = convolve("2b", blob, stage.width, 3)
    net.add_relu(f"res{key}_branch2b_relu{suffix}", blob)
    blob = convolve("2c", blob, 4 * stage.width, 1)
    summed = net.add("Eltwise", f"res{key}{suffix}", [shortcut, blob])
    net.add_relu(f"res{key}_relu{suffix}", summed)
    return summed


def _add_unit_convolution(
    net: NetText,
    names: tuple[str, str],
    bottom: str,
    suffix: str,
    outputs: int,
    kernel: int,
    *,
    pad: int = 0,
    stride: int = 1,
    dilation: int = 1,
) -> str:
    """A convolution without bias, then in-place batch norm and scale; parameters are shared by unsuffixed names."""
    name, key = names
    norm = f"bn_{key}" if key == "conv1" else f"bn{key}"
    scale = f"scale_{key}" if key == "conv1" else f"scale{key}"
    shared = [f"{name}_0"]
    blob = net.add_convolution(
        f"{name}{suffix}", bottom, outputs, kernel, pad=pad, stride=stride, dilation=dilation, bias=False, shared=shared
    )
    shared = [f"{norm}_{index}" for index in range(3)]
    net.add("BatchNorm", f"{norm}{suffix}", blob, blob, shared=shared, batch_norm_param={"use_global_stats": True})
    shared = [f"{scale}_{index}" for index in range(2)]
    net.add("Scale", f"{scale}{suffix}", blob, blob, shared=shared, scale_param={"bias_term": True})
    return blob


def _add_scores(net: NetText, feature: str, suffix: str, head: Head) -> str:
    parts = []
    for index, dilation in enumerate(_DILATIONS):
        shared = [f"fc1_{head.experiment}_c{index}_{role}" for role in ("w", "b")]
        name = f"fc1_{head.experiment}{suffix}_c{index}"
        parts.append(net.add_convolution(name, feature, head.labels, 3, pad=dilation, dilation=dilation, shared=shared))
    return net.add("Eltwise", f"fc1_{head.experiment}{suffix}", parts, eltwise_param={"operation": "SUM"})
