"""Every mistake that crashed other implementations, or gave wrong labels in silence, is one clear error here."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from atrous.bundle.crf_parameters import BilateralTerm, GaussianTerm
from atrous.runtime.crf import CrfInputError, CrfParameters, CrfWarning, DenseCRF, dense_crf

from .conftest import make_problem

IMAGE, PROBABILITIES = make_problem(19, 26, 5)
LABELS, HEIGHT, WIDTH = PROBABILITIES.shape


def with_value(array: np.ndarray[Any, Any], value: float) -> np.ndarray[Any, Any]:
    changed = array.copy()
    changed[2, 3, 4] = value
    return changed


@pytest.mark.parametrize(
    ("image", "probabilities", "message"),
    [
        (IMAGE, PROBABILITIES.transpose(1, 2, 0), "labels are last"),
        (IMAGE, PROBABILITIES.transpose(0, 2, 1), "height and width are swapped"),
        (IMAGE, PROBABILITIES.reshape(LABELS, -1), "it is flat"),
        (IMAGE, PROBABILITIES[:, :-1], "labels first"),
        (IMAGE, PROBABILITIES.astype(np.float64), "float32, got float64"),
        (IMAGE, PROBABILITIES.astype(np.float16), "float32, got float16"),
        (IMAGE, np.zeros((LABELS, HEIGHT, WIDTH), np.int32), "label map"),
        (IMAGE, np.log(PROBABILITIES), "pass them as scores"),
        (IMAGE, PROBABILITIES * 0.5, "sum to 0.5"),
        (IMAGE, with_value(PROBABILITIES, np.nan), "NaN or infinite"),
        (IMAGE, with_value(PROBABILITIES, np.inf), "NaN or infinite"),
        (IMAGE, with_value(PROBABILITIES, -np.inf), "NaN or infinite"),
        (IMAGE, "probabilities", "must be an array"),
        (IMAGE.astype(np.float64), PROBABILITIES, "uint8"),
        (IMAGE.astype(np.int64), PROBABILITIES, "uint8"),
        (IMAGE[:, ::-1], PROBABILITIES, "ascontiguousarray"),
        (IMAGE.transpose(2, 0, 1).copy(), PROBABILITIES, "channels-first"),
        (IMAGE[None], PROBABILITIES, "axes and channels last"),
        (np.full(IMAGE.shape, np.nan, np.float32), PROBABILITIES, "NaN"),
    ],
)
def test_wrong_arrays(image: Any, probabilities: Any, message: str) -> None:
    with pytest.raises(CrfInputError, match=message):
        dense_crf(image, probabilities)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bilateral": (121, 0.001, 4)}, "too small"),
        ({"bilateral": (121, 0.0, 4)}, "positive"),
        ({"bilateral": (121, float("nan"), 4)}, "positive"),
        ({"bilateral": (121, (5, 5), 4)}, "2 values for 3"),
        ({"gaussian": (-3, 3)}, "positive"),
        ({"gaussian": ((3, 3, 3), 3)}, "3 values for 2"),
        ({"gaussian": (3, float("inf"))}, "finite"),
        ({"gaussian": (3, "heavy")}, "number"),
        ({"gaussian": 3}, "tuple"),
        ({"iterations": -1}, "iterations"),
        ({"iterations": 2.5}, "iterations"),
        ({"mode": "caffe"}, "unknown"),
        ({"threads": 0}, "threads"),
        ({"clip": 0.0}, "clip"),
        ({"clip": 1e-300}, "clip"),
        ({"iterations": 2**40}, "iterations"),
        ({"settle": "much"}, "settle"),
        ({"parameters": {"mode": "deeplab"}}, "from_dict"),
        ({"tolerance": 2.0}, "tolerance"),
        ({"prune": 1.5}, "below"),
        ({"prune": "all"}, "prune"),
        ({"storage": "int8"}, "storage"),
        ({"backend": "cuda"}, "backend"),
        ({"mask": np.ones((3, 3), bool)}, "mask"),
        ({"scores": PROBABILITIES}, "either"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CrfInputError, match=message):
        dense_crf(IMAGE, PROBABILITIES, **options)


@pytest.mark.parametrize(
    "argument",
    [{"mode": "deeplab"}, {"iterations": 50}, {"gaussian": None}, {"gaussian": (3, 3)}, {"bilateral": (121, 5, 4)}],
)
def test_parameters_replace_their_arguments(argument: dict[str, Any]) -> None:
    with pytest.raises(CrfInputError, match=f"parameters and {next(iter(argument))} are both given"):
        dense_crf(IMAGE, PROBABILITIES, parameters=CrfParameters(), **argument)


def test_defaults_are_those_of_parameters() -> None:
    expected = dense_crf(IMAGE, PROBABILITIES, parameters=CrfParameters())
    np.testing.assert_array_equal(dense_crf(IMAGE, PROBABILITIES), expected)
    explicit: dict[str, Any] = {"mode": "deeplab", "iterations": 10, "gaussian": (3, 3), "bilateral": (121, 5, 4)}
    np.testing.assert_array_equal(dense_crf(IMAGE, PROBABILITIES, **explicit), expected)


@pytest.mark.parametrize("scale", [lambda image: image / 255, lambda image: image / 127.5 - 1])
def test_a_scaled_image_with_srgb_of_a_photo_warns(scale: Any) -> None:
    scaled = scale(IMAGE).astype(np.float32)
    with pytest.warns(CrfWarning, match="color hardly counts") as caught:
        dense_crf(scaled, PROBABILITIES)
    assert caught[0].filename == __file__
    dense_crf(scaled, PROBABILITIES, bilateral=(121, 0.02, 4))  # in the units of the image
    dense_crf(IMAGE.astype(np.float32), PROBABILITIES)
    dense_crf(np.zeros_like(scaled), PROBABILITIES)  # nothing to scale
    dense_crf(IMAGE // 64 + 100, PROBABILITIES, reduce=2)  # a photo of low contrast, averaged to floats


def test_swapped_image_is_named() -> None:
    crf = DenseCRF((WIDTH, HEIGHT), LABELS)
    with pytest.raises(CrfInputError, match="width and height are swapped"):
        crf.add_bilateral(3, 3, IMAGE, 3)


@pytest.mark.parametrize(
    ("shape", "labels"),
    [
        ((0, 4), 2),
        ((4, 4), 0),
        ((4, 4), 70000),
        ((60000, 60000), 2),
        ((), 2),
        ((-1, 4), 2),
        ((4.5, 4), 2),
        ((4, 4), 2.5),
    ],
)
def test_impossible_sizes(shape: tuple[int, ...], labels: int) -> None:
    with pytest.raises(CrfInputError):
        DenseCRF(shape, labels)


def test_too_many_entries_are_refused_before_allocation() -> None:
    crf = DenseCRF((30000, 30000), 2)
    with pytest.raises(CrfInputError, match="tiles"):
        crf.add_gaussian(3, 3)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((2, 9), np.float64), "float32"),
        (np.zeros((9, 2), np.float32), "transpose"),
        (np.zeros((2, 18), np.float32)[:, ::2], "contiguous"),
        (np.full((2, 9), np.nan, np.float32), "NaN"),
        (np.full((2, 9), 1e9, np.float32), "larger sigma"),
        (np.zeros((65, 9), np.float32), "dimensions"),
    ],
)
def test_wrong_features(features: Any, message: str) -> None:
    with pytest.raises(CrfInputError, match=message):
        DenseCRF(9, 2).add_features(features, 1.0)


@pytest.mark.parametrize(
    "compatibility",
    [
        np.zeros(4, np.float32),
        np.zeros((5, 4), np.float32),
        "x",
        [[np.nan] * 5] * 5,
        [[1.0], [1.0, 2.0]],
        1e39,  # beyond float32
        3e38,  # its messages are beyond float32
        np.full(5, -1e39),
        np.full((5, 5), 3e38, np.float32),
    ],
)
def test_wrong_compatibilities(compatibility: Any) -> None:
    with pytest.raises(CrfInputError):
        DenseCRF((4, 4), 5).add_gaussian(3, compatibility)


@pytest.mark.parametrize("energy", [2e30, 3e38, -3e38])
def test_energies_that_would_overflow(energy: float) -> None:
    with pytest.raises(CrfInputError, match="cap them"):
        DenseCRF((4, 4), 2).set_unary(np.full((2, 4, 4), energy, np.float32))


@pytest.mark.parametrize("setter", ["set_unary", "set_scores", "set_probabilities"])
def test_a_refused_unary_leaves_none(setter: str) -> None:
    crf = DenseCRF((HEIGHT, WIDTH), LABELS)
    crf.set_probabilities(PROBABILITIES)
    with pytest.raises(CrfInputError, match="NaN"):
        getattr(crf, setter)(with_value(PROBABILITIES, np.nan))
    with pytest.raises(CrfInputError, match="needs a unary"):
        crf.inference(1)


def test_wrong_label_count_is_named_on_a_square_grid() -> None:
    with pytest.raises(CrfInputError, match="made for 3 labels"):
        DenseCRF((4, 4), 3).set_unary(np.zeros((2, 4, 4), np.float32))


def test_marginals_need_a_unary_and_finite_values() -> None:
    crf = DenseCRF((HEIGHT, WIDTH), LABELS)
    crf.set_marginals(PROBABILITIES)
    with pytest.raises(CrfInputError, match="needs a unary"):
        crf.kl_divergence()
    with pytest.raises(CrfInputError, match="NaN"):
        crf.set_marginals(with_value(PROBABILITIES, np.nan))


def test_order_of_calls() -> None:
    crf = DenseCRF((4, 4), 2)
    for call in (lambda: crf.inference(1), crf.step, crf.kl_divergence, crf.prune_labels, crf.unary_energies):
        with pytest.raises(CrfInputError):
            call()
    with pytest.raises(CrfInputError, match="warm"):
        crf.inference(1, warm=True)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"mode": "deeplab", "iterations": 10, "gaussian": [], "bilateral": [], "extra": 1},
        {"mode": "deeplab", "iterations": 10, "gaussian": [{"sxy": 3.0}], "bilateral": []},
        {"mode": "deeplab", "iterations": 10, "gaussian": [{"sxy": "wide", "weight": 3}], "bilateral": []},
        {"mode": "deeplab", "iterations": 10, "gaussian": [{"sxy": 3.0, "weight": "heavy"}], "bilateral": []},
        {"mode": "deeplab", "iterations": 10, "gaussian": [5], "bilateral": []},
        {"mode": "deeplab", "iterations": 10, "gaussian": 5, "bilateral": []},
        {"mode": "sharp", "iterations": 10, "gaussian": [], "bilateral": []},
        {"mode": [], "iterations": 10, "gaussian": [], "bilateral": []},
    ],
)
def test_wrong_parameters(data: dict[str, Any]) -> None:
    with pytest.raises(CrfInputError):
        CrfParameters.from_dict(data)


@pytest.mark.parametrize("terms", [None, 3.0, GaussianTerm(), (BilateralTerm(),), ((3.0, 3.0),)])
def test_wrong_terms(terms: Any) -> None:
    with pytest.raises(CrfInputError, match="CRF gaussian must be a tuple of GaussianTerm, or"):
        CrfParameters(gaussian=terms)


def test_numbers_of_numpy_in_parameters() -> None:
    bilateral = BilateralTerm(np.array([20.0, 30.0]), [np.float32(5), 5, 6], np.int64(4))
    parameters = CrfParameters(iterations=np.int64(3), gaussian=(GaussianTerm(np.float32(2)),), bilateral=[bilateral])
    plain = CrfParameters("deeplab", 3, (GaussianTerm(2.0),), (BilateralTerm((20.0, 30.0), (5.0, 5.0, 6.0), 4.0),))
    assert parameters == plain
    assert CrfParameters.from_dict(json.loads(json.dumps(parameters.to_dict()))) == plain
