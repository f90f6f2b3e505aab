"""Fixtures shared by all tests: the recordings of real Caffe, in this checkout and beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
GOLDENS = REPO / "tests" / "goldens"


def find_shared() -> Path | None:
    """The folder of all recordings: $ATROUS_SHARED, else `shared` beside the checkout, else None."""
    for candidate in (os.environ.get("ATROUS_SHARED"), REPO.parent / "shared"):
        if candidate and (Path(candidate) / "goldens").is_dir():
            return Path(candidate)
    return None


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of all recordings, of real Caffe and of the reference CRF; skips without it."""
    found = find_shared()
    if found is None:
        pytest.skip("the full recordings of real Caffe are not available; set ATROUS_SHARED to their folder")
    return found


@pytest.fixture(scope="session")
def goldens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root whose `goldens/tiny` holds the case folders of `tests/goldens`, laid out as the recordings are."""
    from tools.write_goldens import unpack

    root = tmp_path_factory.mktemp("goldens")
    unpack(GOLDENS, root)
    return root
