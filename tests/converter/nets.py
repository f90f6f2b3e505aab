"""Small nets as text, and weights for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from atrous.converter import Net, read_net

Array = np.ndarray[Any, Any]


def quote(name: str) -> str:
    """A name as written in a prototxt, with protobuf's text escapes."""
    return '"' + "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else _escape(c) for c in name) + '"'


def _escape(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in character.encode())


def data(*shape: int, name: str = "data") -> str:
    dims = " ".join(f"dim: {size}" for size in shape)
    return f'layer {{ name: {quote(name)} type: "Input" top: {quote(name)} input_param {{ shape {{ {dims} }} }} }}\n'


def layer(kind: str, name: str, bottoms: str | Sequence[str], tops: str | Sequence[str], body: str = "") -> str:
    bottoms, tops = ([x] if isinstance(x, str) else x for x in (bottoms, tops))
    ends = " ".join([*(f"bottom: {quote(b)}" for b in bottoms), *(f"top: {quote(t)}" for t in tops)])
    return f'layer {{ name: {quote(name)} type: "{kind}" {ends} {body} }}\n'


def conv(name: str, bottom: str, top: str, outputs: int, kernel: int = 1, body: str = "", extra: str = "") -> str:
    param = f"convolution_param {{ num_output: {outputs} kernel_size: {kernel} {body} }} {extra}"
    return layer("Convolution", name, bottom, top, param)


def relu(name: str, bottom: str, top: str | None = None) -> str:
    return layer("ReLU", name, bottom, top or bottom)


def random_weights(net: Net, seed: int = 0, scale: float = 0.3) -> dict[str, list[Array]]:
    """Arrays for every layer with parameters; a net's own `read_net(..., weights=...)` takes them."""
    random = np.random.default_rng(seed)
    weights: dict[str, list[Array]] = {}
    for entry in net.layers:
        shapes = entry.operator.weight_shapes()
        if shapes and entry.name not in weights:
            weights[entry.name] = [(random.standard_normal(s) * scale).astype(np.float32) for s in shapes]
    return weights


def read_seeded(text: str, seed: int = 0, **options: Any) -> Net:
    """The net with random weights."""
    return read_net(text, random_weights(read_net(text, **options), seed), **options)


def random_input(net: Net, seed: int = 0, **shapes: Sequence[int]) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {
        blob.name: random.standard_normal(tuple(shapes.get(blob.name, blob.shape))).astype(np.float32)
        for blob in net.inputs
    }


def _v1(kind: str, name: str, bottom: str, top: str, body: str = "") -> str:
    return f'layers {{ name: "{name}" type: {kind} bottom: "{bottom}" top: "{top}" {body} }}\n'


def _v1_conv(name: str, bottom: str, outputs: int, kernel: int, hole: int = 1) -> str:
    pad = hole * (kernel - 1) // 2
    holes = f"hole: {hole}" if hole > 1 else ""
    body = f"convolution_param {{ num_output: {outputs} kernel_size: {kernel} pad: {pad} {holes} }}"
    return _v1("CONVOLUTION", name, bottom, name, body) + _v1("RELU", f"relu_{name}", name, name)


def _v1_pool(name: str, bottom: str, stride: int) -> str:
    return _v1("POOLING", name, bottom, name, f"pooling_param {{ pool: MAX kernel_size: 3 stride: {stride} pad: 1 }}")


CLASSES = 5
#: DeepLab-LargeFOV in small: V1, `hole`, three ceil pools, Interp x8; takes 8k + 1
DEEPLAB = (
    'name: "mini-deeplab"\ninput: "data"\ninput_dim: 1 input_dim: 3 input_dim: 41 input_dim: 49\n'
    + _v1_conv("conv1", "data", 6, 3)
    + _v1_pool("pool1", "conv1", 2)
    + _v1_conv("conv2", "pool1", 8, 3)
    + _v1_pool("pool2", "conv2", 2)
    + _v1_conv("conv3", "pool2", 8, 3, hole=2)
    + _v1_pool("pool3", "conv3", 2)
    + _v1_conv("fc6", "pool3", 8, 3, hole=3)
    + _v1("DROPOUT", "drop6", "fc6", "fc6", "dropout_param { dropout_ratio: 0.5 }")
    + _v1("CONVOLUTION", "fc8", "fc6", "fc8", f"convolution_param {{ num_output: {CLASSES} kernel_size: 1 }}")
    + _v1("INTERP", "fc8_interp", "fc8", "fc8_interp", "interp_param { zoom_factor: 8 }")
)
