"""What the converter writes is what every TensorRT line can build: all heads, free and fixed sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atrous.runtime.backends.tensorrt.capabilities import LINES
from atrous.runtime.backends.tensorrt.onnx_reader import read_graph
from atrous.runtime.backends.tensorrt.options import BuildOptions, static_profile
from atrous.runtime.backends.tensorrt.plan import plan_build
from atrous.runtime.backends.tensorrt.preflight import check_graph

pytest.importorskip("torch", reason="the converter needs torch")

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


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The deploy graph of one net by head."""
    from atrous import converter
    from atrous.converter.bundle import BundleOptions, write_bundle

    folder: Path = tmp_path_factory.mktemp("converted")
    (folder / "deploy.prototxt").write_text(PROTOTXT)
    net = converter.read_net(folder / "deploy.prototxt")
    for layer in net.layers:
        for key, shape in zip(layer.parameters, layer.operator.weight_shapes(), strict=True):
            net.parameters[key] = np.zeros(shape, np.float32)
    for head in ("scores", "labels", "lowres"):
        write_bundle(net, folder / head, BundleOptions(head=head, verify=False))
    return {head: (folder / head / "deploy.onnx").read_bytes() for head in ("scores", "labels", "lowres")}


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("head", ["scores", "labels", "lowres"])
def test_every_head_on_every_line(models: dict[str, bytes], head: str, line: str) -> None:
    graph = read_graph(models[head])
    warnings = ["ArgMax is slow in TensorRT"] if head == "labels" else []
    assert [finding.problem for finding in check_graph(graph, LINES[line])] == warnings
    assert graph.inputs["image"][0] == "uint8"
    plan = plan_build(BuildOptions((static_profile({"image": (1, 33, 49, 3)}),)), LINES[line], graph)
    assert plan.precision == "fp32"
