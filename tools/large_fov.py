"""DeepLab-LargeFOV with random weights: the full-size net, for speed measurements without a trained caffemodel.

The net is that of Chen et al., ICLR 2015, section 3.1 and table 4: VGG-16 whose pooling layers are 3x3, the last two
without stride, three convolutions at dilation 2, and fc6 as a 3x3 convolution of 1024 channels at dilation 12. Weights
are normal with variance 2 / fan-in (He et al., 2015), which keeps the scale of the blobs, also for half precision;
biases are 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from atrous.converter.graph.net import Net

LABELS = 21
CROP = 513
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
POOL_STRIDES = (2, 2, 2, 1, 1)
_DILATED_BLOCK = 5
_FC_CHANNELS, _FC6_DILATION = 1024, 12


def write_prototxt(labels: int = LABELS, size: tuple[int, int] = (CROP, CROP)) -> str:
    """The prototxt for an input of (height, width), in the dialect of DeepLab's own Caffe."""
    shape = f"input_dim: 1 input_dim: 3 input_dim: {size[0]} input_dim: {size[1]}"
    parts = [f'name: "DeepLab-LargeFOV"\ninput: "data"\n{shape}\n']
    bottom = "data"
    for number, (channels, stride) in enumerate(zip(BLOCKS, POOL_STRIDES, strict=True), start=1):
        for index, outputs in enumerate(channels, start=1):
            dilation = 2 if number == _DILATED_BLOCK else 1
            parts.append(_write_convolution(name := f"conv{number}_{index}", bottom, outputs, 3, dilation))
            bottom = name
        parts.append(_write_pooling(name := f"pool{number}", bottom, "MAX", stride))
        bottom = name
    parts.append(_write_pooling("pool5a", bottom, "AVE", 1))
    parts.append(_write_convolution("fc6", "pool5a", _FC_CHANNELS, 3, _FC6_DILATION))
    parts.append(_write_convolution("fc7", "fc6", _FC_CHANNELS, 1, 1))
    parts.append(_write_convolution("fc8", "fc7", labels, 1, 1, relu=False))
    parts.append(_write_layer("INTERP", "fc8_interp", "fc8", "interp_param { zoom_factor: 8 }"))
    return "".join(parts)


def read_large_fov(
    seed: int = 0, *, labels: int = LABELS, score_gain: float = 1.0, size: tuple[int, int] = (CROP, CROP)
) -> Net:
    """The net for an input of (height, width), with weights from a seed.

    `score_gain` scales the weights of fc8 and so the scores.
    """
    from atrous.converter import read_net

    text = write_prototxt(labels, size)
    random = np.random.default_rng(seed)
    weights = {}
    for layer in read_net(text).layers:
        shapes = layer.operator.weight_shapes()
        if shapes:
            kernel = tuple(shapes[0])
            spread = np.sqrt(2.0 / np.prod(kernel[1:])) * (score_gain if layer.name == "fc8" else 1.0)
            weights[layer.name] = [
                random.standard_normal(kernel, dtype=np.float32) * np.float32(spread),
                *(np.zeros(tuple(shape), np.float32) for shape in shapes[1:]),
            ]
    return read_net(text, weights)


def _write_convolution(name: str, bottom: str, outputs: int, kernel: int, dilation: int, *, relu: bool = True) -> str:
    pad, hole = dilation * (kernel - 1) // 2, f" hole: {dilation}" if dilation > 1 else ""
    body = f"convolution_param {{ num_output: {outputs} kernel_size: {kernel} pad: {pad}{hole} }}"
    activation = _write_layer("RELU", f"relu_{name}", name, top=name) if relu else ""
    return _write_layer("CONVOLUTION", name, bottom, body) + activation


def _write_pooling(name: str, bottom: str, kind: str, stride: int) -> str:
    body = f"pooling_param {{ pool: {kind} kernel_size: 3 stride: {stride} pad: 1 }}"
    return _write_layer("POOLING", name, bottom, body)


def _write_layer(kind: str, name: str, bottom: str, body: str = "", top: str = "") -> str:
    return f'layers {{ name: "{name}" type: {kind} bottom: "{bottom}" top: "{top or name}" {body} }}\n'
