"""Unpooling and upsampling layers: against real Caffe, against loops, in half precision and at other sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from atrous.converter import read_net, to_torch
from atrous.errors import NetError

from .converting import Twin, assert_exports, assert_matches, assert_refused, net_text, random_array


@pytest.mark.parametrize("case", ["seg-upsample", "seg-upsample-overlap", "seg-upsample-size"])
def test_recorded(goldens: Path, case: str) -> None:
    assert_matches(goldens, case, tolerance=0)


def test_refused_as_by_caffe(goldens: Path) -> None:
    assert "must be equal" in assert_refused(goldens, "bad-seg-upsample-shape")


Array = np.ndarray[Any, Any]


def unpool(x: Array, mask: Array, height: int, width: int) -> Array:
    """Value by value, so that the later one wins."""
    y = np.zeros((*x.shape[:2], height * width), np.float32)
    for n, c, i, j in np.ndindex(*x.shape):
        y[n, c, int(mask[n, c, i, j])] = x[n, c, i, j]
    return y.reshape(*x.shape[:2], height, width)


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        ('"Upsample"', (8, 10)),
        ('"Upsample" upsample_param { scale: 3 }', (12, 15)),
        ('"Upsample" upsample_param { scale_h: 2 scale_w: 3 }', (8, 15)),
        ('"Upsample" upsample_param { scale: 2 pad_out_h: true }', (7, 10)),
        ('"Upsample" upsample_param { pad_out_w: true }', (8, 9)),
        ('"Upsample" upsample_param { scale: 5 upsample_h: 6 upsample_w: 7 }', (6, 7)),
        ('"Unpooling" unpooling_param { kernel_size: 2 stride: 2 unpool_size: 9 }', (9, 9)),
        ('"Unpooling" unpooling_param { kernel_size: 2 stride: 2 unpool_h: 7 unpool_w: 9 }', (7, 9)),
        # FuseNet
        ('"Unpooling" unpooling_param { output_h: 7 output_w: 9 }', (7, 9)),
        ('"Unpooling" unpooling_param { scale: 3 }', (12, 15)),
        # CEDN
        ('"Unpooling" unpooling_param { unpool: MAX kernel_size: 2 stride: 2 }', (8, 10)),
        ('"Unpooling" unpooling_param { kernel_size: 3 stride: 2 }', (9, 11)),
        ('"Unpooling" unpooling_param { kernel_h: 3 kernel_w: 2 stride_h: 3 stride_w: 2 pad_h: 1 pad_w: 0 }', (10, 10)),
        # proposed to BVLC
        ('"Unpooling" pooling_param { pool: MAX kernel_size: 3 stride: 2 }', (9, 11)),
    ],
)
def test_values_go_where_the_mask_says(layer: str, size: tuple[int, int]) -> None:
    x = random_array(2, 3, 4, 5)
    # few destinations, so that values collide
    mask = np.random.default_rng(1).integers(0, min(15, size[0] * size[1]), x.shape).astype(np.float32)
    twin = Twin(net_text(f'type: {layer} bottom: "x" bottom: "mask" top: "y"', x=x.shape, mask=x.shape))
    np.testing.assert_array_equal(twin.run(0, x=x, mask=mask)["y"], unpool(x, mask, *size))


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ('"Upsample" bottom: "m" upsample_param { scale: 1 }', "at least 2"),
        ('"Upsample" bottom: "m" upsample_param { scale: 3 pad_out_h: true }', "scale of 2"),
        ('"Upsample" bottom: "m" upsample_param { scale: 2 scale_h: 2 scale_w: 2 }', "either scale"),
        ('"Upsample" bottom: "m" upsample_param { scale_h: 2 }', "either scale"),
        ('"Upsample" bottom: "m" upsample_param { upsample_h: 1 upsample_w: 4 }', "above 1"),
        ('"Upsample"', "nor a scale"),
        ('"Unpooling" bottom: "m" unpooling_param { stride: 2 }', "no size or window"),
        ('"Unpooling" bottom: "m" unpooling_param { scale: 0 }', "scale must be above 0"),
        ('"Unpooling" bottom: "m" unpooling_param { kernel_size: 2 unpool: REP }', "REP is not supported"),
        ('"Unpooling" bottom: "m" unpooling_param { unpool_size: 8 }', "no kernel_size"),
        ('"Unpooling" bottom: "m" unpooling_param { kernel_size: 2 unpool_size: 8 pad: 1 }', "pad must be 0"),
        ('"Unpooling" bottom: "m" unpooling_param { kernel_size: 2 unpool_size: 8 unpool: AVE }', "not supported"),
        ('"Unpooling" bottom: "m" pooling_param { kernel_size: 2 pool: AVE }', "AVE is not supported"),
        ('"Unpooling" bottom: "m" pooling_param { kernel_size: 2 pad: 1 }', "pad must be 0"),
        ('"Unpooling" bottom: "m" pooling_param { stride: 2 }', "needs a kernel_size and a mask"),
        ('"Unpooling" pooling_param { kernel_size: 2 }', "needs a kernel_size and a mask"),
        ('"UnPooling" unpooling_param { unpool: REP out_kernel_size: 3 out_stride: 2 }', "do not overlap"),
        ('"UnPooling" unpooling_param { unpool: MAX out_kernel_size: 2 out_stride: 2 }', "REP only"),
        ('"ResizeBilinear"', "above 0"),
        ('"ResizeBilinear" resize_bilinear_param { output_height: 4 output_width: 4 data_format: "NHWC" }', "NHWC"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(layer: str, words: str) -> None:
    with pytest.raises(NetError, match=words):
        read_net(net_text(f'type: {layer} bottom: "x" top: "y"', x=(1, 2, 4, 4), m=(1, 2, 4, 4)))


def pooled_net(upsample: str, *shape: int) -> str:
    sizes = " ".join(f"dim: {size}" for size in shape)
    return f"""layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {sizes} }} }} }}
layer {{ name: "p" type: "Pooling" bottom: "x" top: "p" top: "mask" pooling_param {{ kernel_size: 2 stride: 2 }} }}
layer {{ name: "u" type: "Upsample" bottom: "p" bottom: "mask" top: "u" upsample_param {{ {upsample} }} }}"""


def test_a_plane_too_small_for_the_masks_indices_is_refused() -> None:
    with pytest.raises(NetError, match="10 x 10"):
        read_net(pooled_net("upsample_h: 9 upsample_w: 9", 1, 1, 10, 10))
    # a fixed size therefore limits the ONNX input
    twin = Twin(pooled_net("upsample_h: 10 upsample_w: 10", 1, 1, 10, 10))
    (x,) = twin.model.graph.input
    assert [d.dim_value for d in x.type.tensor_type.shape.dim][2:] == [10, 10]


def test_any_size_and_torch_export() -> None:
    twin = Twin(pooled_net("scale: 2", 2, 3, 8, 10))
    runs = [{"x": random_array(n, 3, h, w)} for n, h, w in ((2, 8, 10), (3, 4, 6), (4, 14, 4))]
    for run in runs:
        x = torch.from_numpy(run["x"])
        pooled, flat = F.max_pool2d(x, 2, return_indices=True)
        expected = F.max_unpool2d(pooled, flat, 2)
        np.testing.assert_array_equal(twin.run(0, **run)["u"], expected.numpy())
    assert_exports(twin, (0, 2, 3), *runs)


def test_a_mask_survives_half_precision() -> None:
    """Half precision represents whole numbers up to 2048; a plane of 100 x 100 has 10000 indices."""
    module = to_torch(read_net(pooled_net("scale: 2", 1, 1, 100, 100))).half()
    x = torch.from_numpy(random_array(1, 1, 100, 100)).half()
    with torch.no_grad():
        y = module(x)
    pooled, flat = F.max_pool2d(x.float(), 2, return_indices=True)
    assert torch.equal(y.float(), F.max_unpool2d(pooled, flat, 2))


@pytest.mark.parametrize("size", [(9, 11), (5, 6), (4, 4)])
def test_deconvnet_without_a_mask_uses_the_strides(size: tuple[int, int]) -> None:
    x = random_array(2, 3, 4, 5)
    rows, columns = (np.minimum(np.arange(count) * 2, last - 1) for count, last in zip((4, 5), size, strict=True))
    mask = np.broadcast_to(rows[:, None] * size[1] + columns, x.shape)
    param = f"unpooling_param {{ kernel_size: 2 stride: 2 unpool_h: {size[0]} unpool_w: {size[1]} }}"
    twin = Twin(net_text(f'type: "Unpooling" bottom: "x" top: "y" {param}', x=x.shape))
    np.testing.assert_array_equal(twin.run(0, x=x)["y"], unpool(x, mask, *size))


@pytest.mark.parametrize(
    "layer",
    [
        '"Upsample" upsample_param { scale: 3 }',
        '"UnPooling" unpooling_param { unpool: REP out_kernel_size: 3 out_stride: 3 }',
    ],
)
def test_pixels_repeat(layer: str) -> None:
    twin = Twin(net_text(f'type: {layer} bottom: "x" top: "y"', x=(2, 3, 4, 5)))
    runs = [{"x": random_array(n, 3, h, w)} for n, h, w in ((2, 4, 5), (3, 7, 2))]
    for run in runs:
        np.testing.assert_array_equal(twin.run(0, **run)["y"], run["x"].repeat(3, 2).repeat(3, 3))
    assert_exports(twin, (0, 2, 3), *runs)


@pytest.mark.parametrize(
    ("own", "other"), [((1, 1), (6, 9)), ((3, 4), (3, 4)), ((3, 4), (9, 8)), ((3, 4), (8, 9)), ((4, 5), (7, 6))]
)
def test_parsenet_repeats_until_the_plane_is_covered(own: tuple[int, int], other: tuple[int, int]) -> None:
    """ceil(H / h) copies, center-cropped; of an odd excess, one stays."""
    x = random_array(2, 3, *own)
    layer = 'type: "UnPooling" bottom: "x" bottom: "r" top: "y" unpooling_param { unpool: REP out_kernel_size: 0 }'
    y = Twin(net_text(layer, x=x.shape, r=(2, 1, *other))).run(0, x=x, r=np.zeros((2, 1, *other)))["y"]
    expected = x
    for axis, (have, want) in enumerate(zip(own, other, strict=True), 2):
        times = -(-want // have)
        pad = (have * times - want) // 2
        expected = expected.repeat(times, axis).take(range(pad, have * times - pad), axis)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("size", [(7, 9), (3, 2), (1, 1), (4, 5)])
def test_resize_from_tensorflow(aligned: bool, size: tuple[int, int]) -> None:
    x = random_array(2, 3, 4, 5)
    param = f"output_height: {size[0]} output_width: {size[1]} align_corners: {str(aligned).lower()}"
    y = Twin(
        net_text(f'type: "ResizeBilinear" bottom: "x" top: "y" resize_bilinear_param {{ {param} }}', x=x.shape)
    ).run(x=x)
    expected = x.astype(np.float64)
    for axis, (have, out) in enumerate(zip((4, 5), size, strict=True), 2):
        scale = (have - 1) / (out - 1) if aligned and out > 1 else have / out
        place = np.arange(out) * scale
        low = np.floor(place + 1e-9).astype(int)
        share = (place - low).reshape(-1, *(1,) * (3 - axis))
        expected = expected.take(low, axis) * (1 - share) + expected.take(np.minimum(low + 1, have - 1), axis) * share
    np.testing.assert_allclose(y["y"], expected, atol=1e-6)


def spread(x: Array, size: tuple[int, int], kernel: int, stride: int, pad: int, averages: bool) -> Array:
    """Value by value, as DeconvNet's GPU code for AVE and TILE adds them up."""
    y = np.zeros((*x.shape[:2], *size), np.float64)
    for i, j in np.ndindex(*x.shape[2:]):
        top, left = i * stride - pad, j * stride - pad
        bottom, right = min(top + kernel, size[0] + pad), min(left + kernel, size[1] + pad)
        area = (bottom - top) * (right - left) if averages else 1
        y[:, :, max(top, 0) : min(bottom, size[0]), max(left, 0) : min(right, size[1])] += (
            x[:, :, i, j, None, None] / area
        )
    return y


@pytest.mark.parametrize("method", ["AVE", "TILE"])
@pytest.mark.parametrize(
    ("param", "size", "kernel", "stride", "pad"),
    [
        ("kernel_size: 4 unpool_size: 9 stride: 2", (9, 9), 4, 2, 0),
        ("kernel_size: 2 unpool_h: 7 unpool_w: 12 stride: 2", (7, 12), 2, 2, 0),
        ("kernel_size: 3 stride: 2", (9, 11), 3, 2, 0),
        ("kernel_size: 3 stride: 2 pad: 1", (7, 9), 3, 2, 1),
        ("scale: 2", (8, 10), 2, 2, 0),
    ],
)
def test_values_are_added_to_their_windows(
    method: str, param: str, size: tuple[int, int], kernel: int, stride: int, pad: int
) -> None:
    x = random_array(2, 3, 4, 5)
    text = f'type: "Unpooling" bottom: "x" top: "y" unpooling_param {{ unpool: {method} {param} }}'
    wanted = spread(x, size, kernel, stride, pad, method == "AVE")
    np.testing.assert_allclose(Twin(net_text(text, x=x.shape)).run(x=x)["y"], wanted, rtol=1e-5, atol=1e-6)
