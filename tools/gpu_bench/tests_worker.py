"""Runs the tests marked `gpu` within the time of a job; a test that has no result when the time is up did not run."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .job import Job

ROOT = Path(__file__).resolve().parents[2]
_FOLDER = "tests/runtime/backends/tensorrt"
GPU_TESTS, FAKE_TESTS = f"{_FOLDER}/test_gpu.py", f"{_FOLDER}/test_fake_driver.py"
_RESULT = re.compile(r"^(\S+?)::(\S+) (PASSED|FAILED|SKIPPED|ERROR)\b", re.MULTILINE)


def run_tests(job: Job, file: str, marked: str) -> dict[str, Any]:
    """Run a file's tests with a mark expression; return numbers, the failed ones, and whether the time was up."""
    log = job.folder / "tests.log"
    options = ["-v", "-rs", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", marked]
    with log.open("w") as out:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *options, file],
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=max(job.ends_at - time.time(), 1),
                check=False,
            )
            is_cut = False
        except subprocess.TimeoutExpired:
            is_cut = True
    results = read_results(log.read_text(errors="replace"))
    if not results and not is_cut:
        raise RuntimeError(f"pytest ran no test (exit code {done.returncode}): see {log}")
    failed = sorted(name for name, result in results.items() if result in ("FAILED", "ERROR"))
    counts = {word.lower(): list(results.values()).count(word) for word in ("PASSED", "SKIPPED")}
    return {**counts, "failed": failed, "cut": is_cut}


def read_results(log: str) -> dict[str, str]:
    """Return test -> result of pytest's verbose output."""
    return {name: result for _, name, result in _RESULT.findall(log)}
