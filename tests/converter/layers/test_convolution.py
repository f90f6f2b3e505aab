"""Convolution and Deconvolution against sums over taps, for windows over one to three axes; all window fields."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.errors import NetError

from .converting import Twin, assert_exports, net_text, random_array

Array = np.ndarray[Any, Any]
Sizes = tuple[int, ...]


def twin(layer: str, param: str, shape: Sizes, *weights: Array, dialect: str | None = None) -> Twin:
    text = net_text(f'type: "{layer}" bottom: "x" top: "y" convolution_param {{ {param} }}', x=shape)
    return Twin(text, {"y": weights} if weights else None, dialect=dialect)


def convolve(x: Array, weight: Array, stride: Sizes, begin: Sizes, end: Sizes, dilation: Sizes, group: int) -> Array:
    """Correlation of (N, C, ...) with (out, C / group, k...), tap by tap."""
    padded = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *zip(begin, end, strict=True)])
    kernel = weight.shape[2:]
    plane = tuple(
        (size - (d * (k - 1) + 1)) // s + 1
        for size, k, s, d in zip(padded.shape[2:], kernel, stride, dilation, strict=True)
    )
    y = np.zeros((len(x), len(weight), *plane))
    ins, outs = x.shape[1] // group, len(weight) // group
    for tap in itertools.product(*map(range, kernel)):
        spots = tuple(
            slice(t * d, t * d + (out - 1) * s + 1, s)
            for t, d, out, s in zip(tap, dilation, plane, stride, strict=True)
        )
        for g in range(group):
            values = padded[(slice(None), slice(g * ins, (g + 1) * ins), *spots)]
            factors = weight[(slice(g * outs, (g + 1) * outs), slice(None), *tap)]
            y[:, g * outs : (g + 1) * outs] += np.einsum("nc...,oc->no...", values, factors)
    return y


def spread(x: Array, weight: Array, stride: Sizes, pad: Sizes, dilation: Sizes, group: int) -> Array:
    """Deconvolution: every value of (N, C, ...) times (C, out / group, k...) is added at its window."""
    kernel = weight.shape[2:]
    whole = tuple(
        s * (size - 1) + d * (k - 1) + 1 for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    )
    ins, outs = x.shape[1] // group, weight.shape[1]
    y = np.zeros((len(x), outs * group, *whole))
    for tap in itertools.product(*map(range, kernel)):
        spots = tuple(
            slice(t * d, t * d + (size - 1) * s + 1, s)
            for t, d, size, s in zip(tap, dilation, x.shape[2:], stride, strict=True)
        )
        for g in range(group):
            values = x[:, g * ins : (g + 1) * ins].astype(np.float64)
            factors = weight[(slice(g * ins, (g + 1) * ins), slice(None), *tap)]
            y[(slice(None), slice(g * outs, (g + 1) * outs), *spots)] += np.einsum("nc...,co->no...", values, factors)
    return y[(slice(None), slice(None), *(slice(p, size - p) for p, size in zip(pad, whole, strict=True)))]


def repeated(**fields: Sizes) -> str:
    return " ".join(f"{name}: {value}" for name, values in fields.items() for value in values)


@st.composite
def windows(draw: st.DrawFn) -> tuple[Sizes, Sizes, Sizes, Sizes, Sizes, int, int, int]:
    """Sizes, kernel, stride, pad and dilation of one to three axes; group, and channels in and out of a group."""
    axes = draw(st.integers(1, 3))

    def sides(least: int, most: int) -> Sizes:
        return draw(st.tuples(*[st.integers(least, most)] * axes))

    channels = [draw(st.integers(1, 3)) for _ in range(3)]
    return sides(1, 7), sides(1, 3), sides(1, 3), sides(0, 2), sides(1, 3), channels[0], channels[1], channels[2]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(window=windows(), bias=st.booleans())
def test_any_convolution(window: tuple[Sizes, Sizes, Sizes, Sizes, Sizes, int, int, int], bias: bool) -> None:
    size, kernel, stride, pad, dilation, group, ins, outs = window
    shape = (2, group * ins, *size)
    weights = [random_array(group * outs, ins, *kernel, seed=1), *[random_array(group * outs, seed=2)] * bias]
    fields = repeated(kernel_size=kernel, stride=stride, pad=pad, dilation=dilation)
    param = f"num_output: {group * outs} group: {group} {fields} bias_term: {str(bias).lower()}"
    if any(n + 2 * p < d * (k - 1) + 1 for n, k, p, d in zip(size, kernel, pad, dilation, strict=True)):
        with pytest.raises(NetError, match="would be empty"):
            twin("Convolution", param, shape, *weights)
        return
    x = random_array(*shape)
    wanted = convolve(x, weights[0], stride, pad, pad, dilation, group)
    if bias:
        wanted += weights[1].reshape(-1, *(1,) * len(size))
    np.testing.assert_allclose(twin("Convolution", param, shape, *weights).run(1e-5, x=x)["y"], wanted, atol=1e-5)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(window=windows(), bias=st.booleans())
def test_any_deconvolution(window: tuple[Sizes, Sizes, Sizes, Sizes, Sizes, int, int, int], bias: bool) -> None:
    size, kernel, stride, pad, dilation, group, ins, outs = window
    shape = (2, group * ins, *size)
    weights = [random_array(group * ins, outs, *kernel, seed=1), *[random_array(group * outs, seed=2)] * bias]
    fields = repeated(kernel_size=kernel, stride=stride, pad=pad, dilation=dilation)
    param = f"num_output: {group * outs} group: {group} {fields} bias_term: {str(bias).lower()}"
    sides = zip(size, kernel, stride, pad, dilation, strict=True)
    if any(s * (n - 1) + d * (k - 1) + 1 - 2 * p < 1 for n, k, s, p, d in sides):
        with pytest.raises(NetError, match="would be empty"):
            twin("Deconvolution", param, shape, *weights)
        return
    x = random_array(*shape)
    wanted = spread(x, weights[0], stride, pad, dilation, group)
    if bias:
        wanted += weights[1].reshape(-1, *(1,) * len(size))
    np.testing.assert_allclose(twin("Deconvolution", param, shape, *weights).run(1e-5, x=x)["y"], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "dialect"),
    [
        ("kernel_size: 3 pad: 2 dilation: 2", None),
        ("kernel_h: 3 kernel_w: 3 pad_h: 2 pad_w: 2 dilation: 2 dilation: 2 stride_h: 1 stride_w: 1", None),
        ("kernel_size: 3 pad_l: 2 pad_r: 2 pad_t: 2 pad_b: 2 dilation: 2", None),
        ("kernel_size: 3 pad: 2 dilation: 2 axis: -3 engine: CUDNN force_nd_im2col: true", None),
        ("kernel_size: 3 pad: 2 hole: 2", "deeplab_v1"),
        ("kernel_size: 3 pad: 2 hole_h: 2 hole_w: 2", "deeplab_v1"),
        ("kernel_size: 3 pad: 2 filter_stride: 2", None),
        ("kernel_size: 3 pad: 2 filter_stride_h: 2 filter_stride_w: 2", None),
        ("kernel_size: 3 pad: 2 dilation_h: 2 dilation_w: 2", None),
    ],
)
def test_spellings_of_one_window(fields: str, dialect: str | None) -> None:
    x, weight = random_array(1, 2, 7, 6), random_array(3, 2, 3, 3, seed=1)
    net = twin("Convolution", f"num_output: 3 bias_term: false {fields}", x.shape, weight, dialect=dialect)
    wanted = convolve(x, weight, (1, 1), (2, 2), (2, 2), (2, 2), 1)
    np.testing.assert_allclose(net.run(1e-5, x=x)["y"], wanted, atol=1e-5)


def test_hole_of_deeplab_v1_is_dilation() -> None:
    x, weight, bias = random_array(1, 2, 9, 8), random_array(3, 2, 3, 3, seed=1), random_array(1, 1, 1, 3, seed=2)
    v1 = twin("Convolution", "num_output: 3 kernel_size: 3 hole: 3 pad: 1", x.shape, weight, bias, dialect="deeplab_v1")
    wanted = convolve(x, weight, (1, 1), (1, 1), (1, 1), (3, 3), 1) + bias.reshape(3, 1, 1)
    np.testing.assert_allclose(v1.run(1e-5, x=x)["y"], wanted, atol=1e-5)


def test_each_side_by_itself() -> None:
    x, weight = random_array(1, 2, 7, 6), random_array(3, 2, 3, 2, seed=1)
    param = "num_output: 3 kernel_h: 3 kernel_w: 2 stride: 2 pad_t: 1 pad_l: 0 pad_b: 2 pad_r: 1 bias_term: false"
    y = twin("Convolution", param, x.shape, weight).run(1e-5, x=x)["y"]
    np.testing.assert_allclose(y, convolve(x, weight, (2, 2), (1, 0), (2, 1), (1, 1), 1), atol=1e-5)


@pytest.mark.parametrize("layer", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize("axis", [2, -3])
def test_batch_of_two_axes(layer: str, axis: int) -> None:
    x = random_array(2, 3, 4, 5, 6)
    weight = random_array(*((4, 2) if layer == "Deconvolution" else (2, 4)), 3, 3, seed=1)
    net = twin(layer, f"num_output: 2 kernel_size: 3 stride: 2 axis: {axis} bias_term: false", x.shape, weight)
    flat = x.reshape(6, 4, 5, 6)
    if layer == "Convolution":
        wanted = convolve(flat, weight, (2, 2), (0, 0), (0, 0), (1, 1), 1)
    else:
        wanted = spread(flat, weight, (2, 2), (0, 0), (1, 1), 1)
    np.testing.assert_allclose(net.run(1e-5, x=x)["y"], wanted.reshape(2, 3, *wanted.shape[1:]), atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 4, 5), 3), ((2, 5), 1), ((2, 3, 5), -1)])
def test_over_no_spatial_axis_it_is_a_matrix(shape: Sizes, axis: int, bias: bool) -> None:
    x, weights = random_array(*shape), [random_array(3, 5, seed=1), *[random_array(3, seed=2)] * bias]
    net = twin("Convolution", f"num_output: 3 axis: {axis} bias_term: {str(bias).lower()}", shape, *weights)
    wanted = x @ weights[0].T + (weights[1] if bias else 0)
    np.testing.assert_allclose(net.run(1e-5, x=x)["y"], wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["DepthwiseConvolution", "ConvolutionDepthwise"])
def test_depthwise_has_a_group_for_each_channel(kind: str) -> None:
    x, weight = random_array(1, 4, 5, 5), random_array(4, 1, 3, 3, seed=1)
    y = twin(kind, "num_output: 4 kernel_size: 3 group: 2 bias_term: false", x.shape, weight).run(1e-5, x=x)["y"]
    np.testing.assert_allclose(y, convolve(x, weight, (1, 1), (0, 0), (0, 0), (1, 1), 4), atol=1e-5)


def test_convolution_depthwise_ignores_num_output() -> None:
    """mini-caffe gives every channel one output."""
    x, weight = random_array(1, 4, 5, 5), random_array(4, 1, 3, 3, seed=1)
    y = twin("ConvolutionDepthwise", "num_output: 8 kernel_size: 3 bias_term: false", x.shape, weight).run(x=x)["y"]
    np.testing.assert_allclose(y, convolve(x, weight, (1, 1), (0, 0), (0, 0), (1, 1), 4), atol=1e-5)


def test_several_bottoms_share_the_weights() -> None:
    weight = random_array(2, 2, 3, 3, seed=1)
    body = "convolution_param { num_output: 2 kernel_size: 3 bias_term: false }"
    layer = f'type: "Convolution" bottom: "a" bottom: "b" top: "y" top: "z" {body}'
    net = Twin(net_text(layer, a=(1, 2, 5, 4), b=(1, 2, 5, 4)), {"y": [weight]})
    a, b = random_array(1, 2, 5, 4), random_array(1, 2, 5, 4, seed=3)
    tops = net.run(1e-5, a=a, b=b)
    for x, top in ((a, "y"), (b, "z")):
        np.testing.assert_allclose(tops[top], convolve(x, weight, (1, 1), (0, 0), (0, 0), (1, 1), 1), atol=1e-5)


@pytest.mark.parametrize(
    ("param", "words"),
    [
        ("num_output: 2", "has no kernel_size"),
        ("kernel_size: 3", "num_output must be above 0"),
        ("num_output: 2 kernel_size: 0", "kernel_size"),
        ("num_output: 2 kernel_h: 3", "above 0"),
        ("num_output: 2 kernel_size: 3 kernel_h: 3 kernel_w: 3", "not both"),
        ("num_output: 2 kernel_size: 3 stride: 0", "stride"),
        ("num_output: 2 kernel_size: 3 stride_h: 2", "above 0"),
        ("num_output: 2 kernel_size: 3 dilation: 0", "dilation"),
        ("num_output: 2 kernel_size: 3 kernel_size: 3 kernel_size: 3", "values for 2 spatial axes"),
        ("num_output: 2 kernel_size: 3 dilation: 1 dilation: 1 dilation: 1", "values for 2 spatial axes"),
        ("num_output: 3 kernel_size: 3 group: 2", "do not divide"),
        ("num_output: 2 kernel_size: 3 group: 0", "0 groups"),
        ("num_output: 2 kernel_size: 3 pad: 1 pad_l: 1", "not both"),
        ("num_output: 2 kernel_size: 3 axis: 4", "axis 4 is out of range"),
        ("num_output: 2 kernel_size: 9", "would be empty"),
        ("num_output: 2 axis: 3 group: 2", "groups but no spatial axes"),
    ],
)
def test_refuses(param: str, words: str) -> None:
    with pytest.raises(NetError, match=words):
        twin("Convolution", param, (1, 4, 6, 6))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("hole: 2 dilation: 2", "both hole and dilation"),
        ("hole: 2 filter_stride: 2", "both hole and filter_stride"),
        ("hole: 2 hole_h: 2", "either hole, or both hole_h and hole_w"),
        ("hole_w: 2", "both hole_h and hole_w"),
        ("hole: 0", "dilation"),
    ],
)
def test_refuses_of_deeplab_v1(fields: str, words: str) -> None:
    with pytest.raises(NetError, match=words):
        twin("Convolution", f"num_output: 2 kernel_size: 3 {fields}", (1, 4, 6, 6), dialect="deeplab_v1")


def test_exports_with_dynamic_sizes() -> None:
    weight = random_array(2, 3, 3, 3, seed=1)
    net = twin("Convolution", "num_output: 2 kernel_size: 3 pad: 2 dilation: 2 bias_term: false", (2, 3, 8, 7), weight)
    assert_exports(net, (0, 2, 3), {"x": random_array(2, 3, 8, 7)}, {"x": random_array(3, 3, 5, 9)})
