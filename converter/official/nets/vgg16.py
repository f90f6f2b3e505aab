"""DeepLab's VGG-16 nets: v1 with a 4x4 or 3x3 `fc6`, with or without multi-scale paths, and v2 with its pyramid.

All have VGG-16's thirteen convolutions, with stride 1 in pool4 and pool5 and dilation 2 in conv5, so the scores have
1/8 of the image's size. They differ in the rest:

    4x4        4x4 fc6 with dilation 4, 4096 outputs; 2x2 pools, whose surplus border is cropped at the end
    largefov   3x3 fc6 with dilation 12, 1024 outputs, after a 3x3 average pool; 3x3 pools, aligned for sizes 8 k + 1
    msc        also classifies the image and the first four pools (128 outputs each), and sums the scores
    aspp       v2: four parallel fc6 with dilations 6, 12, 18 and 24, whose scores are summed

Without a head each ends at its last `fc7`, like the nets that training starts from.
"""

from __future__ import annotations

from dataclasses import dataclass

from .text import Head, NetText

#: number of convolutions before each pool, and their outputs
_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
_STRIDES = (2, 2, 2, 1, 1)
_ASPP_DILATIONS = (6, 12, 18, 24)
_PATH_OUTPUTS = 128
_OUTPUT_STRIDE = 8


@dataclass(frozen=True)
class _Classifier:
    """`fc6` and `fc7`."""

    outputs: int
    kernel: int
    pad: int
    dilation: int


_FC_4X4 = _Classifier(outputs=4096, kernel=4, pad=6, dilation=4)
_FC_LARGEFOV = _Classifier(outputs=1024, kernel=3, pad=12, dilation=12)


def write_deeplab(name: str, head: Head | None) -> str:
    """DeepLab at 514 x 514; outputs have the input's size for sizes 16 k + 2."""
    net = NetText(name, "V1", 514)
    fc7 = _add_classifier(net, _add_trunk(net, kernel=2)[-1], _FC_4X4)
    if head is not None:
        scores = _add_scores(net, fc7, head)
        upsampled = net.add("Interp", "fc8_interp", scores, interp_param={"zoom_factor": _OUTPUT_STRIDE})
        net.add("Padding", "fc8_crop", upsampled, padding_param={"pad_beg": -7, "pad_end": -8})
    return str(net)


def write_largefov(name: str, head: Head | None) -> str:
    """DeepLab-LargeFOV at 513 x 513; outputs have the input's size for sizes 8 k + 1."""
    net = NetText(name, "V1", 513)
    fc7 = _add_largefov(net, _add_trunk(net)[-1])
    if head is not None:
        scores = _add_scores(net, fc7, head)
        net.add("Interp", "fc8_interp", scores, interp_param={"zoom_factor": _OUTPUT_STRIDE})
    return str(net)


def write_msc(name: str, head: Head | None) -> str:
    """DeepLab-MSc: the paths have stride 1; all scores are upsampled, then summed."""
    net = NetText(name, "V1", 513)
    pools = _add_trunk(net)
    paths = [_add_path(net, blob, 1, head) for blob in ("data", *pools[:4])]
    fc7 = _add_classifier(net, pools[-1], _FC_4X4)
    if head is not None:
        scores = _add_scores(net, fc7, head)
        parts = [paths[0]]
        for blob, path, zoom in zip(pools, paths[1:], (2, 4, 8, 8), strict=False):
            parts.append(net.add("Interp", f"{blob}_interp", path, interp_param={"zoom_factor": zoom}))
        parts.append(net.add("Interp", "fc8_interp", scores, interp_param={"zoom_factor": _OUTPUT_STRIDE}))
        net.add("Eltwise", "fc_fusion", parts, eltwise_param={"operation": "SUM"})
    return str(net)


def write_msc_largefov(name: str, head: Head | None) -> str:
    """DeepLab-MSc-LargeFOV: the paths' strides lead to 1/8; the summed scores are upsampled once."""
    net = NetText(name, "V1", 513)
    pools = _add_trunk(net)
    strides = (8, 4, 2, 1, 1)
    paths = [_add_path(net, blob, stride, head) for blob, stride in zip(("data", *pools[:4]), strides, strict=True)]
    fc7 = _add_largefov(net, pools[-1])
    if head is not None:
        summed = [*paths, _add_scores(net, fc7, head)]
        net.add("Eltwise", "fc_fusion", summed, eltwise_param={"operation": "SUM"})
        net.add("Interp", "fc_interp", "fc_fusion", interp_param={"zoom_factor": _OUTPUT_STRIDE})
    return str(net)


def write_aspp(name: str, head: Head | None) -> str:
    """DeepLab v2 on VGG-16: four parallel fields of view."""
    net = NetText(name, "V2", 513)
    pool5 = _add_trunk(net)[-1]
    scores = []
    for branch, dilation in enumerate(_ASPP_DILATIONS, start=1):
        fc7 = _add_classifier(net, pool5, _Classifier(1024, 3, dilation, dilation), suffix=f"_{branch}")
        if head is not None:
            scores.append(_add_scores(net, fc7, head, suffix=f"_{branch}"))
    if head is not None:
        summed = net.add("Eltwise", f"fc8_{head.experiment}", scores, eltwise_param={"operation": "SUM"})
        net.add("Interp", "fc8_interp", summed, interp_param={"zoom_factor": _OUTPUT_STRIDE})
    return str(net)


def _add_trunk(net: NetText, *, kernel: int = 3) -> list[str]:
    """conv1_1 to pool5, with the given kernel in pool1 to pool4; returns the pools."""
    blob, pools = "data", []
    for block, ((count, outputs), stride) in enumerate(zip(_BLOCKS, _STRIDES, strict=True), start=1):
        dilation = 2 if block == 5 else 1
        for index in range(1, count + 1):
            blob = net.add_convolution(f"conv{block}_{index}", blob, outputs, 3, pad=dilation, dilation=dilation)
            net.add_relu(f"relu{block}_{index}", blob)
        blob = net.add_pooling(f"pool{block}", blob, 3 if block == 5 else kernel, stride)
        pools.append(blob)
    return pools


def _add_largefov(net: NetText, pool5: str) -> str:
    return _add_classifier(net, net.add_pooling("pool5a", pool5, 3, 1, "AVE"), _FC_LARGEFOV)


def _add_classifier(net: NetText, bottom: str, size: _Classifier, suffix: str = "") -> str:
    """fc6 and fc7, each with its ReLU and dropout; returns fc7."""
    fc6 = net.add_convolution(
        f"fc6{suffix}", bottom, size.outputs, size.kernel, pad=size.pad, dilation=size.dilation, strict_dim=False
    )
    net.add_relu(f"relu6{suffix}", fc6)
    net.add_dropout(f"drop6{suffix}", fc6)
    fc7 = net.add_convolution(f"fc7{suffix}", fc6, size.outputs, 1, strict_dim=False)
    net.add_relu(f"relu7{suffix}", fc7)
    net.add_dropout(f"drop7{suffix}", fc7)
    return fc7


def _add_scores(net: NetText, fc7: str, head: Head, suffix: str = "") -> str:
    return net.add_convolution(f"fc8_{head.experiment}{suffix}", fc7, head.labels, 1, strict_dim=False)


def _add_path(net: NetText, blob: str, stride: int, head: Head | None) -> str:
    """A multi-scale path from a blob to its class scores."""
    features = net.add_convolution(f"{blob}_conv", blob, _PATH_OUTPUTS, 3, pad=1, stride=stride)
    net.add_relu(f"relu_{blob}_conv", features)
    net.add_dropout(f"drop_{blob}_conv", features)
    features = net.add_convolution(f"{blob}_fc", features, _PATH_OUTPUTS, 1)
    net.add_relu(f"relu_{blob}_fc", features)
    net.add_dropout(f"drop_{blob}_fc", features)
    return net.add_convolution(f"{blob}_ms", features, head.labels, 1) if head is not None else features
