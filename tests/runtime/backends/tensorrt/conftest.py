"""The fixture of the tests with NVIDIA's own software, which `make rtx-check` installs."""

from __future__ import annotations

import pytest

from tools.nvidia_check.harness import Nvidia, find_missing, prepare


@pytest.fixture(scope="session")
def nvidia(tmp_path_factory: pytest.TempPathFactory) -> Nvidia:
    """NVIDIA's libraries and bindings; skips without them."""
    if missing := find_missing():
        pytest.skip(missing)
    return prepare(tmp_path_factory.mktemp("nvidia"))
