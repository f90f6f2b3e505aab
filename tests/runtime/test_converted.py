"""What the converter writes, the runtime reads: every head and backend gives the same scores and labels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from atrous import runtime

from .bundles import make_image

pytest.importorskip("torch", reason="the converter needs torch")

PROTOTXT = """
name: "small" input: "data" input_dim: 1 input_dim: 3 input_dim: 33 input_dim: 33
layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1"
  convolution_param { num_output: 6 pad: 1 kernel_size: 3 } }
layers { name: "relu1" type: RELU bottom: "conv1" top: "conv1" }
layers { name: "pool1" type: POOLING bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 pad: 1 } }
layers { name: "fc6" type: CONVOLUTION bottom: "pool1" top: "fc6"
  convolution_param { num_output: 4 pad: 4 hole: 4 kernel_size: 3 } }
layers { name: "up" type: INTERP bottom: "fc6" top: "up" interp_param { zoom_factor: 2 } }
"""
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def bundles_by_head(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same net as three bundles, one a head."""
    from atrous import converter
    from atrous.converter.bundle import BundleOptions, write_bundle

    folder = tmp_path_factory.mktemp("converted")
    (folder / "deploy.prototxt").write_text(PROTOTXT)
    net = converter.read_net(folder / "deploy.prototxt")
    random = np.random.default_rng(0)
    for layer in net.layers:
        for key, shape in zip(layer.parameters, layer.operator.weight_shapes(), strict=True):
            spread = math.sqrt(2 / max(1, math.prod(shape[1:])))
            net.parameters[key] = random.normal(0, spread, shape).astype(np.float32)
    for head in ("scores", "labels", "lowres"):
        write_bundle(net, folder / head, BundleOptions(head=head, verify=False))
    return {head: folder / head for head in ("scores", "labels", "lowres")}


@pytest.mark.parametrize("size", [(33, 33), (1, 1), (40, 51)])
def test_heads_and_backends_agree(bundles_by_head: dict[str, Path], size: tuple[int, int]) -> None:
    image = make_image(*size)
    reference = runtime.load(bundles_by_head["scores"], threads=1)
    scores = reference.scores(image)
    bound = TOLERANCE * max(1.0, float(np.abs(scores).max()))
    for head, path in bundles_by_head.items():
        runtime.read_bundle(path).verify_files()
        for backend in ("onnxruntime", "torch"):
            segmenter = runtime.load(path, backend, threads=1)
            if head != "labels":
                np.testing.assert_allclose(segmenter.scores(image), scores, rtol=0, atol=bound)
            # Where labels differ, the two best scores are as good as equal.
            labels = segmenter(image).astype(np.intp)[None]
            chosen = np.take_along_axis(scores, labels, axis=0)[0]
            assert (scores.max(axis=0) - chosen).max() <= 2 * bound
