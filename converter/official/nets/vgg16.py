"""DeepLab's VGG-16 nets: v1 with its 4x4 or 3x3 `fc6`, with or without multi-scale paths, and v2's pyramid.

All have VGG-16's thirteen convolutions, with pool4 and pool5 of stride 1 and holes of 2 in conv5, so that scores come
at 1/8 of the image's size. They differ in what follows:

    4x4        fc6 of 4x4 with holes of 4, 4096 outputs; pools of 2x2, whose surplus border is cut off at the end
    largefov   fc6 of 3x3 with holes of 12, 1024 outputs, behind a 3x3 average; pools of 3x3, aligned at 8 k + 1
    msc        also classifies the image and the first four pools (128 outputs each), and sums the scores
    aspp       v2: four parallel fc6 with holes of 6, 12, 18 and 24, whose scores are summed

Without a head each ends at its last `fc7`, as the nets do that training starts from.
"""

from __future__ import annotations

from dataclasses import dataclass

from .text import Head, NetText

#: number and outputs of the convolutions before each pool
_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
_STRIDES = (2, 2, 2, 1, 1)
_ASPP_HOLES = (6, 12, 18, 24)
_PATH_OUTPUTS = 128
_OUTPUT_STRIDE = 8


@dataclass(frozen=True)
class _Classifier:
    """`fc6` and `fc7`."""

    outputs: int
    kernel: int
    pad: int
    hole: int


_FC_4X4 = _Classifier(outputs=4096, kernel=4, pad=6, hole=4)
_FC_LARGEFOV = _Classifier(outputs=1024, kernel=3, pad=12, hole=12)


def write_deeplab(name: str, head: Head | None) -> str:
    """DeepLab: 514 x 514 in and out; any 16 k + 2 comes back at its own size."""
    net = NetText(name, "V1", 514)
    fc7 = _add_classifier(net, _add_trunk(net, kernel=2)[-1], _FC_4X4)
    if head is not None:
        scores = _add_scores(net, fc7, head)
        enlarged = net.add("Interp", "fc8_interp", scores, interp_param={"zoom_factor": _OUTPUT_STRIDE})
        net.add("Padding", "fc8_crop", enlarged, padding_param={"pad_beg": -7, "pad_end": -8})
    return str(net)


def write_largefov(name: str, head: Head | None) -> str:
    """DeepLab-LargeFOV: 513 x 513 in and out; any 8 k + 1 comes back at its own size."""
    net = NetText(name, "V1", 513)
    fc7 = _add_largefov(net, _add_trunk(net)[-1])
    if head is not None:
        scores = _add_scores(net, fc7, head)
        net.add("Interp", "fc8_interp", scores, interp_param={"zoom_factor": _OUTPUT_STRIDE})
    return str(net)


def write_msc(name: str, head: Head | None) -> str:
    """DeepLab-MSc: the paths run at the full size of what they read; all scores are enlarged, then summed."""
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
    """DeepLab-MSc-LargeFOV: the paths' strides bring them to 1/8; the summed scores are enlarged once."""
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
    """DeepLab v2 on VGG-16: four fields of view in parallel."""
    net = NetText(name, "V2", 513)
    pool5 = _add_trunk(net)[-1]
    scores = []
    for branch, hole in enumerate(_ASPP_HOLES, start=1):
        fc7 = _add_classifier(net, pool5, _Classifier(1024, 3, hole, hole), suffix=f"_{branch}")
        if head is not None:
            scores.append(_add_scores(net, fc7, head, suffix=f"_{branch}"))
    if head is not None:
        summed = net.add("Eltwise", f"fc8_{head.experiment}", scores, eltwise_param={"operation": "SUM"})
        net.add("Interp", "fc8_interp", summed, interp_param={"zoom_factor": _OUTPUT_STRIDE})
    return str(net)


def _add_trunk(net: NetText, *, kernel: int = 3) -> list[str]:
    """conv1_1 to pool5; returns the pools. `kernel` is that of pool1 to pool4."""
    blob, pools = "data", []
    for block, ((count, outputs), stride) in enumerate(zip(_BLOCKS, _STRIDES, strict=True), start=1):
        hole = 2 if block == 5 else 1
        for index in range(1, count + 1):
            blob = net.add_convolution(f"conv{block}_{index}", blob, outputs, 3, pad=hole, hole=hole)
            net.add_relu(f"relu{block}_{index}", blob)
        blob = net.add_pooling(f"pool{block}", blob, 3 if block == 5 else kernel, stride)
        pools.append(blob)
    return pools


def _add_largefov(net: NetText, pool5: str) -> str:
    return _add_classifier(net, net.add_pooling("pool5a", pool5, 3, 1, "AVE"), _FC_LARGEFOV)


def _add_classifier(net: NetText, bottom: str, size: _Classifier, suffix: str = "") -> str:
    """fc6 and fc7, each with its ReLU and dropout; returns fc7."""
    fc6 = net.add_convolution(
        f"fc6{suffix}", bottom, size.outputs, size.kernel, pad=size.pad, hole=size.hole, strict_dim=False
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
    """A multi-scale path from a blob to class scores."""
    features = net.add_convolution(f"{blob}_conv", blob, _PATH_OUTPUTS, 3, pad=1, stride=stride)
    net.add_relu(f"relu_{blob}_conv", features)
    net.add_dropout(f"drop_{blob}_conv", features)
    features = net.add_convolution(f"{blob}_fc", features, _PATH_OUTPUTS, 1)
    net.add_relu(f"relu_{blob}_fc", features)
    net.add_dropout(f"drop_{blob}_fc", features)
    return net.add_convolution(f"{blob}_ms", features, head.labels, 1) if head is not None else features
