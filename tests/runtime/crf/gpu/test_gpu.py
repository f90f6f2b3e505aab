"""On a real GPU: `pytest -m gpu tests/runtime/crf/gpu`. Equality with the CPU, DLPack with torch, compute-sanitizer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.errors import BackendError
from atrous.runtime.crf import dense_crf
from atrous.runtime.crf.gpu import open_driver
from tools.cuda_on_cpu.settings import compare_setting

from ..conftest import make_problem
from ..test_recordings import CASES, build_crf, read_case

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True, scope="module")
def gpu() -> None:
    try:
        open_driver()
    except BackendError as error:
        pytest.skip(f"no GPU for the dense CRF: {error}")


@pytest.mark.parametrize("name", CASES)
def test_recordings(shared_dir: Path, name: str) -> None:
    case = read_case(shared_dir, name)
    iterations = case["case"]["iterations"]
    found = build_crf(case, 1, device="cuda").inference(iterations)
    np.testing.assert_array_equal(found.view(np.uint32), build_crf(case, 1).inference(iterations).view(np.uint32))


def test_random_settings() -> None:
    for seed in range(200):
        compare_setting(seed)


def test_tensors_in_and_out() -> None:
    torch = pytest.importorskip("torch")
    image, probabilities = make_problem(65, 97, 21)
    scores = np.log(probabilities)
    on_gpu: Any = [torch.from_numpy(array).cuda() for array in (image, scores)]
    found: Any = torch.from_dlpack(dense_crf(on_gpu[0], scores=on_gpu[1], device="cuda"))  # type: ignore[arg-type]
    assert found.device.type == "cuda"
    np.testing.assert_array_equal(found.cpu().numpy(), dense_crf(image, scores=scores))


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck"])
def test_compute_sanitizer(tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer of the CUDA toolkit is not on the path")
    program = [sys.executable, "-m", "tools.cuda_on_cpu.settings", "--gpu", "--settings", "5"]
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", *program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
