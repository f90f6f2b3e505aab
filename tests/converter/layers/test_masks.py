"""Pooling masks by comparison, against torch: ties, windows cut by the edge, planes of several sizes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from atrous.converter.precision.facts import describe_graph

from .converting import Twin, net_text


def pooled_net(kernel: int, upsample: str, shape: tuple[int, ...], pooling: str = "") -> str:
    text = net_text(
        f'type: "Pooling" bottom: "x" top: "p" top: "m" pooling_param {{ kernel_size: {kernel} {pooling} }}', x=shape
    )
    return (
        text
        + f'layer {{ name: "u" type: "Upsample" bottom: "p" bottom: "m" top: "u" upsample_param {{ {upsample} }} }}'
    )


def draw_ties(*shape: int) -> np.ndarray:
    """Three values, so that most windows have several maxima; signed zeros differ in a bit only."""
    return np.random.default_rng(0).choice(np.float32([-0.0, 0.0, 1.0]), shape)


def count_operators(twin: Twin) -> Counter[str]:
    return Counter(node.op_type for node in twin.model.graph.node)


def check_unpooling(twin: Twin, kernel: int, size: tuple[int, int]) -> None:
    x = draw_ties(2, 3, *size)
    pooled, flat = F.max_pool2d(torch.from_numpy(x), kernel, ceil_mode=True, return_indices=True)
    tops = twin.run(0, x=x)
    np.testing.assert_array_equal(tops["m"], flat.numpy())
    height, width = tops["u"].shape[2:]
    rows = torch.div(flat, size[1], rounding_mode="floor")
    expected = F.max_unpool2d(pooled, rows * width + flat % size[1], kernel, output_size=(height, width))
    np.testing.assert_array_equal(tops["u"], expected.numpy())


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize(
    ("kernel", "size"), [(2, (8, 10)), (2, (7, 10)), (2, (7, 9)), (3, (9, 6)), (3, (8, 7)), (4, (9, 10)), (2, (2, 2))]
)
def test_first_of_equal_values_in_planes_of_any_size(kernel: int, size: tuple[int, int], opset: int) -> None:
    text = pooled_net(kernel, f"upsample_h: {size[0]} upsample_w: {size[1]}", (2, 3, *size), f"stride: {kernel}")
    twin = Twin(text, opset=opset)
    check_unpooling(twin, kernel, size)
    assert count_operators(twin)["ScatterElements"] == 0
    assert describe_graph(twin.model).patterns["pooling_indices"] == ()


def test_other_sizes_than_at_the_export() -> None:
    twin = Twin(pooled_net(2, "scale: 2", (1, 3, 8, 8), "stride: 2"))
    for size in ((8, 8), (4, 10), (12, 2)):
        check_unpooling(twin, 2, size)
    assert describe_graph(twin.model).patterns["pooling_indices"] == ()


@pytest.mark.parametrize(
    ("kernel", "pooling"),
    [(3, "stride: 1"), (3, "stride: 3 pad: 1"), (2, "stride: 2 ceil_mode: false"), (5, "stride: 5")],
)
def test_other_windows_keep_the_indices_of_maxpool(kernel: int, pooling: str) -> None:
    param = f"pooling_param {{ kernel_size: {kernel} {pooling} }}"
    twin = Twin(net_text(f'type: "Pooling" bottom: "x" top: "p" top: "m" {param}', x=(1, 2, 11, 11)))
    twin.run(0, x=draw_ties(1, 2, 11, 11))
    assert len(describe_graph(twin.model).patterns["pooling_indices"]) == 1


def test_a_wider_top_is_filled_by_index() -> None:
    """In a plane of another width the indices mean other pixels, as in Caffe."""
    twin = Twin(pooled_net(2, "upsample_h: 8 upsample_w: 12", (1, 2, 8, 10), "stride: 2"))
    assert count_operators(twin)["ScatterElements"] == 1
    x = draw_ties(1, 2, 8, 10)
    pooled, flat = F.max_pool2d(torch.from_numpy(x), 2, return_indices=True)
    expected = torch.zeros(1, 2, 96).scatter(2, flat.flatten(2), pooled.flatten(2)).reshape(1, 2, 8, 12)
    np.testing.assert_array_equal(twin.run(0, x=x)["u"], expected.numpy())
