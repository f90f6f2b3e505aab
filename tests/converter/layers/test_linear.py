"""InnerProduct and Embed against real Caffe, at other batch sizes, with every axis, and with shared weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from atrous.converter import read_net, to_torch
from atrous.errors import NetError

from .converting import Twin, assert_exports, assert_matches, net_text, random_array


@pytest.mark.parametrize("case", ["ip-2d-nobias", "ip-4d", "ip-axis2", "ip-transpose", "dl1-ip-4d", "embed"])
def test_recorded(goldens: Path, case: str) -> None:
    assert_matches(goldens, case)


def inner_product(fields: str) -> str:
    return f'type: "InnerProduct" bottom: "x" top: "y" inner_product_param {{ {fields} }}'


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -3])
def test_any_axis(axis: int, transpose: bool) -> None:
    shape = (2, 3, 2, 4)
    outer, inner = shape[:axis], int(np.prod(shape[axis:]))
    weight, bias, x = random_array(5, inner), random_array(5, seed=1), random_array(*shape, seed=2)
    text = net_text(inner_product(f"num_output: 5 axis: {axis} transpose: {str(transpose).lower()}"), x=shape)
    twin = Twin(text, {"y": [weight.T if transpose else weight, bias]})
    assert twin.net.outputs[0].shape == (*outer, 5)
    expected = x.astype(np.float64).reshape(-1, inner) @ weight.T.astype(np.float64) + bias
    np.testing.assert_allclose(twin.run(1e-5, x=x)["y"], expected.reshape(*outer, 5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dialect", ["bvlc", "deeplab_v1"])
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_another_batch(dialect: str, batch: int) -> None:
    weight, x = random_array(1, 1, 4, 6), random_array(batch, 3, 2, 1, seed=1)
    text = net_text(inner_product("num_output: 4 bias_term: false"), x=(1, 3, 2, 1))
    y = Twin(text, {"y": [weight]}, dialect=dialect).run(x=x)["y"]
    expected = x.reshape(batch, 6) @ weight[0, 0].T
    np.testing.assert_allclose(y, expected.reshape(batch, 4, 1, 1) if dialect == "deeplab_v1" else expected, rtol=1e-5)


def test_tied_autoencoder_of_a_square_matrix() -> None:
    """A decoder that transposes the encoder's blob shares it untransposed, though both matrices are 3 x 3."""
    text = net_text(
        'type: "InnerProduct" bottom: "x" top: "h" param { name: "w" } '
        "inner_product_param { num_output: 3 bias_term: false }",
        x=(2, 3),
    ) + (
        'layer { name: "d" type: "InnerProduct" bottom: "h" top: "z" param { name: "w" } '
        "inner_product_param { num_output: 3 bias_term: false transpose: true } }"
    )
    weight, x = random_array(3, 3), random_array(2, 3, seed=1)
    twin = Twin(text, {"y": [weight], "d": [weight]})
    np.testing.assert_allclose(twin.run(x=x)["z"], x @ weight.T @ weight, rtol=1e-5)
    assert len(list(twin.module.parameters())) == 1
    assert len(twin.model.graph.initializer) == 1


def test_needs_outputs() -> None:
    with pytest.raises(NetError, match="0 outputs"):
        read_net(net_text(inner_product("bias_term: false"), x=(1, 3)))


def test_axis_out_of_range() -> None:
    with pytest.raises(NetError, match="axis 2 is out of range"):
        read_net(net_text(inner_product("num_output: 3 axis: 2"), x=(1, 3)))


EMBED = 'type: "Embed" bottom: "x" top: "y" embed_param { input_dim: 7 num_output: 4 bias_term: false }'


@pytest.mark.parametrize("shape", [(1,), (5, 1), (2, 3, 4)])
def test_embed_looks_up_rows(shape: tuple[int, ...]) -> None:
    table = random_array(7, 4)
    indices = np.random.default_rng(0).integers(0, 7, shape)
    y = Twin(net_text(EMBED, x=shape), {"y": [table]}).run(x=indices + 0.5)["y"]  # indices are truncated
    np.testing.assert_array_equal(y, table[indices])


def test_embed_needs_sizes() -> None:
    with pytest.raises(NetError, match="input_dim must be above 0"):
        read_net(net_text('type: "Embed" bottom: "x" top: "y" embed_param { num_output: 4 }', x=(1,)))


def test_work_and_view_of_a_classifier() -> None:
    (layer,) = read_net(net_text(inner_product("num_output: 10"), x=(2, 3, 5, 4))).layers
    assert layer.operator.multiply_adds() == 2 * 60 * 10
    window = layer.operator.window()
    assert window is not None
    assert window.kernel == (5, 4)


def test_runs_in_half_precision() -> None:
    module = to_torch(
        read_net(net_text(inner_product("num_output: 3"), x=(2, 4, 2, 2)), {"y": [random_array(3, 16), np.ones(3)]})
    )
    x = torch.from_numpy(random_array(2, 4, 2, 2))
    torch.testing.assert_close(module.half()(x.half()).float(), module.float()(x), rtol=1e-2, atol=1e-2)


def test_exports_with_a_dynamic_batch() -> None:
    twin = Twin(net_text(inner_product("num_output: 3"), x=(2, 4, 2, 2)))
    runs = [{"x": random_array(batch, 4, 2, 2)} for batch in (3, 5)]
    assert_exports(twin, (0,), *runs)
