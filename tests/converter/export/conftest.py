"""A bundle that several tests read."""

from __future__ import annotations

from pathlib import Path

import pytest

from .bundles import write


@pytest.fixture(scope="module")
def deeplab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "deeplab"
    write(folder)
    return folder
