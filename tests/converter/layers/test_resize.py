"""Interp against bilinear sampling with aligned corners, for every form of the size; refused parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.errors import NetError

from .converting import Twin, assert_exports, net_text, random_array

Array = np.ndarray[Any, Any]


def twin(param: str, shape: tuple[int, ...], dialect: str | None = None) -> Twin:
    text = net_text(f'type: "Interp" bottom: "x" top: "y" interp_param {{ {param} }}', x=shape)
    return Twin(text, dialect=dialect)


def sample(x: Array, out: int, axis: int) -> Array:
    """Linear sampling along an axis with fixed ends; a single sample is the first value."""
    size = x.shape[axis]
    place = np.arange(out) * ((size - 1) / (out - 1) if out > 1 else 0.0)
    before = np.minimum(place.astype(int), size - 1)
    after = np.minimum(before + 1, size - 1)
    share = (place - before).reshape(-1, *(1,) * (x.ndim - 1 - axis))
    return x.take(before, axis) * (1 - share) + x.take(after, axis) * share


@settings(max_examples=70, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    begin=st.integers(-2, 0),
    end=st.integers(-2, 0),
    form=st.sampled_from(["shrink", "zoom", "size", "both", "zoom over size", "shrink over size", "size over both"]),
    factors=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    given=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_any_size(
    size: tuple[int, int], begin: int, end: int, form: str, factors: tuple[int, int], given: tuple[int, int]
) -> None:
    shrink, zoom = factors
    fields = {"shrink": f"shrink_factor: {shrink}", "zoom": f"zoom_factor: {zoom}"}
    fields["size"] = f"height: {given[0]} width: {given[1]}"
    fields["both"] = f"{fields['shrink']} {fields['zoom']}"
    text = " ".join(fields[name] for name in form.split(" over "))
    param = f"{text} pad_beg: {begin} pad_end: {end}"
    kept = [n + begin + end for n in size]
    x = random_array(2, 2, *size)
    if min(kept) < 1:
        with pytest.raises(NetError, match="crop all"):
            twin(param, x.shape)
        return
    sizes = {
        "shrink": [(n - 1) // shrink + 1 for n in kept],
        "zoom": [n + (n - 1) * (zoom - 1) for n in kept],
        "size": list(given),
        "both": [((n - 1) // shrink) * zoom + 1 for n in kept],
    }
    height, width = sizes[form.split(" over ")[0]]
    inner = x[:, :, -begin : size[0] + end, -begin : size[1] + end].astype(np.float64)
    wanted = sample(sample(inner, height, 2), width, 3)
    np.testing.assert_allclose(twin(param, x.shape).run(1e-5, x=x)["y"], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("param", "words"),
    [
        ("", "give zoom_factor, shrink_factor, or height and width"),
        ("height: 5", "give zoom_factor, shrink_factor, or height and width"),
        ("zoom_factor: 2 pad_beg: 1", "must not be above 0"),
        ("zoom_factor: 2 pad_end: 1", "must not be above 0"),
        ("zoom_factor: 0", "at least 1"),
        ("shrink_factor: 0", "at least 1"),
        ("height: 0 width: 4", "at least 1"),
        ("zoom_factor: 2 pad_beg: -3 pad_end: -3", "crop all"),
    ],
)
def test_refuses(param: str, words: str) -> None:
    with pytest.raises(NetError, match=words):
        twin(param, (1, 1, 6, 6))


@pytest.mark.parametrize("param", ["zoom_factor: 2 shrink_factor: 2", "zoom_factor: 2 height: 5 width: 5"])
def test_deeplab_v1_takes_one_form(param: str) -> None:
    with pytest.raises(NetError, match="more than one"):
        twin(param, (1, 1, 6, 6), "deeplab_v1")
    assert twin(param, (1, 1, 6, 6), "deeplab_v2").net.outputs


def test_exports_with_dynamic_sizes() -> None:
    net = twin("zoom_factor: 3 pad_beg: -1", (2, 2, 6, 5))
    assert_exports(net, (0, 2, 3), {"x": random_array(2, 2, 6, 5)}, {"x": random_array(3, 2, 4, 9)})


@pytest.mark.parametrize("plane", [(1, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize("size", [(7, 9), (1, 9), (7, 1)])
def test_no_resize_of_one_row_or_column(plane: tuple[int, int], size: tuple[int, int]) -> None:
    """OpenCV 5 reads outside such a plane."""
    form = f"reshape_param {{ shape {{ dim: 0 dim: 2 dim: {plane[0]} dim: {plane[1]} }} }}"
    interp = f"interp_param {{ height: {size[0]} width: {size[1]} }}"
    text = net_text(f'type: "Reshape" bottom: "x" top: "p" {form}', x=(1, 2 * plane[0] * plane[1]))
    net = Twin(text + f'layer {{ name: "z" type: "Interp" bottom: "p" top: "y" {interp} }}')
    x = random_array(1, 2 * plane[0] * plane[1])
    y, x = net.run(x=x)["y"], x.reshape(1, 2, *plane)
    np.testing.assert_allclose(y[:, :, 0, 0], x[:, :, 0, 0], atol=1e-6)
    np.testing.assert_allclose(y[:, :, -1, -1], x[:, :, -1 if size[0] > 1 else 0, -1 if size[1] > 1 else 0], atol=1e-6)
    kinds = [node.op_type for node in net.model.graph.node]
    assert kinds.count("Resize") == (plane != (1, 1))
    assert kinds.count("Expand") == 1
