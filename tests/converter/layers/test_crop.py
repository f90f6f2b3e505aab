"""Both kinds of Crop, AutoCrop and MergeCrop: against real Caffe, and against coordinates computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atrous.converter import read_net, reshape_net, run_blobs, to_torch
from atrous.errors import CropOffsetError, NetError

from .converting import Twin, assert_exports, assert_matches, assert_refused, net_text, random_array

RECORDED = ["crf-autocrop", "crf-autocrop-skip", "crop-axis1", "crop-noparam", "crop-offset1", "crop-offsets"]


@pytest.mark.parametrize("case", RECORDED)
def test_recorded(goldens: Path, case: str) -> None:
    assert_matches(goldens, case)


@pytest.mark.parametrize(
    ("case", "words"), [("bad-crop-too-large", "has only 4"), ("bad-crf-crop-unrelated", "no blob leads to both")]
)
def test_refused_as_by_caffe(goldens: Path, case: str, words: str) -> None:
    assert words in assert_refused(goldens, case)


@pytest.mark.parametrize(
    ("param", "axis", "offsets"),
    [
        ("", 2, (0, 0)),
        ("crop_param { offset: 1 }", 2, (1, 1)),
        ("crop_param { axis: -1 offset: 2 }", 3, (2,)),
        ("crop_param { axis: 1 offset: 1 offset: 0 offset: 2 }", 1, (1, 0, 2)),
        ("crop_param { axis: 0 offset: 1 }", 0, (1, 1, 1, 1)),
    ],
)
def test_takes_the_rest_from_the_second_bottom(param: str, axis: int, offsets: tuple[int, ...]) -> None:
    x, reference = random_array(3, 4, 8, 9), random_array(2, 3, 5, 6)
    twin = Twin(net_text(f'type: "Crop" bottom: "x" bottom: "r" top: "y" {param}', x=x.shape, r=reference.shape))
    expected = x
    for number, offset in enumerate(offsets, axis):
        expected = np.take(expected, range(offset, offset + reference.shape[number]), number)
    np.testing.assert_array_equal(twin.run(x=x, r=reference)["y"], expected)


@pytest.mark.parametrize(
    ("param", "shapes", "words"),
    [
        ("crop_param { offset: 1 offset: 1 offset: 1 }", {"x": (1, 2, 8, 8), "r": (1, 2, 4, 4)}, "3 offsets"),
        ("crop_param { axis: 4 }", {"x": (1, 2, 8, 8), "r": (1, 2, 4, 4)}, "out of range"),
        ("crop_param { offset: 0 }", {"x": (1, 2, 8, 8), "r": (1, 2, 4)}, "must be equal"),
        ("", {"x": (1, 2, 3, 8), "r": (1, 2, 4, 4)}, "has only 3"),
    ],
)
def test_crops_that_do_not_fit_are_refused(param: str, shapes: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(NetError, match=words):
        read_net(net_text(f'type: "Crop" bottom: "x" bottom: "r" top: "y" {param}', **shapes))


INPUT_LAYER = """layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 2 dim: 21 dim: 19 } } }"""


def skip_net(pad: int, extra: str = "", *, kernel: int = 4, last: str = "", header: str = "") -> str:
    """An FCN-like net: downsampling with padding, upsampling, cropping to the input."""
    header = header or 'input: "data" input_dim: 1 input_dim: 2 input_dim: 21 input_dim: 19'
    return f"""{header}
layer {{ name: "c" type: "Convolution" bottom: "data" top: "c"
  convolution_param {{ num_output: 2 kernel_size: 3 pad: {pad} }} }}
layer {{ name: "r" type: "ReLU" bottom: "c" top: "c" }}
layer {{ name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param {{ kernel_size: 2 stride: 2 }} }}
{extra}
layer {{ name: "u" type: "Deconvolution" bottom: "p" top: "u"
  convolution_param {{ num_output: 2 kernel_size: {kernel} stride: 2 }} }}
layer {{ name: "crop" type: "Crop" bottom: "u" bottom: "data" top: "y" {last} }}"""


@pytest.mark.parametrize("pad", [2, 5, 30])
def test_offset_from_the_graph_by_hand(pad: int) -> None:
    """Conv: u = x + pad - 1. Pool: p = (u - 1/2) / 2. Deconv of 4 by 2: y = 2 p + 3/2. So y = x + pad, offset = pad."""
    (crop,) = [layer for layer in read_net(skip_net(pad)).layers if layer.name == "crop"]
    assert crop.operator.offsets == (pad, pad)
    assert crop.tops[0].shape == (1, 2, 21, 19)


def test_an_offset_from_the_graph_is_reported() -> None:
    (warning,) = read_net(skip_net(5)).warnings
    assert 'layer "crop"' in warning
    assert "(5, 5)" in warning
    assert "bvlc" in warning


@pytest.mark.parametrize(
    "text",
    [
        skip_net(5, header=INPUT_LAYER),
        skip_net(5, 'layer { name: "s" type: "Scale" bottom: "p" top: "p" }'),
        skip_net(5, last="crop_param { axis: 2 }"),
    ],
    ids=["Input layer", "Scale layer", "crop_param"],
)
def test_a_file_of_bvlc_caffe_crops_at_0(text: str) -> None:
    net = read_net(text)
    assert net.layers[-1].operator.offsets == (0, 0)
    assert not net.warnings


def test_the_caller_decides() -> None:
    assert read_net(skip_net(5), dialect="bvlc").layers[-1].operator.offsets == (0, 0)
    younger = skip_net(5, 'layer { name: "s" type: "Scale" bottom: "p" top: "p" }')
    assert read_net(younger, dialect="crfasrnn").layers[-1].operator.offsets == (5, 5)


def test_an_offset_of_half_a_pixel_is_refused() -> None:
    text = skip_net(5, kernel=3)
    net = read_net(text)
    assert net.layers[-1].operator.offsets == (0, 0)
    assert "4.5" in net.warnings[-1]
    with pytest.raises(CropOffsetError, match=r"4\.5"):
        read_net(text, dialect="crfasrnn")
    # reshaping keeps the offset
    assert reshape_net(net, {"data": (1, 2, 33, 33)}).layers[-1].operator.offsets == (0, 0)


def test_an_offset_below_0_is_refused() -> None:
    """One pixel of padding in the Deconvolution moves its top by one: the plane would start at -1."""
    text = skip_net(0).replace("4 stride: 2 } }", "4 stride: 2 pad: 1 } }")
    with pytest.raises(CropOffsetError, match="-1, not a whole number"):
        read_net(text, dialect="crfasrnn")


def test_another_scale_is_refused() -> None:
    text = skip_net(9).replace("kernel_size: 4 stride: 2", "kernel_size: 3 stride: 3")
    with pytest.raises(CropOffsetError, match=r"0\.66\d+ pixels of its second"):
        read_net(text, dialect="crfasrnn")


def test_a_layer_that_moves_pixels_is_named() -> None:
    flat = 'layer { name: "f" type: "Reshape" bottom: "p" top: "f" '
    flat += "reshape_param { shape { dim: 1 dim: 2 dim: -1 dim: 1 } } }"
    text = skip_net(5, flat)
    with pytest.raises(NetError, match='layer "f" of type Reshape does not keep pixels in place'):
        read_net(text.replace('bottom: "p" top: "u"', 'bottom: "f" top: "u"'), dialect="crfasrnn")


def test_autocrop_is_the_same_by_another_name() -> None:
    text = skip_net(5).replace('"Crop"', '"AutoCrop"')
    net, other = read_net(text), read_net(skip_net(5))
    assert net.layers[-1].operator.offsets == (5, 5)
    x = random_array(1, 2, 21, 19)
    left, right = (run_blobs(to_torch(n), {"data": x})["crop:y"] for n in (net, other))
    assert left.shape == right.shape == (1, 2, 21, 19)


def test_any_size_and_torch_export() -> None:
    """The offset is the same at other sizes, in torch and in ONNX Runtime."""
    weights = {"c": [random_array(2, 2, 3, 3), random_array(2)], "u": [random_array(2, 2, 4, 4), random_array(2)]}
    twin = Twin(skip_net(5), weights)
    runs = [{"data": random_array(n, 2, h, w)} for n, h, w in ((2, 8, 33), (1, 21, 19), (3, 5, 5))]
    for run in runs:
        assert twin.run(1e-5, **run)["y"].shape == run["data"].shape
    assert_exports(twin, (0, 2, 3), *runs)


@pytest.mark.parametrize(("operation", "channels"), [("STACK", 3), ("STACK", 2), ("ADD", 3)])
def test_merge_crop(operation: str, channels: int) -> None:
    small, large = random_array(2, 3, 4, 5), random_array(2, channels, 7, 5, seed=1)
    body = f'type: "MergeCrop" bottom: "a" bottom: "b" top: "y" mergecrop_param {{ operation: {operation} }}'
    text = net_text(body, a=small.shape, b=large.shape)
    center = large[:, :, 1:5]
    expected = small + center if operation == "ADD" else np.concatenate([small, center], 1)
    np.testing.assert_array_equal(Twin(text).run(a=small, b=large)["y"], expected)


@pytest.mark.parametrize(
    ("param", "a", "b", "words"),
    [
        ("mergecrop_param { forward: true forward: false }", (1, 2, 4, 4), (1, 2, 6, 6), "only training uses"),
        ("mergecrop_param { operation: ADD }", (1, 2, 4, 4), (1, 3, 6, 6), "equal batch and channels"),
        ("", (1, 2, 4, 4), (2, 2, 6, 6), "equal batch, has"),
        ("", (1, 2, 4, 7), (1, 2, 6, 6), "at least as large"),
    ],
)
def test_merge_crops_that_do_not_fit(param: str, a: tuple[int, ...], b: tuple[int, ...], words: str) -> None:
    with pytest.raises(NetError, match=words):
        read_net(net_text(f'type: "MergeCrop" bottom: "a" bottom: "b" top: "y" {param}', a=a, b=b))
