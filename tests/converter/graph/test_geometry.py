"""Affine maps of pixels: composed, inverted, and compared with the pixels that a window covers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atrous.converter.graph.geometry import AxisMap, map_window
from atrous.converter.layers import Window

numbers = st.fractions(-20, 20, max_denominator=8)
maps = st.builds(AxisMap, numbers.filter(bool), numbers)


@given(maps, maps, maps)
def test_composition_is_associative_and_inverse_undoes(a: AxisMap, b: AxisMap, c: AxisMap) -> None:
    assert a.after(b).after(c) == a.after(b.after(c))
    assert a.inverse().after(a) == AxisMap() == a.after(a.inverse())


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pad", [0, 1, 4])
def test_a_window_maps_its_centre_of_mass(kernel: int, stride: int, pad: int) -> None:
    """The mean position that a convolution of ones reads for output o maps to o."""
    position = torch.arange(60.0).reshape(1, 1, -1)
    means = torch.nn.functional.conv1d(position, torch.full((1, 1, kernel), 1 / kernel), stride=stride)
    height, width = map_window(Window((kernel, kernel), (stride, stride), (pad, pad)))
    assert height == width
    for output, center in enumerate(means.flatten().tolist()):
        # the plane is not padded here, so Caffe's pixel x is at x + pad
        assert float(height.scale * Fraction(center - pad) + height.shift) == pytest.approx(output, abs=1e-4)


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(4, 2, 0), (4, 2, 1), (16, 8, 0), (3, 1, 1)])
def test_a_transposed_window_maps_its_centre_of_mass(kernel: int, stride: int, pad: int) -> None:
    height, _ = map_window(Window((kernel, kernel), (stride, stride), (pad, pad), upsampling=True))
    for pixel in range(3, 7):
        x = torch.zeros(1, 1, 12)
        x[0, 0, pixel] = 1
        y = torch.nn.functional.conv_transpose1d(x, torch.ones(1, 1, kernel), stride=stride, padding=pad)[0, 0].numpy()
        assert float(height.scale * pixel + height.shift) == pytest.approx(float(np.nonzero(y)[0].mean()))
