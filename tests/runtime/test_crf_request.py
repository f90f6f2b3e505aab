"""The CRF's parameters of one request, on top of a bundle's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from atrous.bundle.crf_parameters import BilateralTerm, CrfParameters, GaussianTerm
from atrous.errors import CrfInputError
from atrous.runtime.crf_request import MAX_ITERATIONS, choose_crf

OWN = CrfParameters(
    gaussian=(GaussianTerm(2.0, 1.0),), bilateral=(BilateralTerm(30.0, 6.0, 4.0), BilateralTerm(60.0, 3.0, 2.0))
)


@pytest.mark.parametrize(
    ("wanted", "changes"),
    [
        ({}, {}),
        ({"crf": True}, {}),
        ({"iterations": 3, "mode": "pydensecrf"}, {"iterations": 3, "mode": "pydensecrf"}),
        ({"iterations": "3"}, {"iterations": 3}),
        ({"iterations": 3.0}, {"iterations": 3}),
        ({"sxy": 20, "srgb": "5.5"}, {"bilateral": (BilateralTerm(20.0, 5.5, 4.0), OWN.bilateral[1])}),
        ({"weight": 0, "gaussian_weight": -1.5}, {
            "bilateral": (BilateralTerm(30.0, 6.0, 0.0), OWN.bilateral[1]), "gaussian": (GaussianTerm(2.0, -1.5),)
        }),
        ({"gaussian_sxy": 9}, {"gaussian": (GaussianTerm(9.0, 1.0),)}),
    ],
)  # fmt: skip
def test_changes(wanted: dict[str, object], changes: dict[str, Any]) -> None:
    assert choose_crf(OWN, wanted) == replace(OWN, **changes)


@pytest.mark.parametrize("off", [False, "false"])
def test_off(off: object) -> None:
    assert choose_crf(OWN, {"crf": off}) is None
    assert choose_crf(OWN, {"crf": off, "iterations": 3}) is None
    assert choose_crf(None, {"crf": off}) is None
    assert choose_crf(None, {}) is None


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"iteration": 3}, 'no parameter "iteration"; the parameters are crf, mode, iterations'),
        ({"mode": "fast"}, '"mode" must be one of deeplab, pydensecrf'),
        ({"mode": ["deeplab"]}, '"mode" must be one of'),
        ({"iterations": -1}, f"0 to {MAX_ITERATIONS}, got -1"),
        ({"iterations": MAX_ITERATIONS + 1}, "0 to"),
        ({"iterations": 2.5}, "got 2.5"),
        ({"iterations": True}, "must be a number, got True"),
        ({"iterations": "many"}, "must be a number, got 'many'"),
        ({"sxy": 0}, '"sxy" must be positive'),
        ({"srgb": -3}, '"srgb" must be positive'),
        ({"sxy": 1e300}, '"sxy" must be positive and at most 1e'),
        ({"weight": "nan"}, "must be a number"),
        ({"weight": float("inf")}, "must be a number"),
        ({"weight": None}, "must be a number"),
        ({"crf": 1}, '"crf" must be true or false, got 1'),
        ({"crf": False, "mode": "fast"}, '"mode" must be one of'),
    ],
)
def test_errors(wanted: dict[str, object], words: str) -> None:
    with pytest.raises(CrfInputError, match=words):
        choose_crf(OWN, wanted)


@pytest.mark.parametrize("wanted", [{"crf": True}, {"iterations": 3}, {"crf": False, "iterations": 3}])
def test_without_a_crf(wanted: dict[str, object]) -> None:
    with pytest.raises(CrfInputError, match="has no CRF"):
        choose_crf(None, wanted)


def test_a_term_that_is_not_there() -> None:
    with pytest.raises(CrfInputError, match="no gaussian term"):
        choose_crf(replace(OWN, gaussian=()), {"gaussian_sxy": 3})
