"""Joining, splitting and reshaping axes: against real Caffe, against numpy, at sizes unknown at export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.converter import read_net
from atrous.converter.export.dynamic_axes import find_dynamic_axes
from atrous.errors import NetError

from .converting import Twin, assert_exports, assert_matches, assert_refused, net_text, random_array

RECORDED = [
    "concat-axis0",
    "concat-default",
    "concat-dim-legacy",
    "flatten-axis2",
    "flatten-default",
    "flatten-range",
    "reshape-0-neg1",
    "reshape-axis-neg-insert",
    "reshape-axis-numaxes",
    "reshape-empty-shape",
    "reshape-insert-front",
    "slice-dim-legacy",
    "slice-equal",
    "slice-points",
    "split-explicit",
    "graph-two-consumers-inplace-each",
    "ssd-permute",
    "tile-axis0",
    "tile-axis1",
]


@pytest.mark.parametrize("case", RECORDED)
def test_recorded(goldens: Path, case: str) -> None:
    assert_matches(goldens, case, tolerance=0 if "inplace" not in case else 1e-5)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("bad-concat-shape", "differ along axis 1 only"),
        ("bad-reshape-count", "cannot infer"),
        ("bad-slice-points-order", "increase"),
        ("bad-slice-uneven", "equal parts"),
        ("bad-ssd-permute-repeat", "twice"),
    ],
)
def test_refused_as_by_caffe(goldens: Path, case: str, words: str) -> None:
    assert words in assert_refused(goldens, case)


def one(layer: str, x: np.ndarray, shape: tuple[int, ...] | None = None) -> dict[str, np.ndarray]:
    """Run one layer, built for `shape` (by default the array's), on an array."""
    return Twin(net_text(f'{layer} bottom: "x"', x=shape or x.shape)).run(0, x=x)


SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(shape=SHAPES, data=st.data())
def test_flatten_of_any_range(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    end = data.draw(st.integers(max(axis - 1, 0), len(shape) - 1))
    x = random_array(*shape)
    y = one(f'type: "Flatten" top: "y" flatten_param {{ axis: {axis} end_axis: {end - len(shape)} }}', x)["y"]
    middle = int(np.prod(shape[axis : end + 1]))
    np.testing.assert_array_equal(y, x.reshape(*shape[:axis], middle, *shape[end + 1 :]))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shape=SHAPES, data=st.data())
def test_reshape_of_any_range(shape: tuple[int, ...], data: st.DataObject) -> None:
    """The values keep their order; 0 copies a size of the bottom, and -1 is inferred."""
    axis = data.draw(st.integers(0, len(shape)))
    num_axes = data.draw(st.integers(0, len(shape) - axis))
    replaced = shape[axis : axis + num_axes]
    dims = data.draw(st.permutations([*replaced, 1]).map(list))
    for index, dim in enumerate(dims):
        if axis + index < len(shape) and shape[axis + index] == dim and data.draw(st.booleans()):
            dims[index] = 0
    if data.draw(st.booleans()):
        dims[data.draw(st.integers(0, len(dims) - 1))] = -1
    sizes = [shape[axis + i] if d == 0 else d for i, d in enumerate(dims)]
    wanted = [*shape[:axis], *sizes, *shape[axis + num_axes :]]
    listed = " ".join(f"dim: {dim}" for dim in dims)
    start = data.draw(st.sampled_from([axis, axis - len(shape) - 1]))
    x = random_array(*shape)
    layer = f'type: "Reshape" top: "y" reshape_param {{ shape {{ {listed} }} axis: {start} num_axes: {num_axes} }}'
    np.testing.assert_array_equal(one(layer, x)["y"], x.reshape(wanted))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("shape { dim: -1 dim: -1 }", "one -1"),
        ("shape { dim: -2 }", "one -1"),
        ("shape { dim: 0 dim: 0 dim: 0 dim: 0 }", "does not have"),
        ("shape { dim: 2 dim: 11 }", "22 values"),
        ("axis: 4 shape { dim: 1 }", "axis 4 is out of range"),
        ("axis: -5 shape { dim: 1 }", "axis -5 is out of range"),
        ("axis: 1 num_axes: 3 shape { dim: -1 }", "num_axes 3"),
        ("num_axes: -2 shape { dim: -1 }", "num_axes -2"),
    ],
)
def test_reshape_refuses(fields: str, words: str) -> None:
    with pytest.raises(NetError, match=words):
        read_net(net_text(f'type: "Reshape" bottom: "x" top: "y" reshape_param {{ {fields} }}', x=(2, 3, 4)))


def test_flatten_refuses_an_end_before_its_start() -> None:
    with pytest.raises(NetError, match="is before"):
        read_net(net_text('type: "Flatten" bottom: "x" top: "y" flatten_param { axis: 2 end_axis: 0 }', x=(2, 3, 4)))


def test_flatten_of_deeplab_v1_keeps_four_axes() -> None:
    x = random_array(3, 2, 4, 5)
    twin = Twin(net_text('type: "Flatten" bottom: "x" top: "y"', x=(1, 2, 4, 5)), dialect="deeplab_v1")
    np.testing.assert_array_equal(twin.run(0, x=x)["y"], x.reshape(3, 40, 1, 1))


@pytest.mark.parametrize("layer", ['type: "Flatten"', 'type: "Reshape" reshape_param { shape { dim: 0 dim: -1 } }'])
def test_views_do_not_run_in_place(layer: str) -> None:
    with pytest.raises(NetError, match="in place"):
        read_net(net_text(f'{layer} bottom: "x" top: "x"', x=(2, 3)))


@pytest.mark.parametrize(
    ("layer", "shape", "sizes"),
    [
        ('type: "Flatten" top: "y"', (1, 2, 3, 3), (4, 2, 3, 3)),
        ('type: "Flatten" top: "y" flatten_param { axis: 2 }', (1, 2, 3, 3), (2, 2, 5, 1)),
        ('type: "Flatten" top: "y" flatten_param { axis: 1 end_axis: 2 }', (1, 2, 3, 3), (2, 2, 5, 7)),
        (
            'type: "Reshape" top: "y" reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 0 } }',
            (1, 4, 3, 3),
            (3, 4, 7, 5),
        ),
        (
            'type: "Reshape" top: "y" reshape_param { shape { dim: 2 dim: -1 } axis: 1 num_axes: 1 }',
            (1, 4, 3, 3),
            (2, 4, 5, 1),
        ),
        ('type: "Permute" top: "y" permute_param { order: 0 order: 2 order: 3 }', (1, 2, 3, 3), (2, 2, 5, 7)),
        ('type: "Tile" top: "y" tile_param { axis: 3 tiles: 3 }', (1, 2, 3, 3), (2, 2, 1, 5)),
        ('type: "Slice" top: "y" top: "z" slice_param { axis: 2 }', (1, 2, 4, 3), (2, 2, 6, 5)),
        ('type: "Slice" top: "y" top: "z" slice_param { axis: 2 slice_point: 1 }', (1, 2, 4, 3), (2, 2, 7, 1)),
        ('type: "Slice" top: "y" top: "z" slice_param { axis: 0 }', (2, 2, 4, 3), (6, 2, 5, 5)),
        ('type: "Squeeze" top: "y" squeeze_param { axis: 1 }', (1, 1, 3, 3), (2, 1, 5, 7)),
    ],
)
def test_sizes_unknown_when_the_graph_was_written(layer: str, shape: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    x = random_array(*sizes)
    for name, value in one(layer, x).items():
        np.testing.assert_array_equal(one(layer, x, shape)[name], value)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(shape=SHAPES, data=st.data())
def test_slice_and_concat_undo_each_other(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    points = sorted(data.draw(st.sets(st.integers(1, size), max_size=min(3, size - 1))))
    tops = [f"t{index}" for index in range(len(points) + 1)]
    bottoms, names = (" ".join(f'{role}: "{top}"' for top in tops) for role in ("bottom", "top"))
    listed = " ".join(f"slice_point: {point}" for point in points)
    layer = f'type: "Slice" bottom: "x" {names} slice_param {{ axis: {axis} {listed} }}'
    joined = f'layer {{ name: "j" type: "Concat" {bottoms} top: "j" concat_param {{ axis: {axis} }} }}'
    x = random_array(*shape)
    blobs = Twin(net_text(layer, x=shape) + joined).run(0, x=x)
    np.testing.assert_array_equal(blobs["j"], x)
    for top, part in zip(tops, np.split(x, points, axis), strict=True):
        np.testing.assert_array_equal(blobs[top], part)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ('type: "Slice" top: "a" top: "b" slice_param { slice_point: 1 slice_point: 2 }', "give 1"),
        ('type: "Slice" top: "a" top: "b" slice_param { slice_point: 0 }', "increase"),
        (
            'type: "Slice" top: "a" top: "b" top: "c" top: "d" top: "e" '
            "slice_param { slice_point: 1 slice_point: 2 slice_point: 3 slice_point: 4 }",
            "5 tops for axis 1 of size 4",
        ),
        ('type: "Slice" top: "a" top: "b" slice_param { slice_point: 5 }', "axis 1 of size 4"),
        ('type: "Slice" top: "a" top: "b" slice_param { axis: 1 slice_dim: 1 }', "keep axis"),
        ('type: "Slice" top: "a" top: "b" slice_param { slice_dim: 9 }', "axis 9 is out of range"),
        ('type: "Concat" top: "a" concat_param { axis: 1 concat_dim: 1 }', "keep axis"),
        ('type: "Concat" top: "a" concat_param { axis: -5 }', "axis -5 is out of range"),
        ('type: "Permute" top: "a" permute_param { order: 4 }', "out of range"),
        ('type: "Tile" top: "a"', "not 0"),
        ('type: "Tile" top: "a" tile_param { tiles: -1 }', "not -1"),
        ('type: "Tile" top: "a" tile_param { axis: 4 tiles: 2 }', "axis 4 is out of range"),
        ('type: "Squeeze" top: "a" squeeze_param { axis: 1 }', "has size 4"),
    ],
)
def test_refuses(layer: str, words: str) -> None:
    with pytest.raises(NetError, match=words):
        read_net(net_text(f'{layer} bottom: "x"', x=(2, 4, 3, 3)))


def test_one_slice_and_one_split_are_the_bottom_itself() -> None:
    x = random_array(2, 3)
    for kind in ("Slice", "Split", "Concat"):
        np.testing.assert_array_equal(one(f'type: "{kind}" top: "y"', x)["y"], x)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(shape=SHAPES, data=st.data())
def test_permute_appends_what_is_not_listed(shape: tuple[int, ...], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    listed = order[: data.draw(st.integers(0, len(order)))]
    full = [*listed, *sorted(set(order) - set(listed))]
    x = random_array(*shape)
    fields = " ".join(f"order: {axis}" for axis in listed)
    y = one(f'type: "Permute" top: "y" permute_param {{ {fields} }}', x)["y"]
    np.testing.assert_array_equal(y, x.transpose(full))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_tile_repeats_what_lies_behind_the_axis(axis: int) -> None:
    x = random_array(2, 3, 2)
    y = one(f'type: "Tile" top: "y" tile_param {{ axis: {axis} tiles: 3 }}', x)["y"]
    np.testing.assert_array_equal(y, np.concatenate([x] * 3, axis))


class TestSqueeze:
    def test_listed_axes(self) -> None:
        x = random_array(2, 1, 3, 1)
        np.testing.assert_array_equal(
            one('type: "Squeeze" top: "y" squeeze_param { axis: -1 axis: 1 }', x)["y"], x[:, 0, :, 0]
        )

    def test_all_axes_of_size_one(self) -> None:
        x = random_array(2, 1, 3, 1, 1)
        np.testing.assert_array_equal(one('type: "Squeeze" top: "y"', x)["y"], x.reshape(2, 3))

    def test_nothing_to_squeeze(self) -> None:
        x = random_array(2, 3)
        np.testing.assert_array_equal(one('type: "Squeeze" top: "y"', x)["y"], x)

    def test_an_axis_that_is_removed_for_being_one_stays_one(self) -> None:
        """The batch too: another batch would leave another number of axes."""
        net = read_net(net_text('type: "Squeeze" bottom: "x" top: "y"', x=(1, 2, 1, 1)))
        assert find_dynamic_axes(net).sizes(net.inputs[0]) == [1, 2, 1, 1]
        x = random_array(1, 2, 1, 1)
        np.testing.assert_array_equal(one('type: "Squeeze" top: "y"', x)["y"], x[0, :, 0, 0])


def test_exports_with_dynamic_sizes() -> None:
    text = net_text('type: "Slice" bottom: "x" top: "a" top: "b" slice_param { axis: 2 }', x=(1, 4, 6, 3)) + (
        'layer { name: "j" type: "Concat" bottom: "a" bottom: "b" top: "j" concat_param { axis: 3 } }'
        'layer { name: "t" type: "Tile" bottom: "j" top: "t" tile_param { axis: 1 tiles: 2 } }'
        'layer { name: "p" type: "Permute" bottom: "t" top: "p" permute_param { order: 0 order: 2 order: 3 order: 1 } }'
        'layer { name: "r" type: "Reshape" bottom: "p" top: "r" reshape_param { shape { dim: 0 dim: -1 dim: 2 } } }'
        'layer { name: "f" type: "Flatten" bottom: "r" top: "f" flatten_param { axis: 1 } }'
    )
    runs = [{"x": random_array(2, 4, 10, 7)}, {"x": random_array(3, 4, 4, 5)}]
    twin = Twin(text)
    for arrays in runs:
        twin.run(0, **arrays)
    assert_exports(twin, (0, 2, 3), *runs)
