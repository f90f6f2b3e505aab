"""BatchNorm and both layers called BN: against real Caffe, against numpy, and the choice between the two BN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.converter import export_onnx, read_net, to_torch
from atrous.errors import NetError

from .converting import Twin, assert_exports, assert_matches, net_text, random_array

RECORDED = [
    "bn-2d",
    "bn-eps",
    "bn-factor0",
    "bn-factor1",
    "bn-factor999",
    "bn-scale-inplace",
    "dl2-bn-scale",
    "psp-bn",
    "psp-bn-inplace",
    "seg-bn-inference",
    "seg-bn-learn",
]


@pytest.mark.parametrize("case", RECORDED)
def test_recorded(goldens: Path, case: str) -> None:
    assert_matches(goldens, case)


def positive(*shape: int) -> np.ndarray[Any, Any]:
    return np.abs(random_array(*shape, seed=9)) + 0.5


def columns(values: np.ndarray[Any, Any], axes: int) -> np.ndarray[Any, Any]:
    return values.astype(np.float64).reshape(-1, *(1,) * (axes - 2))


@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 3, 2)])
@pytest.mark.parametrize("factor", [0.0, 1.0, 999.98])
def test_global_statistics(shape: tuple[int, ...], factor: float) -> None:
    """Stored sums over the factor; a factor of 0 leaves x / sqrt(eps)."""
    x, mean, variance = random_array(*shape), random_array(shape[1], seed=1), positive(shape[1])
    twin = Twin(
        net_text('type: "BatchNorm" bottom: "x" top: "y"', x=shape), {"y": [mean, variance, np.float32([factor])]}
    )
    (y,) = twin.run(x=x).values()
    inverse = 1 / np.float64(np.float32(factor)) if factor else 0.0
    deviation = np.sqrt(columns(variance, len(shape)) * inverse + 1e-5)
    np.testing.assert_allclose(y, (x - columns(mean, len(shape)) * inverse) / deviation, rtol=1e-4, atol=1e-4)
    assert [node.op_type for node in twin.model.graph.node] == ["BatchNormalization"]


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize(
    "layer", ["batch_norm_param { use_global_stats: false eps: 0.01 }", "batch_norm_param { eps: 0.01 } phase: TRAIN"]
)
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (2, 3, 4, 5)])
def test_statistics_of_the_batch(shape: tuple[int, ...], layer: str, opset: int) -> None:
    x = random_array(*shape) * 3 + 5
    (y,) = Twin(net_text(f'type: "BatchNorm" bottom: "x" top: "y" {layer}', x=shape), opset=opset).run(x=x).values()
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + 0.01)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_own_scale_and_bias_of_nvcaffe() -> None:
    """Five blobs: unscaled statistics, an unused third blob, and an eps of at least 1e-5."""
    blobs = [random_array(3), positive(3), np.float32([7]), random_array(3, seed=2), random_array(3, seed=3)]
    layer = 'type: "BatchNorm" bottom: "x" top: "y" batch_norm_param { scale_bias: true eps: 1e-9 }'
    x = random_array(2, 3, 4, 5)
    (y,) = Twin(net_text(layer, x=x.shape), {"y": blobs}).run(x=x).values()
    mean, variance, _, scale, bias = (columns(blob, 4) for blob in blobs)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5) * scale + bias, rtol=1e-5, atol=1e-5)
    blobs[2] = np.float32([1])  # as NVCaffe writes it
    unmarked = Twin(net_text(layer.replace("scale_bias: true ", ""), x=x.shape), {"y": blobs}).run(x=x)["y"]
    assert np.array_equal(unmarked, y)


@pytest.mark.parametrize("shape", [(5,), (1, 2, 1, 1, 1, 1)])
def test_shapes_without_a_torch_class_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(NetError, match="2 to 5 axes"):
        read_net(net_text('type: "BatchNorm" bottom: "x" top: "y"', x=shape))


def bn(param: str, blobs: int | None = None, dialect: str | None = None) -> int:
    weights = None if blobs is None else {"y": [positive(1, 3, 1, 1)] * blobs}
    net = read_net(
        net_text(f'type: "BN" bottom: "x" top: "y" bn_param {{ {param} }}', x=(2, 3, 4, 5)), weights, dialect=dialect
    )
    return len(net.layers[0].operator.weight_shapes())


@pytest.mark.parametrize(
    ("param", "blobs", "dialect", "wanted"),
    [
        ("", 2, None, 2),
        ("", 4, None, 4),
        ("bn_mode: INFERENCE", None, None, 2),
        ("frozen: true", None, None, 4),
        ("", None, "segnet", 2),
        ("", None, "pspnet", 4),
        ("frozen: true", None, "segnet", 4),
    ],
)
def test_blobs_then_fields_then_dialect_tell_the_two_bn_apart(
    param: str, blobs: int | None, dialect: str | None, wanted: int
) -> None:
    assert bn(param, blobs, dialect) == wanted


@pytest.mark.parametrize(
    ("param", "blobs", "words"),
    [
        ("bn_mode: LEARN", 4, "4 blob"),
        ("frozen: true", 2, "2 blob"),
        ("", 3, "3 blob"),
        ("bn_mode: LEARN frozen: true", None, "or the dialect segnet or pspnet"),
        ("", None, "or the dialect segnet or pspnet"),
    ],
)
def test_a_bn_of_neither_kind_is_refused(param: str, blobs: int | None, words: str) -> None:
    with pytest.raises(NetError, match=words):
        bn(param, blobs, "bvlc")


@pytest.mark.parametrize("frozen", [False, True])
def test_pspnets_bn_in_training(frozen: bool) -> None:
    x = random_array(3, 2, 4, 5)
    blobs = [random_array(1, 2, 1, 1, seed=seed) for seed in (1, 2, 3)] + [positive(1, 2, 1, 1)]
    body = f"bn_param {{ eps: 0.25 frozen: {str(frozen).lower()} }}"
    text = net_text(f'type: "BN" bottom: "x" top: "y" phase: TRAIN {body}', x=x.shape)
    mean, variance = blobs[2:] if frozen else (x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True))
    wanted = blobs[0] * (x - mean) / np.sqrt(variance + 0.25) + blobs[1]
    np.testing.assert_allclose(Twin(text, {"y": blobs}, dialect="pspnet").run(1e-5, x=x)["y"], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("net_phase", "own", "of_batch"),
    [("TEST", "", False), ("TRAIN", "", True), ("TRAIN", "phase: TEST", False), ("TEST", "phase: TRAIN", True)],
)
def test_the_phase_decides_whose_statistics(net_phase: str, own: str, of_batch: bool) -> None:
    """A layer's phase overrides the net's; use_global_stats overrides both."""
    for said, expected in (("", of_batch), ("use_global_stats: true", False), ("use_global_stats: false", True)):
        layer = f'type: "BatchNorm" bottom: "x" top: "y" {own} batch_norm_param {{ {said} }}'
        (found,) = read_net(net_text(layer, x=(2, 3, 4, 4)), phase=net_phase).layers
        assert (found.operator.module_spec().class_name == "BatchStatisticsNorm") is expected


def test_learning_bn_gives_its_statistics_too() -> None:
    text = net_text(
        'type: "BN" bottom: "x" top: "y" top: "mean" top: "variance" bn_param { bn_mode: LEARN }', x=(2, 3, 4, 5)
    )
    x = random_array(2, 3, 4, 5)
    blobs = Twin(text, {"y": [positive(1, 3, 1, 1), random_array(1, 3, 1, 1)]}).run(x=x)
    np.testing.assert_allclose(blobs["mean"], x.mean((0, 2, 3), keepdims=True), atol=1e-6)
    np.testing.assert_allclose(blobs["variance"], x.var((0, 2, 3), keepdims=True), atol=1e-6)
    with pytest.raises(NetError, match="LEARN"):
        read_net(text.replace("LEARN", "INFERENCE"))


def test_a_constant_channel_gives_the_shift() -> None:
    """E[x^2] - E[x]^2 would round to a negative variance here."""
    text = net_text('type: "BN" bottom: "x" top: "y" bn_param { bn_mode: LEARN }', x=(1, 1, 7, 9))
    y = Twin(text, {"y": [np.float32([[[[2]]]]), np.float32([[[[-3]]]])]}).run(x=np.full((1, 1, 7, 9), 1234.567))["y"]
    np.testing.assert_allclose(y, -3, atol=1e-2)


def test_any_size_and_torch_export() -> None:
    for layer, blobs in (
        ('type: "BatchNorm"', [random_array(3), positive(3), np.float32([1])]),
        (
            'type: "BatchNorm" batch_norm_param { use_global_stats: false }',
            [random_array(3), positive(3), np.float32([1])],
        ),
        ('type: "BN" bn_param { bn_mode: LEARN }', [positive(1, 3, 1, 1), random_array(1, 3, 1, 1)]),
        ('type: "BN" bn_param { frozen: true }', [positive(1, 3, 1, 1)] * 4),
    ):
        twin = Twin(net_text(f'{layer} bottom: "x" top: "y"', x=(2, 3, 8, 9)), {"y": blobs})
        runs = [{"x": random_array(n, 3, h, w)} for n, h, w in ((2, 8, 9), (3, 5, 4), (4, 2, 11))]
        for run in runs:
            twin.run(**run)
        assert_exports(twin, (0, 2, 3), *runs)


def test_weights_load_the_same_twice(tmp_path: Path) -> None:
    """Every tensor of a module is set, so equal nets are saved as equal files."""
    text = net_text('type: "BN" bottom: "x" top: "y" bn_param { frozen: true }', x=(1, 3, 4, 4))
    states = [to_torch(read_net(text, {"y": [positive(1, 3, 1, 1)] * 4})).state_dict() for _ in range(2)]
    assert all((states[0][key] == states[1][key]).all() for key in states[0])
    assert states[0]["y.num_batches_tracked"] == 0


def test_the_model_says_eps_in_full(tmp_path: Path) -> None:
    text = net_text('type: "BatchNorm" bottom: "x" top: "y" batch_norm_param { eps: 0.25 }', x=(1, 3, 4, 4))
    net = read_net(text, {"y": [random_array(3), positive(3), np.float32([1])]})
    (node,) = export_onnx(net, to_torch(net)).graph.node
    assert {attribute.name: attribute.f for attribute in node.attribute}["epsilon"] == 0.25


@pytest.mark.parametrize(("dialect", "warns"), [("deeplab_v2", True), ("pspnet", True), ("bvlc", False)])
@pytest.mark.parametrize("param", ["use_global_stats: false", ""])
def test_deeplab_never_computes_the_variance_of_the_batch(dialect: str, warns: bool, param: str) -> None:
    text = net_text(f'type: "BatchNorm" bottom: "x" top: "y" batch_norm_param {{ {param} }}', x=(2, 3, 4, 5))
    net = read_net(text, dialect=dialect)
    assert any("number of passes" in warning for warning in net.warnings) is (warns and bool(param))


@pytest.mark.parametrize(("kind", "form"), [("ELU", ["Mul", "Add"]), ("ReLU", ["BatchNormalization"])])
def test_form_after_an_activation(kind: str, form: list[str]) -> None:
    """OpenCV 5 would merge the BatchNormalization after ELU, Sigmoid and TanH with a convolution before them."""
    text = net_text(f'type: "{kind}" bottom: "x" top: "a"', x=(2, 3, 4, 5))
    text += 'layer { name: "n" type: "BatchNorm" bottom: "a" top: "y" batch_norm_param { eps: 0.01 } }'
    weights = {"n": [random_array(3), np.abs(random_array(3)), np.float32([2])]}
    twin = Twin(text, weights)
    twin.run(x=random_array(2, 3, 4, 5))
    assert [node.op_type for node in twin.model.graph.node][1:] == form
