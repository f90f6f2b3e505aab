from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from atrous.runtime import read_bundle
from atrous.runtime.backends.onnxruntime import OnnxRuntimeBackend
from atrous.runtime.benchmark import roofline
from atrous.runtime.benchmark.model_cost import count_model_cost
from atrous.runtime.benchmark.results import ModelCost
from atrous.runtime.benchmark.roofline import PRODUCT, measure_cpu_rooflines
from atrous.runtime.benchmark.timing import Clock

from ..bundles import write_bundle


def test_the_model_of_the_peak_is_a_matrix_product() -> None:
    onnx.checker.check_model(onnx.load_from_string(PRODUCT), full_check=True)
    a, b = np.random.default_rng(0).random((2, 5, 5), np.float32)
    found = OnnxRuntimeBackend(PRODUCT, threads=1).run({"a": a, "b": b})["y"]
    np.testing.assert_allclose(found, a @ b, rtol=1e-5)


def test_a_network_stands_below_the_lower_of_two_limits() -> None:
    cost = ModelCost(flops=2e9, weight_bytes=1e6, activation_bytes=9e6)
    (found,) = measure_cpu_rooflines(Clock(), threads=1, model=cost, compute_ms=[1000.0], side=64)
    assert found.peak_gflops > 0
    assert found.bandwidth_gb_s > 0
    assert found.achieved_gflops == pytest.approx(2)
    assert found.attainable_gflops == pytest.approx(min(found.peak_gflops, 200 * found.bandwidth_gb_s), rel=1e-3)
    assert found.share == pytest.approx(2 / found.attainable_gflops, rel=1e-2)


@pytest.mark.parametrize(
    ("peaks", "measured", "share"), [([10.0], 1, 0.8), ([4.0, 10.0], 2, 0.8), ([4.0, 5.0, 6.0], 3, None)]
)
def test_a_share_above_100_percent_is_measured_again_then_withheld(
    monkeypatch: pytest.MonkeyPatch, peaks: list[float], measured: int, share: float | None
) -> None:
    """8 GFLOP/s below a peak that the machine reaches only when it is idle."""
    left = iter(peaks)
    monkeypatch.setattr(roofline, "measure_peak_gflops", lambda *_: next(left))
    monkeypatch.setattr(roofline, "measure_bandwidth_gb_s", lambda *_: 1000.0)
    cost = ModelCost(flops=8e8, weight_bytes=1e6, activation_bytes=9e6)
    found, unknown = measure_cpu_rooflines(Clock(), threads=1, model=cost, compute_ms=[100.0, None])
    assert len(peaks) - len(list(left)) == measured
    assert found.share == share
    assert found.achieved_gflops == 8
    assert ("133% of the measured limits" in (found.reason or "")) == (share is None)
    assert (unknown.achieved_gflops, unknown.share, unknown.reason) == (None, None, None)


def make_net(height: str | int = "height", width: str | int = "width") -> bytes:
    """conv 3 -> 8 by 3x3 stride 2, pool 2x2, transposed conv 8 -> 4 by 2x2 stride 2 in two groups."""
    weights = {
        "w1": np.zeros((8, 3, 3, 3), np.float32),
        "b1": np.zeros(8, np.float32),
        "w2": np.zeros((8, 2, 2, 2), np.float32),
        "unused": np.zeros(1000, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["data", "w1", "b1"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("ConvTranspose", ["p", "w2"], ["t"], strides=[2, 2], group=2),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", 3, height, width])],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, ["n", 4, "h", "w"])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def test_operations_and_bytes_are_those_counted_by_hand(tmp_path: Path) -> None:
    rule = {"minimum": [1, 1], "multiple": 8, "offset": 0}
    preprocessing = {"color_order": "BGR", "mean": [0.0, 0.0, 0.0], "scale": 1.0, "size_rule": rule}
    bundle = read_bundle(write_bundle(tmp_path / "b", contents={"model.onnx": make_net()}, preprocessing=preprocessing))
    cost = count_model_cost(bundle, 15, 30)  # padded to 16 x 32; conv gives 8 x 16, pool 4 x 8, transposed conv 8 x 16
    assert cost is not None
    convolution = 2 * (8 * 8 * 16) * (3 * 9)
    transposed = 2 * (8 * 4 * 8) * (2 * 4)  # every one of 8 x 4 x 8 inputs goes to 2 channels of its group by 2 x 2
    assert cost.flops == convolution + transposed
    assert cost.weight_bytes == 4 * (8 * 27 + 8 + 64)
    blobs = (3 * 16 * 32 + 8 * 8 * 16) + (8 * 8 * 16 + 8 * 4 * 8) + (8 * 4 * 8 + 4 * 8 * 16)
    assert cost.activation_bytes == 4 * blobs
    assert cost.intensity == cost.flops / (cost.weight_bytes + cost.activation_bytes)


def test_a_bundle_without_the_faithful_model_has_no_cost(tmp_path: Path) -> None:
    assert count_model_cost(read_bundle(write_bundle(tmp_path / "b")), 16, 32) is None
