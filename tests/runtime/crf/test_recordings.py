"""The core against recorded marginals of the reference CRF and of DeepLab's own program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.runtime.crf import CrfParameters, DenseCRF, dense_crf, kernel_names

CASES = [
    "anisotropic",
    "deeplab-program-voc-21",
    "gaussian-only",
    "many-labels-60",
    "matrix-compat",
    "one-pixel-wide",
    "two-labels",
    "vector-compat",
    "voc-21-after",
    "voc-21-before",
    "voc-21-none",
    "voc-21-symmetric",
]


def read_case(shared_dir: Path, name: str) -> dict[str, Any]:
    with np.load(shared_dir / "crf" / f"{name}.npz") as data:
        case: dict[str, Any] = {key: data[key] for key in data.files}
    case["case"] = json.loads(str(case["case"]))
    return case


def build_crf(case: dict[str, Any], threads: int, **options: Any) -> DenseCRF:
    labels, height, width = case["probabilities"].shape
    crf = DenseCRF((height, width), labels, threads=threads, **options)
    crf.set_probabilities(case["probabilities"])
    for term in case["case"]["terms"]:
        compat = term["compat"] if np.ndim(term["compat"]) == 0 else np.array(term["compat"], np.float32)
        if term["kind"] == "gaussian":
            crf.add_gaussian(term["sxy"], compat, normalization=term["normalization"])
        else:
            crf.add_bilateral(term["sxy"], term["srgb"], case["image"], compat, normalization=term["normalization"])
    return crf


@pytest.mark.parametrize("name", CASES)
def test_recorded_marginals(shared_dir: Path, name: str) -> None:
    case = read_case(shared_dir, name)
    found = []
    for threads in (1, 2):
        crf = build_crf(case, threads)
        found.append((crf.inference(case["case"]["iterations"]), crf.kl_divergence()))
    (marginals, kl), (threaded, threaded_kl) = found
    np.testing.assert_array_equal(marginals, threaded)
    assert kl == threaded_kl
    # DeepLab's program uses a fast exponential of its own.
    tolerance = 5e-5 if name.startswith("deeplab-program") else 1e-5
    np.testing.assert_allclose(marginals, case["marginals"], rtol=0, atol=tolerance)
    np.testing.assert_array_equal(marginals.argmax(axis=0), case["marginals"].argmax(axis=0))
    if "kl" in case:
        assert kl == pytest.approx(float(case["kl"]), rel=1e-4)


@pytest.mark.parametrize("name", ["many-labels-60", "two-labels", "matrix-compat", "voc-21-symmetric"])
def test_every_instruction_set_gives_the_same_bits(shared_dir: Path, name: str) -> None:
    case = read_case(shared_dir, name)
    results = [build_crf(case, 2, kernels=kernels).inference(3) for kernels in kernel_names()]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("voc-21-after", {"mode": "deeplab", "bilateral": (121, 5, 4)}),
        ("voc-21-symmetric", {"mode": "pydensecrf", "bilateral": (67, 3, 4)}),
    ],
)
def test_dense_crf_modes(shared_dir: Path, name: str, parameters: dict[str, Any]) -> None:
    case = read_case(shared_dir, name)
    marginals = dense_crf(case["image"], case["probabilities"], **parameters)
    assert marginals.shape == case["probabilities"].shape
    assert marginals.dtype == np.float32
    assert marginals.flags.c_contiguous
    np.testing.assert_allclose(marginals, case["marginals"], rtol=0, atol=1e-5)


def test_parameters_object_is_what_a_bundle_carries(shared_dir: Path) -> None:
    case = read_case(shared_dir, "voc-21-after")
    parameters = CrfParameters.from_dict(CrfParameters().to_dict())
    assert parameters == CrfParameters()
    marginals = dense_crf(case["image"], case["probabilities"], parameters=parameters)
    np.testing.assert_allclose(marginals, case["marginals"], rtol=0, atol=1e-5)
