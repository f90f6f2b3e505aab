"""A small converted DeepLab: one bundle per head."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

HEADS = ("scores", "labels", "lowres")
PROTOTXT = """
name: "small" input: "data" input_dim: 1 input_dim: 3 input_dim: 33 input_dim: 33
layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1"
  convolution_param { num_output: 6 pad: 1 kernel_size: 3 } }
layers { name: "relu1" type: RELU bottom: "conv1" top: "conv1" }
layers { name: "pool1" type: POOLING bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 pad: 1 } }
layers { name: "pool2" type: POOLING bottom: "pool1" top: "pool2"
  pooling_param { pool: AVE kernel_size: 3 stride: 1 pad: 1 } }
layers { name: "fc6" type: CONVOLUTION bottom: "pool2" top: "fc6"
  convolution_param { num_output: 4 pad: 4 hole: 4 kernel_size: 3 } }
layers { name: "up" type: INTERP bottom: "fc6" top: "up" interp_param { zoom_factor: 2 } }
"""


def write_converted(folder: Path) -> dict[str, Path]:
    """The net with random weights: head -> its bundle in `folder`."""
    from atrous import converter
    from atrous.converter.export.bundle import BundleOptions, write_bundle

    (folder / "deploy.prototxt").write_text(PROTOTXT)
    net = converter.read_net(folder / "deploy.prototxt")
    random = np.random.default_rng(0)
    for layer in net.layers:
        for key, shape in zip(layer.parameters, layer.operator.weight_shapes(), strict=True):
            spread = math.sqrt(2 / max(1, math.prod(shape[1:])))
            net.parameters[key] = random.normal(0, spread, shape).astype(np.float32)
    for head in HEADS:
        write_bundle(net, folder / head, BundleOptions(head=head, verify=False))
    return {head: folder / head for head in HEADS}
