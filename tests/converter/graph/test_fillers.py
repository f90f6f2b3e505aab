"""Fillers: Caffe's values where they are exact, Caffe's distributions where they are random."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from atrous.converter.graph.fillers import fill_blob
from atrous.errors import NetError
from atrous.proto import schema


def filler(kind: str = "constant", **values: Any) -> Any:
    return schema.message("FillerParameter")(type=kind, **values)


def test_constant() -> None:
    assert fill_blob("w", (2, 3), None).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert fill_blob("w", (2,), filler(value=1.5)).tolist() == [1.5, 1.5]
    assert fill_blob("w", (), filler(value=2)).shape == ()
    assert fill_blob("w", (2,), filler("")).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (1, [1]),
        (2, [0.5, 0.5]),
        (3, [0.5, 1, 0.5]),
        (4, [0.25, 0.75, 0.75, 0.25]),
        (5, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
    ],
)
def test_bilinear(width: int, line: list[float]) -> None:
    """The weights that upsample by ceil(width / 2): a triangle, by hand."""
    plane = fill_blob("w", (2, 3, width, width), filler("bilinear"))
    assert plane.dtype == np.float32
    np.testing.assert_allclose(plane, np.broadcast_to(np.outer(line, line), plane.shape), atol=1e-7)


@pytest.mark.parametrize("shape", [(), (4,), (4, 4), (1, 1, 3, 4)])
def test_bilinear_needs_a_square_plane(shape: tuple[int, ...]) -> None:
    with pytest.raises(NetError, match=r"square 4-D"):
        fill_blob("w", shape, filler("bilinear"))


def test_random_fillers_are_seeded_by_name() -> None:
    gaussian = filler("gaussian", std=1)
    first, again, other = (fill_blob(name, (50,), gaussian) for name in ("a", "a", "b"))
    assert (first == again).all()
    assert (first != other).any()


# (count of outputs, inputs, 3, 3): fan_in = 30 * 9, fan_out = 20 * 9
@pytest.mark.parametrize(("norm", "fan"), [(0, 270), (1, 180), (2, 225)])
def test_xavier_and_msra_scale_with_the_fan(norm: int, fan: float) -> None:
    shape = (20, 30, 3, 3)
    uniform = fill_blob("w", shape, filler("xavier", variance_norm=norm))
    bound = math.sqrt(3 / fan)
    assert np.abs(uniform).max() <= bound
    assert np.abs(uniform).max() > 0.98 * bound
    normal = fill_blob("w", shape, filler("msra", variance_norm=norm))
    assert normal.std() == pytest.approx(math.sqrt(2 / fan), rel=0.03)


def test_gaussian_and_uniform() -> None:
    normal = fill_blob("w", (100, 100), filler("gaussian", mean=3, std=0.5))
    assert normal.mean() == pytest.approx(3, abs=0.05)
    assert normal.std() == pytest.approx(0.5, rel=0.05)
    uniform = fill_blob("w", (100, 100), filler("uniform", min=-2, max=1))
    assert uniform.min() >= -2
    assert uniform.max() <= 1
    assert uniform.mean() == pytest.approx(-0.5, abs=0.05)


def test_sparse_gaussian_keeps_so_many_of_the_weights() -> None:
    values = fill_blob("w", (100, 100), filler("gaussian", std=1, sparse=10))
    assert (values != 0).mean() == pytest.approx(0.1, abs=0.02)


def test_positive_unitball_rows_sum_to_one() -> None:
    values = fill_blob("w", (4, 3, 2, 2), filler("positive_unitball"))
    assert values.min() >= 0
    np.testing.assert_allclose(values.reshape(4, -1).sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("kind", ["xavier", "msra", "positive_unitball", "gaussian", "uniform"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_random_fillers_take_any_number_of_axes(kind: str, shape: tuple[int, ...]) -> None:
    values = fill_blob("w", shape, filler(kind, std=1))
    assert values.shape == shape
    assert values.dtype == np.float32
    assert np.isfinite(values).all()


def test_unknown_filler() -> None:
    with pytest.raises(NetError, match=r'parameter "conv1/0": unknown filler type "xaviar"'):
        fill_blob("conv1/0", (3,), filler("xaviar"))


@pytest.mark.parametrize(
    "numbers",
    [
        {"kind": "uniform", "min": 0.5, "max": 0.4},
        {"kind": "uniform", "max": math.inf},
        {"kind": "uniform", "min": math.nan},
        {"kind": "gaussian", "std": -1},
        {"kind": "gaussian", "std": math.nan},
        {"kind": "gaussian", "mean": math.inf},
    ],
)
def test_impossible_numbers(numbers: dict[str, Any]) -> None:
    with pytest.raises(NetError, match=rf'parameter "c/0": a {numbers["kind"]} filler needs finite numbers'):
        fill_blob("c/0", (2, 3), filler(**numbers))


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "xavier", "msra"])
def test_blobs_without_elements(kind: str) -> None:
    assert fill_blob("c/0", (2, 0, 3), filler(kind)).shape == (2, 0, 3)
