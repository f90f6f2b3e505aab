"""The cost of a small file is bounded: 64 KiB are read or refused within 1 s of CPU time and 200 MB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import REPO

STEP = 20


def find_costly(step: int, start: int) -> tuple[int, list[str]]:
    """Read every `step`-th generated file in a child process; returns the number of files, and those too costly."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("costly.py")), str(step), str(start)],
        capture_output=True,
        text=True,
        cwd=REPO,
        check=True,
    )
    *found, last = done.stdout.splitlines()
    return json.loads(last)["tried"], found


def test_some_small_files() -> None:
    tried, found = find_costly(STEP, 7)
    assert found == []
    assert tried > 300


@pytest.mark.conformance
def test_all_small_files() -> None:
    tried, found = find_costly(1, 0)
    assert found == []
    assert tried > 6000
