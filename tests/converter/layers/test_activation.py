"""Pointwise layers against real Caffe, at extreme values, and in the forks' variants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from atrous.converter import export_onnx, read_net, to_torch
from atrous.converter.check.verify import verify_model
from atrous.errors import NetError

from .converting import Twin, assert_exports, assert_matches, assert_refused, net_text, random_array

RECORDED = [
    "absval",
    "bnll",
    "clip",
    "dropout-test",
    "dl1-dropout-eltwise",
    "elu-default",
    "exp-base2",
    "exp-default",
    "log-base2",
    "log-default",
    "power-full",
    "power-linear",
    "power-zero",
    "prelu-channel",
    "prelu-filler",
    "prelu-shared",
    "relu",
    "relu-slope",
    "relu-slope-negative",
    "sigmoid",
    "swish",
    "tanh",
    "threshold",
]

X = np.array([-200, -88, -6.5, -1, -1e-6, 0, 1e-6, 0.5, 3, 6.5, 88, 200], np.float32).reshape(1, 3, 2, 2)


def run(layer: str, x: np.ndarray = X) -> np.ndarray:
    return Twin(net_text(f'{layer} bottom: "x" top: "y"', x=x.shape)).run(x=x)["y"]


@pytest.mark.parametrize("case", RECORDED)
def test_recorded(goldens: Path, case: str) -> None:
    assert_matches(goldens, case)


def test_absval_does_not_run_in_place(goldens: Path) -> None:
    assert "in place" in assert_refused(goldens, "bad-absval-inplace")


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ('type: "ReLU"', lambda x: np.maximum(x, 0)),
        ('type: "ReLU" relu_param { negative_slope: 0.1 }', lambda x: np.where(x > 0, x, np.float32(0.1) * x)),
        ('type: "ReLU" relu_param { relu6: true }', lambda x: np.clip(x, 0, 6)),
        ('type: "ReLU6"', lambda x: np.clip(x, 0, 6)),
        (
            'type: "ReLU" relu_param { relu6: true negative_slope: 0.5 }',
            lambda x: np.minimum(np.where(x > 0, x, 0.5 * x), 6),
        ),
        ('type: "Clip" clip_param { min: -1 max: 2 }', lambda x: np.maximum(-1, np.minimum(x, 2))),
        ('type: "Clip" clip_param { min: 2 max: -1 }', lambda x: np.maximum(2, np.minimum(x, -1))),
        ('type: "Threshold"', lambda x: (x > 0).astype(np.float32)),
        ('type: "AbsVal"', np.abs),
        ('type: "BNLL"', lambda x: np.logaddexp(0, x)),
        ('type: "ELU" elu_param { alpha: 0.7 }', lambda x: np.where(x > 0, x, np.float32(0.7) * np.expm1(x))),
        ('type: "Sigmoid"', lambda x: 1 / (1 + np.exp(-x.astype(np.float64)))),
        ('type: "Swish" swish_param { beta: 2 }', lambda x: x / (1 + np.exp(-2 * x.astype(np.float64)))),
        ('type: "Power" power_param { power: 2 shift: -1 }', lambda x: (x - 1) ** 2),
        ('type: "Power" power_param { power: 3 scale: 0.1 }', lambda x: (x * np.float32(0.1)) ** 3),
        ('type: "Exp" exp_param { base: 2 scale: 0.1 shift: 1 }', lambda x: 2 ** (1 + 0.1 * x.astype(np.float64))),
        ('type: "Dropout" dropout_param { dropout_ratio: 0.75 scale_train: false }', lambda x: x * np.float32(0.25)),
    ],
)
def test_follows_its_formula(layer: str, expected) -> None:
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(run(layer), expected(X), rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("param", "value"),
    [("power: 0", 1), ("power: 0 shift: -2", 1), ("scale: 0 shift: 3 power: 2", 9), ("scale: 0 shift: 0 power: 0", 1)],
)
def test_power_ignores_what_it_does_not_need(param: str, value: float) -> None:
    x = np.array([[np.inf, -np.inf, 0, 2]], np.float32)
    assert (run(f'type: "Power" power_param {{ {param} }}', x) == value).all()


def test_power_of_a_negative_number_is_nan_as_in_caffe() -> None:
    y = run('type: "Power" power_param { power: 0.5 }', np.array([[-4.0, 4.0, 0.0]], np.float32))
    np.testing.assert_array_equal(y, [[np.nan, 2, 0]])


def test_log_of_zero_and_below() -> None:
    y = run('type: "Log" log_param { base: 10 }', np.array([[-1.0, 0.0, 1.0, 1000.0]], np.float32))
    np.testing.assert_allclose(y, [[np.nan, -np.inf, 0, 3]], rtol=1e-6)


@pytest.mark.parametrize("layer", ['type: "PReLU"', 'type: "PReLU" prelu_param { channel_shared: true }'])
@pytest.mark.parametrize("shape", [(2, 3), (1, 1), (2, 3, 5), (1, 3, 1, 1), (2, 3, 2, 5)])
def test_prelu_of_any_number_of_axes(layer: str, shape: tuple[int, ...]) -> None:
    slopes = np.array([-0.5], np.float32) if "shared" in layer else random_array(shape[1])
    blob = slopes.reshape(()) if "shared" in layer else slopes
    x = random_array(*shape, seed=1)
    y = Twin(net_text(f'{layer} bottom: "x" top: "y"', x=shape), {"y": [blob]}).run(x=x)["y"]
    np.testing.assert_allclose(y, np.where(x > 0, x, x * slopes.reshape(-1, *(1,) * (len(shape) - 2))), rtol=1e-6)


def test_prelu_starts_at_a_quarter() -> None:
    assert run('type: "PReLU"', -np.ones((1, 2), np.float32)).tolist() == [[-0.25, -0.25]]


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ('type: "Exp" exp_param { base: 0 }', "above 0"),
        ('type: "Exp" exp_param { base: -2 }', "above 0"),
        ('type: "Exp" exp_param { base: 10 shift: 100 }', "float32"),
        ('type: "Log" log_param { base: 1 }', "base 1"),
        ('type: "Log" log_param { base: -3 }', "above 0"),
        ('type: "Dropout" dropout_param { dropout_ratio: 1.5 sample_weights_test: true }', "dropout_ratio"),
    ],
)
def test_refuses(layer: str, words: str) -> None:
    with pytest.raises(NetError, match=words):
        run(layer)


def test_prelu_needs_channels() -> None:
    with pytest.raises(NetError, match="channel axis"):
        run('type: "PReLU"', np.ones(3, np.float32))


class TestSampledDropout:
    TEXT = net_text(
        'type: "Dropout" bottom: "x" top: "y" dropout_param { dropout_ratio: 0.25 sample_weights_test: true }',
        x=(1, 1, 100, 100),
    )

    def test_stays_random_at_test_time(self) -> None:
        module, x = to_torch(read_net(self.TEXT)), torch.ones(1, 1, 100, 100)
        torch.manual_seed(0)
        first, second = module(x), module(x)
        torch.manual_seed(0)
        assert torch.equal(first, module(x))
        assert not torch.equal(first, second)
        assert first.unique().tolist() == pytest.approx([0, 1 / 0.75])
        assert abs(float((first == 0).float().mean()) - 0.25) < 0.02

    def test_stays_random_in_onnx(self) -> None:
        net = read_net(self.TEXT)
        model = export_onnx(net, to_torch(net))
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        x = np.ones((1, 1, 100, 100), np.float32)
        first, second = (session.run(None, {"x": x})[0] for _ in range(2))
        assert not np.array_equal(first, second)
        assert np.unique(first).tolist() == pytest.approx([0, 1 / 0.75])
        assert abs(float((first == 0).mean()) - 0.25) < 0.02

    def test_layers_after_it_are_verified(self, tmp_path: Path) -> None:
        text = self.TEXT + 'layer { name: "z" type: "Power" bottom: "y" top: "z" power_param { scale: 3 shift: 1 } }'
        net = read_net(text)
        module = to_torch(net)
        export_onnx(net, module, tmp_path / "model.onnx")
        (report, *_) = verify_model(net, module, tmp_path / "model.onnx")
        assert report.passed
        assert [row.key for row in report.differences] == ["y:y", "z:z"]


def test_plain_dropout_leaves_no_arithmetic() -> None:
    twin = Twin(net_text('type: "Dropout" bottom: "x" top: "y" dropout_param { dropout_ratio: 0.7 }', x=(1, 4)))
    assert {node.op_type for node in twin.model.graph.node} == {"Identity"}


def test_exports_with_dynamic_sizes() -> None:
    types = ["ReLU", "ReLU6", "Sigmoid", "TanH", "ELU", "AbsVal", "BNLL", "Swish", "Threshold", "Exp", "PReLU"]
    layers = [f'layer {{ name: "{t}" type: "{t}" bottom: "b{i}" top: "b{i + 1}" }}' for i, t in enumerate(types)]
    twin = Twin(
        net_text('type: "Power" bottom: "x" top: "b0" power_param { shift: 1 scale: -2 }', x=(1, 2, 3, 4))
        + "\n".join(layers)
    )
    runs = [{"x": random_array(2, 2, 5, 6)}, {"x": random_array(1, 2, 1, 9)}]
    for arrays in runs:
        twin.run(**arrays)
    assert_exports(twin, (0, 2, 3), *runs)


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize("top", ["y", "x"])
def test_relu_with_a_mask(slope: float, top: str) -> None:
    """DecoupledNet's second top: 1 where x > 0; with a separate first top or in place."""
    layer = f'type: "ReLU" bottom: "x" top: "{top}" top: "m" relu_param {{ negative_slope: {slope} }}'
    tops = Twin(net_text(layer, x=X.shape)).run(x=X)
    np.testing.assert_allclose(tops[top], np.where(X > 0, X, np.float32(slope) * X), rtol=1e-6)
    np.testing.assert_array_equal(tops["m"], X > 0)


def test_relu6_has_no_mask() -> None:
    with pytest.raises(NetError, match="relu6 and a mask"):
        read_net(net_text('type: "ReLU" bottom: "x" top: "y" top: "m" relu_param { relu6: true }', x=X.shape))
