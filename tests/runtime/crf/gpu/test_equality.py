"""The GPU's kernels against the CPU's, bit for bit, and through it against the recorded reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from atrous.runtime.crf import DenseCRF
from tools.cuda_on_cpu.driver import EmulatedDriver
from tools.cuda_on_cpu.settings import SHAPES, compare_setting

from ..test_recordings import CASES, build_crf, read_case

SETTINGS = 40
BLOCKS = 4


def assert_equal_bits(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("name", CASES)
def test_recordings(shared_dir: Path, name: str, driver: EmulatedDriver) -> None:
    case = read_case(shared_dir, name)
    iterations = case["case"]["iterations"]
    on_cpu, on_gpu = build_crf(case, 1), build_crf(case, 1, device="cuda")
    assert on_gpu.lattice_vertices == on_cpu.lattice_vertices
    assert_equal_bits(on_gpu.unary_energies(), on_cpu.unary_energies())
    marginals = on_gpu.inference(iterations)
    assert_equal_bits(marginals, on_cpu.inference(iterations))
    tolerance = 5e-5 if name.startswith("deeplab-program") else 1e-5
    np.testing.assert_allclose(marginals, case["marginals"], rtol=0, atol=tolerance)
    assert driver.replays == iterations - 1  # each update after the first is one graph


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_settings(block: int, driver: EmulatedDriver) -> None:
    for seed in range(block * SETTINGS // BLOCKS, (block + 1) * SETTINGS // BLOCKS):
        compare_setting(seed)


def test_settings_reach_every_kind() -> None:
    assert {len(shape) for shape in SHAPES} == {1, 2, 3, 5}


@pytest.mark.parametrize("labels", [1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 64, 65, 200, 300])
def test_sums_over_labels(labels: int, forward: EmulatedDriver) -> None:
    """The softmax adds labels in the CPU's order, whatever their number."""
    random = np.random.default_rng(labels)
    scores = random.normal(0, 2, (labels, 9, 11)).astype(np.float32)
    results = []
    for device in ("cpu", "cuda"):
        crf = DenseCRF((9, 11), labels, device=device)  # type: ignore[arg-type]
        crf.set_scores(scores)
        crf.add_gaussian(2, 3)
        results.append([crf.inference(2), crf.inference(2, output="labels")])
    assert_equal_bits(results[1][0], results[0][0])
    np.testing.assert_array_equal(results[1][1], results[0][1])
    assert results[1][1].dtype == results[0][1].dtype == (np.uint8 if labels <= 256 else np.uint16)
