"""Reduction, ArgMax, BatchReindex and Filter against real Caffe; ties, every axis, and every opset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.converter import export_onnx, read_net, to_torch
from atrous.errors import ExportError, NetError

from .converting import Twin, assert_exports, assert_matches, assert_refused, net_text, random_array

EXACT = [
    "argmax-2d",
    "argmax-axis1",
    "argmax-axis1-maxval",
    "argmax-axis1-topk",
    "argmax-default",
    "argmax-maxval",
    "argmax-ties-axis",
    "argmax-ties-noaxis",
    "argmax-topk",
    "dl1-argmax",
    "dl1-argmax-top2-val",
    "batchreindex",
    "filter",
]


@pytest.mark.parametrize("case", EXACT)
def test_recorded_choice(goldens: Path, case: str) -> None:
    assert_matches(goldens, case, tolerance=0)


@pytest.mark.parametrize(
    "case", ["reduction-asum-axis1", "reduction-mean-axis", "reduction-sum", "reduction-sumsq-coeff"]
)
def test_recorded_reduction(goldens: Path, case: str) -> None:
    assert_matches(goldens, case)


def test_top_k_beyond_the_axis_is_refused(goldens: Path) -> None:
    assert "top_k 4" in assert_refused(goldens, "bad-argmax-topk")


def twin(layer: str, shape: tuple[int, ...], **options) -> Twin:
    return Twin(net_text(f'{layer} bottom: "x" top: "y"', x=shape), **options)


REDUCED = {
    "SUM": lambda x: x.sum(-1),
    "ASUM": lambda x: np.abs(x).sum(-1),
    "SUMSQ": lambda x: (x * x).sum(-1),
    "MEAN": lambda x: x.mean(-1),
}


@pytest.mark.parametrize("opset", [17, 18, 21])
@pytest.mark.parametrize("axis", [0, 1, 3, -2])
@pytest.mark.parametrize("operation", REDUCED)
def test_reduction_from_any_axis(operation: str, axis: int, opset: int) -> None:
    layer = f'type: "Reduction" reduction_param {{ operation: {operation} axis: {axis} coeff: -2 }}'
    pair = twin(layer, (1, 2, 3, 4), opset=opset)
    x = random_array(2, 2, 5, 1)
    flat = x.astype(np.float64).reshape(*x.shape[:axis], -1)
    np.testing.assert_allclose(pair.run(x=x)["y"], -2 * REDUCED[operation](flat), rtol=1e-5, atol=1e-5)


def largest(values: np.ndarray, k: int) -> np.ndarray:
    """Indices along the last axis by descending value, then descending index."""
    length = values.shape[-1]
    order = np.lexsort((np.broadcast_to(-np.arange(length), values.shape), -values), axis=-1)
    return order[..., :k]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple),
    data=st.data(),
    values=st.booleans(),
    seed=st.integers(0, 9),
)
def test_argmax_with_ties(shape: tuple[int, ...], data: st.DataObject, values: bool, seed: int) -> None:
    """Three distinct values, so that ties are frequent; with and without an axis."""
    axis = data.draw(st.none() | st.integers(0, len(shape) - 1))
    x = np.random.default_rng(seed).integers(0, 3, shape).astype(np.float32)
    choices = x.reshape(shape[0], -1) if axis is None else np.moveaxis(x, axis, -1)
    k = data.draw(st.integers(1, choices.shape[-1]))
    fields = f"top_k: {k} out_max_val: {str(values).lower()}" + ("" if axis is None else f" axis: {axis}")
    y = twin(f'type: "ArgMax" argmax_param {{ {fields} }}', shape).run(0, x=x)["y"]
    indices = largest(choices, k)
    maxima = np.take_along_axis(choices, indices, -1)
    if axis is None:
        rows = [indices, maxima] if values else [indices]
        wanted = np.stack(rows, 1).reshape(shape[0], len(rows), k, *(1,) * (len(shape) - 3))
    else:
        wanted = np.moveaxis(maxima if values else indices, -1, axis)
    np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("opset", [17, 18, 21])
@pytest.mark.parametrize("fields", ["", "out_max_val: true", "top_k: 2", "top_k: 3 out_max_val: true"])
@pytest.mark.parametrize("axis", ["", "axis: 1", "axis: -1"])
@pytest.mark.parametrize("dialect", ["bvlc", "deeplab_v1"])
def test_argmax_of_another_size(dialect: str, axis: str, fields: str, opset: int) -> None:
    """A graph written for one size gives the same result at another size as a graph written for that size."""
    layer = f'type: "ArgMax" argmax_param {{ {fields} {axis} }}'
    x = np.random.default_rng(0).integers(0, 3, (2, 5, 3, 4)).astype(np.float32)
    y = twin(layer, (1, 5, 6, 7), dialect=dialect, opset=opset).run(0, x=x)["y"]
    np.testing.assert_array_equal(y, twin(layer, x.shape, dialect=dialect).run(0, x=x)["y"])


def test_argmax_of_deeplab_v1_is_per_pixel() -> None:
    x = np.random.default_rng(0).integers(0, 3, (2, 5, 3, 4)).astype(np.float32)
    y = twin('type: "ArgMax" argmax_param { top_k: 2 out_max_val: true }', x.shape, dialect="deeplab_v1").run(0, x=x)[
        "y"
    ]
    indices = largest(np.moveaxis(x, 1, -1), 2)
    maxima = np.take_along_axis(np.moveaxis(x, 1, -1), indices, -1)
    np.testing.assert_array_equal(y, np.concatenate([np.moveaxis(indices, -1, 1), np.moveaxis(maxima, -1, 1)], 1))


@pytest.mark.parametrize("fields", ["top_k: 0", "top_k: 25", "axis: 4", "axis: 1 top_k: 3"])
def test_argmax_refuses(fields: str) -> None:
    with pytest.raises(NetError, match=r"top_k|out of range"):
        twin(f'type: "ArgMax" argmax_param {{ {fields} }}', (3, 2, 3, 4))


@pytest.mark.parametrize("count", [1, 5])
def test_batch_reindex_repeats_and_leaves_out(count: int) -> None:
    x = random_array(4, 2, 3)
    text = net_text('type: "BatchReindex" bottom: "x" bottom: "i" top: "y"', x=(4, 2, 3), i=(3,))
    order = np.random.default_rng(1).integers(0, 4, 3)
    np.testing.assert_array_equal(Twin(text).run(0, x=x, i=order)["y"], x[order])


def test_batch_reindex_needs_a_list() -> None:
    with pytest.raises(NetError, match="1-D list"):
        read_net(net_text('type: "BatchReindex" bottom: "x" bottom: "i" top: "y"', x=(4, 2, 3), i=(3, 1)))


FILTER = 'type: "Filter" bottom: "a" bottom: "b" bottom: "s" top: "y" top: "z"'


@pytest.mark.parametrize("selector", [[0, -1, 0.5, 0], [0, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
def test_filter_keeps_items_of_every_bottom(selector: list[float]) -> None:
    a, b, kept = random_array(len(selector), 2, 3, 3), random_array(len(selector), 5), np.array(selector) != 0
    tops = Twin(net_text(FILTER, a=(4, 2, 3, 3), b=(4, 5), s=(4, 1))).run(0, a=a, b=b, s=np.array(selector)[:, None])
    np.testing.assert_array_equal(tops["y"], a[kept])
    np.testing.assert_array_equal(tops["z"], b[kept])


def test_filter_of_a_fixed_batch_has_no_onnx_form() -> None:
    text = net_text(
        'type: "Reshape" bottom: "x" top: "r" reshape_param { shape { dim: 2 dim: 3 } }', x=(1, 2, 3, 1)
    ) + ('layer { name: "f" type: "Filter" bottom: "r" bottom: "r2" top: "f" }')
    text = text.replace(
        'layer { name: "f"',
        'layer { name: "t" type: "Reduction" bottom: "r" top: "r2" reduction_param { axis: 1 } } layer { name: "f"',
    )
    net = read_net(text)
    module = to_torch(net)
    x = torch.tensor([[1.0, 0, 0], [1, -1, 0]])
    assert module(x.reshape(1, 2, 3, 1)).tolist() == [[1, 0, 0]]
    with pytest.raises(ExportError, match="batch is fixed"):
        export_onnx(net, module)


@pytest.mark.parametrize(
    ("shapes", "tops", "words"),
    [
        ({"a": (4, 2), "s": (4, 2)}, 'top: "y"', "one value for each item"),
        ({"a": (4, 2), "s": (3,)}, 'top: "y"', "a bottom has shape"),
        ({"a": (4, 2), "s": (4,)}, 'top: "y" top: "z"', "2 tops for 1 bottoms"),
    ],
)
def test_filter_refuses(shapes: dict[str, tuple[int, ...]], tops: str, words: str) -> None:
    with pytest.raises(NetError, match=words):
        read_net(net_text(f'type: "Filter" bottom: "a" bottom: "s" {tops}', **shapes))


@pytest.mark.parametrize("fields", ["", "top_k: 2 out_max_val: true", "axis: 1", "axis: 3 top_k: 2"])
def test_exports_with_dynamic_sizes(fields: str) -> None:
    runs = [{"x": random_array(2, 4, 9, 10)}, {"x": random_array(3, 4, 12, 7)}]
    assert_exports(twin(f'type: "ArgMax" argmax_param {{ {fields} }}', (1, 4, 8, 8)), (0, 2, 3), *runs)


def test_mask_create_is_the_best_class_of_every_pixel() -> None:
    x = np.random.default_rng(0).integers(0, 4, (2, 5, 6, 7)).astype(np.float32)  # many ties
    layer = 'type: "MaskCreate" bottom: "x" top: "y" mask_create_param { num_cls: 5 }'
    y = Twin(net_text(layer, x=x.shape)).run(0, x=x)["y"]
    np.testing.assert_array_equal(y, 4 - x[:, ::-1].argmax(1, keepdims=True))  # the larger index wins ties
    with pytest.raises(NetError, match="num_cls = 6"):
        Twin(net_text(layer.replace("5", "6"), x=x.shape))
