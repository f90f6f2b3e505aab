"""Eltwise, Softmax and the two broadcasting products against real Caffe and plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atrous.converter import read_net
from atrous.errors import NetError

from .converting import Twin, assert_exports, assert_matches, assert_refused, net_text, random_array

RECORDED = [
    "eltwise-default",
    "eltwise-max3",
    "eltwise-prod3",
    "eltwise-same-bottom-twice",
    "eltwise-sum-coeff",
    "eltwise-sum3-coeff",
    "graph-eltwise-inplace",
    "graph-diamond",
    "softmax-2d-large",
    "softmax-axis2",
    "softmax-default",
    "dl1-softmax",
    "dl1-slice-concat-eltwise",
    "dl2-spatialproduct",
]


@pytest.mark.parametrize("case", RECORDED)
def test_recorded(goldens: Path, case: str) -> None:
    assert_matches(goldens, case)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("bad-eltwise-coeff-count", "1 coeff for 2 bottoms"),
        ("bad-eltwise-shape", "broadcast"),
        ("bad-softmax-axis", "out of range"),
    ],
)
def test_refused_as_by_caffe(goldens: Path, case: str, words: str) -> None:
    assert words in assert_refused(goldens, case)


def eltwise(fields: str, top: str = "y") -> str:
    return f'type: "Eltwise" bottom: "a" bottom: "b" bottom: "c" top: "{top}" eltwise_param {{ {fields} }}'


def three(*shape: int) -> dict[str, np.ndarray]:
    return {name: random_array(*shape, seed=seed) for seed, name in enumerate("abc")}


def test_a_coefficient_of_zero_leaves_its_bottom_out() -> None:
    arrays = three(1, 2, 3)
    arrays["b"][:] = np.inf
    y = Twin(net_text(eltwise("coeff: 2 coeff: 0 coeff: -1"), a=(1, 2, 3), b=(1, 2, 3), c=(1, 2, 3))).run(**arrays)["y"]
    np.testing.assert_allclose(y, 2 * arrays["a"] - arrays["c"], rtol=1e-6)


def test_all_coefficients_zero() -> None:
    y = Twin(net_text(eltwise("coeff: 0 coeff: 0 coeff: 0"), a=(2, 1), b=(2, 1), c=(2, 1))).run(**three(2, 1))["y"]
    np.testing.assert_array_equal(y, np.zeros((2, 1)))


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("SUM", lambda a, b, c: b + c),  # Caffe clears the bottom it writes to before it adds
        ("PROD", lambda a, b, c: a * b * c),
        ("MAX", lambda a, b, c: np.maximum(b, c)),
    ],
)
def test_over_its_own_bottom(operation: str, expected) -> None:
    arrays = three(2, 3)
    twin = Twin(net_text(eltwise(f"operation: {operation}", top="a"), a=(2, 3), b=(2, 3), c=(2, 3)))
    assert any("Rename the top" in said for said in twin.net.warnings) == (operation != "PROD")
    np.testing.assert_allclose(twin.run(**arrays)["a"], expected(**arrays), rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 2, 5, 7)])
def test_another_size(shape: tuple[int, ...]) -> None:
    sizes = dict.fromkeys("abc", (2, 2, 3, 3) if shape[1] == 2 else (2, 1, 3, 3))
    arrays = three(*shape)
    y = Twin(net_text(eltwise("coeff: 1 coeff: -0.5 coeff: 3"), **sizes)).run(**arrays)["y"]
    np.testing.assert_allclose(y, arrays["a"] - 0.5 * arrays["b"] + 3 * arrays["c"], rtol=1e-5, atol=1e-6)


def test_no_coefficients_for_a_product() -> None:
    with pytest.raises(NetError, match="SUM only"):
        read_net(net_text(eltwise("operation: PROD coeff: 1 coeff: 1 coeff: 1"), a=(1,), b=(1,), c=(1,)))


def test_one_bottom_is_too_few() -> None:
    with pytest.raises(NetError, match="at least 2"):
        read_net(net_text('type: "Eltwise" bottom: "a" top: "y"', a=(1, 2)))


def test_softmax_of_the_last_axis() -> None:
    x = random_array(2, 3, 4) * 50
    y = Twin(net_text('type: "Softmax" bottom: "x" top: "y" softmax_param { axis: -1 }', x=(2, 3, 4))).run(x=x)["y"]
    exponents = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    np.testing.assert_allclose(y, exponents / exponents.sum(-1, keepdims=True), rtol=1e-4, atol=1e-7)


AXPY = 'type: "Axpy" bottom: "a" bottom: "x" bottom: "z" top: "y"'


@pytest.mark.parametrize("factor", [(2, 3), (2, 3, 1, 1)])
def test_axpy(factor: tuple[int, ...]) -> None:
    a, x, z = random_array(*factor), random_array(2, 3, 4, 5, seed=1), random_array(2, 3, 4, 5, seed=2)
    y = Twin(net_text(AXPY, a=factor, x=x.shape, z=z.shape)).run(a=a, x=x, z=z)["y"]
    np.testing.assert_allclose(y, a.reshape(2, 3, 1, 1) * x + z, rtol=1e-6)


@pytest.mark.parametrize("factor", [(2, 1), (2, 3, 4, 1), (2,), (1, 3)])
def test_axpy_needs_one_factor_a_channel(factor: tuple[int, ...]) -> None:
    with pytest.raises(NetError, match="one value for each item and channel"):
        read_net(net_text(AXPY, a=factor, x=(2, 3, 4, 5), z=(2, 3, 4, 5)))


def test_axpy_needs_equal_summands() -> None:
    with pytest.raises(NetError, match="must be equal"):
        read_net(net_text(AXPY, a=(2, 3), x=(2, 3, 4, 5), z=(2, 3, 1, 5)))


@pytest.mark.parametrize("weights", [(2, 3, 4, 5), (1, 1, 4, 5), (2, 1, 5, 4)])
def test_spatial_product_needs_a_map(weights: tuple[int, ...]) -> None:
    with pytest.raises(NetError, match="one channel"):
        read_net(net_text('type: "SpatialProduct" bottom: "x" bottom: "w" top: "y"', x=(2, 3, 4, 5), w=weights))


def test_exports_with_dynamic_sizes() -> None:
    text = net_text('type: "SpatialProduct" bottom: "x" bottom: "w" top: "p"', x=(1, 2, 4, 5), w=(1, 1, 4, 5)) + (
        'layer { name: "s" type: "Softmax" bottom: "p" top: "s" }'
        'layer { name: "e" type: "Eltwise" bottom: "s" bottom: "x" top: "e" eltwise_param { coeff: 2 coeff: 1 } }'
        'layer { name: "m" type: "Eltwise" bottom: "e" bottom: "p" top: "m" eltwise_param { operation: MAX } }'
        'layer { name: "q" type: "Eltwise" bottom: "m" bottom: "x" top: "q" eltwise_param { operation: PROD } }'
    )
    runs = [
        {"x": random_array(b, 2, *size), "w": random_array(b, 1, *size, seed=1)}
        for b, size in ((2, (5, 6)), (1, (1, 9)))
    ]
    twin = Twin(text)
    for arrays in runs:
        twin.run(**arrays)
    assert_exports(twin, (0, 2, 3), *runs)
