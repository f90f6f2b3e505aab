"""Fixtures shared by all tests: where the recordings are, and a skip with a reason where they are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


def find_shared() -> Path | None:
    """The folder of recordings: $ATROUS_SHARED, else `shared` beside the checkout, else None."""
    for candidate in (os.environ.get("ATROUS_SHARED"), REPO.parent / "shared"):
        if candidate and (Path(candidate) / "goldens").is_dir():
            return Path(candidate)
    return None


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of recordings of real Caffe and of the reference CRF."""
    found = find_shared()
    if found is None:
        pytest.skip("the recordings of real Caffe are not beside this checkout (set ATROUS_SHARED)")
    return found
