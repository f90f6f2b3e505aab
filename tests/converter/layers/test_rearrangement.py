"""Im2col, SPP, Padding, Reorg and ShuffleChannel against real Caffe and against loops."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from atrous.converter import read_net
from atrous.errors import NetError

from .converting import Twin, assert_exports, assert_matches, assert_refused, net_text, random_array, v1_text


@pytest.mark.parametrize("case", ["im2col", "dl1-im2col-hole", "spp", "spp-1", "dl1-padding"])
def test_recorded(goldens: Path, case: str) -> None:
    assert_matches(goldens, case)


def test_padding_of_two_signs_is_refused(goldens: Path) -> None:
    assert "both pad" in assert_refused(goldens, "bad-dl1-padding-mixed")


def twin(layer: str, shape: tuple[int, ...], **options) -> Twin:
    return Twin(net_text(f'{layer} bottom: "x" top: "y"', x=shape), **options)


def im2col(x: np.ndarray, k: int, s: int, p: int, d: int) -> np.ndarray:
    """Channel c kh kw is the padded plane at its tap, one value a window."""
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    rows, columns = ((size + 2 * p - (d * (k - 1) + 1)) // s + 1 for size in x.shape[2:])
    taps = [
        padded[:, c, i * d : i * d + (rows - 1) * s + 1 : s, j * d : j * d + (columns - 1) * s + 1 : s]
        for c, i, j in product(range(x.shape[1]), range(k), range(k))
    ]
    return np.stack(taps, 1)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    k=st.integers(1, 3),
    s=st.integers(1, 3),
    p=st.integers(0, 2),
    d=st.integers(1, 3),
)
def test_im2col_of_any_window(size: tuple[int, int], k: int, s: int, p: int, d: int) -> None:
    assume(min(size) + 2 * p >= d * (k - 1) + 1)
    x = random_array(2, 2, *size)
    layer = f'type: "Im2col" convolution_param {{ kernel_size: {k} stride: {s} pad: {p} dilation: {d} }}'
    np.testing.assert_array_equal(twin(layer, x.shape).run(0, x=x)["y"], im2col(x, k, s, p, d))


def test_im2col_of_lines_and_behind_two_batch_axes() -> None:
    x = random_array(2, 3, 5)
    y = twin('type: "Im2col" convolution_param { kernel_size: 3 pad: 1 }', x.shape).run(0, x=x)["y"]
    np.testing.assert_array_equal(
        y, im2col(x[..., None], 3, 1, 1, 1)[..., 0].reshape(2, 3, 3, 3, 5)[:, :, :, 1].reshape(2, 9, 5)
    )
    x = random_array(2, 3, 2, 4, 5)
    y = twin('type: "Im2col" convolution_param { kernel_size: 2 axis: 2 }', x.shape).run(0, x=x)["y"]
    np.testing.assert_array_equal(y, im2col(x.reshape(6, 2, 4, 5), 2, 1, 0, 1).reshape(2, 3, 8, 3, 4))


def test_im2col_has_no_weights_and_takes_one_bottom() -> None:
    net = twin('type: "Im2col" convolution_param { kernel_size: 2 }', (1, 2, 4, 4)).net
    assert net.parameter_count() == 0
    with pytest.raises(NetError, match="exactly 1"):
        read_net(
            net_text(
                'type: "Im2col" bottom: "x" bottom: "x" top: "y" top: "z" convolution_param { kernel_size: 2 }',
                x=(1, 2, 4, 4),
            )
        )


def pyramid(x: np.ndarray, levels: int, pool: str) -> np.ndarray:
    """Bin by bin: windows of ceil(size / bins), half the missing pixels before; AVE divides by the whole window."""
    parts = []
    for bins in (2**level for level in range(levels)):
        kernels = [math.ceil(size / bins) for size in x.shape[2:]]
        pads = [(k * bins - size + 1) // 2 for k, size in zip(kernels, x.shape[2:], strict=True)]
        level = np.zeros((*x.shape[:2], bins, bins), np.float32)
        for i, j in product(range(bins), range(bins)):
            rows, columns = (
                slice(max(index * k - p, 0), index * k - p + k)
                for index, k, p in zip((i, j), kernels, pads, strict=True)
            )
            window = x[:, :, rows, columns]
            level[:, :, i, j] = window.max((2, 3)) if pool == "MAX" else window.sum((2, 3)) / (kernels[0] * kernels[1])
        parts.append(level.reshape(*x.shape[:1], -1))
    return np.concatenate(parts, 1)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    levels=st.integers(2, 3),
    pool=st.sampled_from(["MAX", "AVE"]),
)
def test_spp_of_any_plane(size: tuple[int, int], levels: int, pool: str) -> None:
    layer = f'type: "SPP" spp_param {{ pyramid_height: {levels} pool: {pool} }}'
    fits = all(
        (math.ceil(n / bins) * bins - n + 1) // 2 < math.ceil(n / bins) for n in size for bins in (1, 2, 4)[:levels]
    )
    if not fits:
        with pytest.raises(NetError, match="fewer levels"):
            twin(layer, (1, 1, *size))
        return
    x = random_array(2, 3, *size) - 2
    np.testing.assert_allclose(twin(layer, x.shape).run(1e-6, x=x)["y"], pyramid(x, levels, pool), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [17, 18, 21])
@pytest.mark.parametrize("pool", ["MAX", "AVE"])
def test_spp_of_another_plane(pool: str, opset: int) -> None:
    pair = twin(f'type: "SPP" spp_param {{ pyramid_height: 3 pool: {pool} }}', (1, 2, 8, 8), opset=opset)
    for size in ((7, 9), (16, 11), (4, 4)):
        x = random_array(3, 2, *size)
        np.testing.assert_allclose(pair.run(x=x)["y"], pyramid(x, 3, pool), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape", "words"),
    [
        ('type: "SPP"', (1, 2, 4, 4), "not 0"),
        ('type: "SPP" spp_param { pyramid_height: 40 }', (1, 2, 4, 4), "not 40"),
        ('type: "SPP" spp_param { pyramid_height: 2 pool: STOCHASTIC }', (1, 2, 4, 4), "STOCHASTIC"),
        ('type: "SPP" spp_param { pyramid_height: 2 }', (1, 2, 4), "4-D"),
        ('type: "Reorg" reorg_param { stride: 2 }', (1, 6, 4, 4), "are not a multiple of stride"),
        ('type: "Reorg" reorg_param { stride: 2 }', (1, 4, 4, 5), "not a multiple of stride 2"),
        ('type: "Reorg" reorg_param { stride: 0 }', (1, 4, 4, 4), "stride"),
        ('type: "ShuffleChannel" shuffle_channel_param { group: 4 }', (1, 6, 4, 4), "4 groups"),
        ('type: "ShuffleChannel" shuffle_channel_param { group: 0 }', (1, 6, 4, 4), "0 groups"),
    ],
)
def test_refuses(layer: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(NetError, match=words):
        twin(layer, shape)


@pytest.mark.parametrize("pads", [(0, 0), (2, 1), (0, 3), (-1, 0), (0, -2), (-2, -1), (-7, -8)])
@pytest.mark.parametrize("size", [(16, 17), (20, 18)])
def test_padding_grows_or_crops(pads: tuple[int, int], size: tuple[int, int]) -> None:
    begin, end = pads
    x = random_array(2, 2, *size)
    pair = Twin(v1_text(f"type: PADDING padding_param {{ pad_beg: {begin} pad_end: {end} }}", 1, 2, 16, 17))
    y = pair.run(0, x=x)["y"]
    grown = np.pad(x, ((0, 0), (0, 0), (max(begin, 0), max(end, 0)), (max(begin, 0), max(end, 0))))
    crop = slice(max(-begin, 0), grown.shape[2] + min(end, 0)), slice(max(-begin, 0), grown.shape[3] + min(end, 0))
    np.testing.assert_array_equal(y, grown[:, :, crop[0], crop[1]])


def test_padding_cannot_crop_everything() -> None:
    with pytest.raises(NetError, match="crop all"):
        read_net(v1_text("type: PADDING padding_param { pad_beg: -2 pad_end: -3 }", 1, 2, 5, 9))


def darknet_pairs(channels: int, height: int, width: int, stride: int):
    """Flat indices that Darknet's reorg pairs: one in a (C, H, W) array, one in (C / s^2, H s, W s)."""
    planes = channels // stride**2
    for c, y, x in product(range(channels), range(height), range(width)):
        row, column = divmod(c // planes, stride)
        folded = (c % planes, y * stride + row, x * stride + column)
        yield (
            np.ravel_multi_index((c, y, x), (channels, height, width)),
            np.ravel_multi_index(folded, (planes, height * stride, width * stride)),
        )


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("reverse", [False, True])
def test_reorg_moves_values_as_darknet_does(stride: int, reverse: bool) -> None:
    channels, height, width = 2 * stride**2, 2 * stride, 3 * stride
    pair = twin(
        f'type: "Reorg" reorg_param {{ stride: {stride} reverse: {str(reverse).lower()} }}',
        (1, channels, height, width),
    )
    for factor in (1, 2):
        h, w = height * factor, width
        x = random_array(2, channels, h, w)
        expected = np.empty_like(x).reshape(2, -1)
        for plain, folded in darknet_pairs(channels, h, w, stride):
            read, write = (plain, folded) if reverse else (folded, plain)
            expected[:, write] = x.reshape(2, -1)[:, read]
        y = pair.run(0, x=x)["y"]
        shape = (
            (channels // stride**2, h * stride, w * stride)
            if reverse
            else (channels * stride**2, h // stride, w // stride)
        )
        np.testing.assert_array_equal(y, expected.reshape(2, *shape))


@pytest.mark.parametrize("group", [1, 2, 3, 6])
def test_shuffle_channel_interleaves_groups(group: int) -> None:
    pair = twin(f'type: "ShuffleChannel" shuffle_channel_param {{ group: {group} }}', (1, 6, 2, 3))
    x = random_array(2, 6, 1, 5)
    order = [g * (6 // group) + member for member in range(6 // group) for g in range(group)]
    np.testing.assert_array_equal(pair.run(0, x=x)["y"], x[:, order])


@pytest.mark.parametrize(
    "layer",
    [
        'type: "Im2col" convolution_param { kernel_size: 3 stride: 2 pad: 1 dilation: 2 }',
        'type: "SPP" spp_param { pyramid_height: 2 }',
        'type: "ShuffleChannel" shuffle_channel_param { group: 2 }',
        'type: "Reorg" reorg_param { stride: 2 }',
        'type: "Reorg" reorg_param { stride: 2 reverse: true }',
    ],
)
def test_exports_with_dynamic_sizes(layer: str) -> None:
    runs = [{"x": random_array(2, 4, 8, 10)}, {"x": random_array(3, 4, 12, 6)}]
    assert_exports(twin(layer, (1, 4, 8, 8)), (0, 2, 3), *runs)


def test_reorg_has_a_stride_of_two_where_none_is_given() -> None:
    x = random_array(1, 4, 6, 8)
    given = twin('type: "Reorg" reorg_param { stride: 2 }', x.shape).run(0, x=x)["y"]
    np.testing.assert_array_equal(twin('type: "Reorg"', x.shape).run(0, x=x)["y"], given)
