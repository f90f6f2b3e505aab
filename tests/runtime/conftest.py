"""A Ray cluster for tests (`make ray-check`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

STORE_BYTES = 200 << 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on two cores of this machine."""
    import ray

    # "local": a cluster of its own, although the machine may have one or remember one
    ray.init("local", num_cpus=2, object_store_memory=STORE_BYTES, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
