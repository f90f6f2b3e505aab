"""Scale and Bias, with one bottom and with two: against real Caffe, and against numpy over every axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.converter import read_net, to_torch
from atrous.errors import NetError

from .converting import Twin, assert_exports, assert_matches, assert_refused, net_text, random_array

RECORDED = [
    "bias-default",
    "bias-two-bottoms",
    "graph-inplace-scale-two-bottoms",
    "scale-axis0",
    "scale-axis2-num2",
    "scale-bias",
    "scale-nobias",
    "scale-scalar",
    "scale-two-bottoms",
    "scale-two-bottoms-same",
    "scale-two-bottoms-scalar",
]


@pytest.mark.parametrize("case", RECORDED)
def test_recorded(goldens: Path, case: str) -> None:
    assert_matches(goldens, case)


def test_refused_as_by_caffe(goldens: Path) -> None:
    assert "does not equal" in assert_refused(goldens, "bad-scale-shape")


@settings(max_examples=15, deadline=None, derandomize=True)
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple), data=st.data())
def test_any_axes(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    number = data.draw(st.integers(-1, len(shape) - axis))
    from_bottom, biased = data.draw(st.booleans()), data.draw(st.booleans())
    operand = shape[axis:] if number == -1 else shape[axis : axis + number]
    x, factor, bias = random_array(*shape), random_array(*operand, seed=1), random_array(*operand, seed=2)
    spread = (..., *(None,) * (len(shape) - axis - len(operand)))
    param = f"axis: {axis - len(shape)} num_axes: {number}"
    kind = data.draw(st.sampled_from(["Scale", "Bias"]))
    expected = x * factor[spread] if kind == "Scale" else x + factor[spread]
    blobs = [] if from_bottom else [factor]
    if kind == "Scale" and biased:
        param += " bias_term: true"
        expected = expected + bias[spread]
        blobs.append(bias)
    layer = f'type: "{kind}" bottom: "x" {{}} top: "y" {kind.lower()}_param {{{{ {param} }}}}'
    weights = {"y": blobs} if blobs else None
    if from_bottom:
        twin = Twin(net_text(layer.format('bottom: "f"'), x=shape, f=operand), weights)
        y = twin.run(x=x, f=factor)["y"]
    else:
        y = Twin(net_text(layer.format(""), x=shape), weights).run(x=x)["y"]
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("param", "shapes", "words"),
    [
        ("scale_param { axis: 4 }", {"x": (2, 3)}, "out of range"),
        ("scale_param { num_axes: 2 }", {"x": (2, 3)}, "num_axes 2"),
        ("scale_param { num_axes: -2 }", {"x": (2, 3)}, "num_axes -2"),
        ('bottom: "f" scale_param { axis: 1 }', {"x": (2, 3), "f": (3, 2)}, "does not equal"),
        ('bottom: "f" scale_param { axis: 0 }', {"x": (2, 3), "f": (2, 3, 1)}, "does not equal"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(param: str, shapes: dict[str, Any], words: str) -> None:
    with pytest.raises(NetError, match=words):
        read_net(net_text(f'type: "Scale" bottom: "x" {param} top: "y"', **shapes))


def test_without_weights_the_fillers_apply() -> None:
    x = random_array(1, 2, 3, 4)
    plain = Twin(net_text('type: "Scale" bottom: "x" top: "y" scale_param { bias_term: true }', x=x.shape))
    np.testing.assert_array_equal(plain.run(x=x)["y"], x)
    filled = "scale_param { filler { value: 3 } bias_term: true bias_filler { value: -1 } }"
    twin = Twin(net_text(f'type: "Scale" bottom: "x" top: "y" {filled}', x=x.shape))
    np.testing.assert_array_equal(twin.run(x=x)["y"], x * 3 - 1)


def test_any_size_and_torch_export() -> None:
    runs = [{"x": random_array(n, 3, h, w)} for n, h, w in ((2, 8, 9), (3, 5, 4))]
    twin = Twin(net_text('type: "Scale" bottom: "x" top: "y" scale_param { bias_term: true }', x=(2, 3, 8, 9)))
    for run in runs:
        twin.run(**run)
    assert_exports(twin, (0, 2, 3), *runs)
    gated = Twin(
        net_text('type: "Scale" bottom: "x" bottom: "f" top: "y" scale_param { axis: 0 }', x=(2, 3, 8, 9), f=(2, 3))
    )
    for run in runs:
        gated.run(**run, f=random_array(len(run["x"]), 3))


def test_a_factor_of_a_fixed_plane_fixes_the_size() -> None:
    """The blob has the size of the plane, so the ONNX input has a fixed size."""
    net = read_net(net_text('type: "Scale" bottom: "x" top: "y" scale_param { axis: 2 num_axes: 2 }', x=(1, 3, 4, 5)))
    from atrous.converter.export.dynamic_axes import find_dynamic_axes

    assert find_dynamic_axes(net).of(net.inputs[0]) == (True, False, False, False)
    assert to_torch(net).y.weight.shape == (4, 5)
