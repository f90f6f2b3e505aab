"""Pooling against loops over Caffe's windows, for any window; the forks' fields; refused parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.errors import NetError

from .converting import Twin, assert_exports, net_text, random_array

Array = np.ndarray[Any, Any]
Pair = tuple[int, int]
#: Caffe's initial maximum
LOWEST_FLOAT = np.finfo(np.float32).min


def twin(param: str, shape: tuple[int, ...], tops: str = 'top: "y"') -> Twin:
    return Twin(net_text(f'type: "Pooling" bottom: "x" {tops} pooling_param {{ {param} }}', x=shape))


def windows(size: int, k: int, s: int, p: int, *, clips: bool) -> list[tuple[int, int]]:
    """(first, end) of each window along an axis; both may lie in the padding, or beyond the plane."""
    number = -(-(size + 2 * p - k) // s) + 1
    if clips and (number - 1) * s >= size + p:
        number -= 1
    return [(i * s - p, min(i * s - p + k, size + p)) for i in range(number)]


def pool(x: Array, method: str, kernel: Pair, stride: Pair, pad: Pair) -> Array:
    rows, columns = (
        windows(x.shape[2 + axis], kernel[axis], stride[axis], pad[axis], clips=any(pad)) for axis in (0, 1)
    )
    y = np.empty((*x.shape[:2], len(rows), len(columns)), np.float32)
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            cells = x[:, :, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
            area = np.float32((bottom - top) * (right - left))
            with np.errstate(invalid="ignore"):  # 0 / 0 where a window begins at the plane's end
                average = cells.sum((2, 3), np.float32) / area
            y[:, :, i, j] = cells.max((2, 3), initial=LOWEST_FLOAT) if method == "MAX" else average
    return y


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    method=st.sampled_from(["MAX", "AVE"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    data=st.data(),
)
def test_any_window(method: str, size: Pair, kernel: Pair, stride: Pair, data: st.DataObject) -> None:
    """Including windows larger than the plane, and windows wholly outside it (stride larger than kernel)."""
    pad = data.draw(st.just((0, 0)) | st.tuples(*(st.integers(0, k - 1) for k in kernel)))
    names = ("kernel", kernel), ("stride", stride), ("pad", pad)
    param = f"pool: {method} " + " ".join(f"{name}_h: {h} {name}_w: {w}" for name, (h, w) in names)
    x = random_array(2, 3, *size)
    sides = zip(size, kernel, stride, pad, strict=True)
    if not all(windows(*side, clips=any(pad)) for side in sides):
        with pytest.raises(NetError, match="would be empty"):
            twin(param, x.shape)
        return
    y = twin(param, x.shape).run(1e-6, x=x)["y"]
    np.testing.assert_allclose(y, pool(x, method, kernel, stride, pad), atol=1e-6)


def test_windows_outside_the_plane_of_another_size() -> None:
    """The plane ends at a window's start at one size, before or after it at others."""
    net = twin("pool: AVE kernel_size: 1 stride: 2", (1, 1, 4, 4))
    assert any("outside" in warning for warning in net.net.warnings)
    for size in ((4, 4), (5, 6), (7, 5), (1, 2)):
        x = random_array(1, 1, *size)
        y = net.run(0, x=x)["y"]
        np.testing.assert_array_equal(y, pool(x, "AVE", (1, 1), (2, 2), (0, 0)))
        assert np.isnan(y).any() == any(n % 2 == 0 for n in size)


def test_mask_is_the_place_in_the_plane() -> None:
    x = random_array(2, 2, 7, 6)
    tops = twin("pool: MAX kernel_size: 3 stride: 2 pad: 1", x.shape, 'top: "y" top: "m"').run(0, x=x)
    picked = np.take_along_axis(x.reshape(2, 2, -1), tops["m"].reshape(2, 2, -1).astype(int), 2)
    np.testing.assert_array_equal(picked.reshape(tops["y"].shape), tops["y"])


@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_one_bin_is_the_whole_plane(method: str) -> None:
    """ParseNet's form of global pooling, at several sizes."""
    pair = twin(f"pool: {method} bin_size: 1", (1, 3, 5, 6))
    for size in ((5, 6), (8, 3)):
        x = random_array(2, 3, *size)
        reduced = x.max((2, 3)) if method == "MAX" else x.mean((2, 3))
        np.testing.assert_allclose(pair.run(x=x)["y"][..., 0, 0], reduced, atol=1e-6)


@pytest.mark.parametrize(
    "field", ["round_mode: FLOOR", "round_mode: 1", "ceil_mode: false", "torch_pooling: true", "round_below: true"]
)
@pytest.mark.parametrize("pad", [0, 1])
def test_spellings_of_rounding_down(field: str, pad: int) -> None:
    """Of BVLC, the YOLO ports, Facebook's and pulkitag's Caffe; without one of them the top is a pixel larger."""
    body, x = f"pool: MAX kernel_size: 3 stride: 2 pad: {pad} ", random_array(1, 2, 6, 8)
    expected = torch.nn.functional.max_pool2d(torch.from_numpy(x), 3, 2, pad).numpy()
    np.testing.assert_array_equal(twin(body + field, x.shape).run(x=x)["y"], expected)
    assert twin(body, x.shape).run(x=x)["y"].shape[2] == expected.shape[2] + 1


@pytest.mark.parametrize("stride", [1, 2, 6])
@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("dilation", [(2, 2), (1, 3)])
def test_dilated_windows(dilation: Pair, pad: int, stride: int) -> None:
    """naibaf7's SK-nets: windows of a wider extent, of which every d-th pixel counts."""
    x = random_array(1, 2, 9, 10)
    param = f"kernel_size: 2 stride: {stride} pad: {pad} dilation: {dilation[0]} dilation: {dilation[1]}"
    extents = [d + 1 for d in dilation]
    rows, columns = (
        [i for i, _ in windows(x.shape[2 + axis], extents[axis], stride, pad, clips=bool(pad))] for axis in (0, 1)
    )
    padded = np.full((1, 2, 40, 40), LOWEST_FLOAT)
    padded[:, :, pad : pad + 9, pad : pad + 10] = x
    expected = np.stack([
        padded[:, :, np.add(rows, pad + i * dilation[0])[:, None], np.add(columns, pad + j * dilation[1])]
        for i in (0, 1) for j in (0, 1)
    ]).max(0)  # fmt: skip
    np.testing.assert_array_equal(twin(param, x.shape).run(x=x)["y"], expected)


@pytest.mark.parametrize(("sides", "plain"), [("", "pad: 0"), ("pad_t: 1 pad_b: 1", "pad_h: 1 pad_w: 0")])
def test_sides_that_agree_are_padding(sides: str, plain: str) -> None:
    x = random_array(1, 2, 7, 8)
    body = "pool: AVE kernel_size: 3 stride: 2 "
    expected = twin(body + plain, x.shape).run(x=x)["y"]
    found = twin(body + (sides or "pad_t: 0 pad_l: 0 pad_b: 0 pad_r: 0"), x.shape).run(x=x)["y"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("param", "pads"), [("kernel_size: 3 pad: 1", 0), ("kernel_size: 3 stride: 2 pad: 1 ceil_mode: false", 0),
                        ("kernel_size: 3 stride: 2 pad: 1", 1)]
)  # fmt: skip
def test_average_counts_its_padding_without_a_copy_of_the_plane(param: str, pads: int) -> None:
    """Unless Caffe's last window reaches beyond the padding, where it divides by less."""
    pair = twin(f"pool: AVE {param}", (1, 2, 6, 8))
    pair.run(x=random_array(1, 2, 6, 8))
    assert [node.op_type for node in pair.model.graph.node].count("Pad") == pads


def test_exports_with_dynamic_sizes() -> None:
    pair = twin("pool: MAX kernel_size: 3 stride: 2 pad: 1", (1, 2, 8, 8))
    assert_exports(pair, (0, 2, 3), {"x": random_array(2, 2, 8, 8)}, {"x": random_array(3, 2, 9, 5)})


@pytest.mark.parametrize(
    ("param", "words"),
    [
        ("kernel_size: 2 pad_t: 1", "only equal sides"),
        ("kernel_size: 2 pad: 1 pad_t: 1 pad_b: 1", "not both"),
        ("bin_size: 2", "bin_size 2"),
        ("pool: AVE kernel_size: 2 dilation: 2", "for MAX pooling"),
        ("kernel_size: 2 dilation: 2 dilation: 2 dilation: 1", "3 dilation values"),
        ("kernel_size: 2 dilation: 0", "above 0"),
        ("bin_size: 1 kernel_size: 2", "has no kernel size"),
        ("pool: AVE", "has no kernel_size"),
        ("kernel_size: 2 pad: 2", "smaller than the kernel"),
        ("kernel_size: 0", "above 0"),
        ("kernel_h: 2", "both kernel_h and kernel_w"),
    ],
)
def test_refuses(param: str, words: str) -> None:
    with pytest.raises(NetError, match=words):
        twin(param, (1, 2, 6, 6))
