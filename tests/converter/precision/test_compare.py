"""The comparison inside one graph, against two graphs run apart and compared in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from atrous.converter.check.compare import measure_difference
from atrous.converter.precision.cast import cast_graph
from atrous.converter.precision.compare import Comparison, emulate
from atrous.converter.precision.float_types import BFLOAT16, FLOAT16, FloatType
from atrous.converter.precision.graph import fold_norms, list_blobs

from .graphs import NORMED, change_weight, make_deploy, make_image, run, weights_of


@pytest.mark.parametrize("kind", [FLOAT16, BFLOAT16], ids=lambda kind: kind.name)
def test_numbers_are_those_of_two_runs(kind: FloatType) -> None:
    model, images = make_deploy(), [make_image(41, 49, 1), make_image(30, 70, 2)]
    variant = emulate(cast_graph(model, kind).model)
    comparison = Comparison(model, variant, threads=1)
    heads = [comparison.run(image) for image in images]
    names = list(comparison.rows)
    assert set(names) == set(list_blobs(model))
    ours = [run(model, image, names) for image in images]
    theirs = [run(variant, image, names) for image in images]
    for place, (name, row) in enumerate(comparison.rows.items()):
        pairs = [(a[place].astype(np.float64), b[place].astype(np.float64)) for a, b in zip(ours, theirs, strict=True)]
        assert row.error == pytest.approx(max(measure_difference(b, a) for a, b in pairs), rel=1e-3, abs=1e-9), name
        noise = math.sqrt(sum(((a - b) ** 2).sum() for a, b in pairs) / sum((a**2).sum() for a, _ in pairs))
        assert row.noise == pytest.approx(noise, rel=1e-2, abs=1e-7), name
    np.testing.assert_allclose(heads[0][1], theirs[0][names.index("scores")], rtol=1e-6)


def test_the_layer_that_adds_the_noise_is_named() -> None:
    model, image = make_deploy(), make_image()
    spoiled = change_weight(model, "conv3.weight", weights_of(model)["conv3.weight"] * np.float32(1.05))
    comparison = Comparison(model, spoiled, threads=1)
    comparison.run(image)
    worst = max(comparison.rows.values(), key=lambda row: row.step)
    assert worst.layer == "conv3"
    assert comparison.rows["pool1"].noise == 0
    assert comparison.rows["conv3:conv3"].feeds == ("pool2",)


def test_values_that_are_not_finite_have_infinite_error() -> None:
    model, image = make_deploy(), make_image()
    spoiled = change_weight(model, "conv3.weight", np.full_like(weights_of(model)["conv3.weight"], 3e38))
    comparison = Comparison(model, spoiled, threads=1)
    comparison.run(image)
    row = comparison.rows["conv3:conv3"]
    assert (row.error, row.noise) == (math.inf, math.inf)
    assert row.to_json()["error"] == "inf"


def test_folding_keeps_what_is_computed() -> None:
    """BatchNorm and Scale behind a convolution disappear, also those that a sum or two layers read."""
    model, image = make_deploy(NORMED), make_image(32, 32)
    folded = fold_norms(model)
    kinds = [node.op_type for node in folded.graph.node]
    assert "BatchNormalization" not in kinds
    assert kinds.count("Conv") == 3
    names = ["scale1:scale1" if "scale1:scale1" in list_blobs(model) else "scale1", "bn2", "scores"]
    for ours, theirs in zip(run(model, image, names), run(folded, image, names), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=2e-5 * np.abs(ours).max())
    assert fold_norms(make_deploy()) == make_deploy()  # nothing to fold


def test_folding_into_an_output_keeps_its_name() -> None:
    """conv -> BatchNormalization -> Mul -> output, in a graph of one image input."""
    random = np.random.default_rng(0)
    parameters = {name: random.uniform(0.5, 2, 4).astype(np.float32) for name in ("scale", "shift", "mean", "variance")}
    parameters["factor"] = random.standard_normal((4, 1, 1)).astype(np.float32)
    parameters["weight"] = random.standard_normal((4, 3, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "weight"], ["a"], name="conv/Conv/node"),
            helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["b"], name="bn"),
            helper.make_node("Mul", ["b", "factor"], ["scores"], name="mul"),
        ],
        "folded",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 5, 7])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 4, 5, 7])],
        [numpy_helper.from_array(array, name) for name, array in parameters.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folded = fold_norms(model)
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    assert len(folded.graph.initializer) == 2
    assert folded.graph.output == model.graph.output
    image = random.standard_normal((3, 5, 7)).astype(np.float32)
    np.testing.assert_allclose(run(folded, image)[0], run(model, image)[0], atol=1e-5)


def test_a_convolution_that_others_read_is_not_folded() -> None:
    text = NORMED.replace('bottom: "bn2" bottom: "scale1"', 'bottom: "bn2" bottom: "conv2"')
    assert 'bottom: "conv2"' in text
    kinds = [node.op_type for node in fold_norms(make_deploy(text)).graph.node]
    assert kinds.count("BatchNormalization") == 1
