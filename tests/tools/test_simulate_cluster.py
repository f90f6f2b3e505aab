"""The simulation of a cluster against results that can be worked out by hand."""

from __future__ import annotations

import math

import pytest

from tools.simulate_cluster import Setting, find_headroom, simulate

EVEN = Setting(1_000_000, 10, 100.0, start_s=0.0, shard_images=1000, spread=0.0, slow_share=0.0)


def change(**values: object) -> Setting:
    return Setting(**{**vars(EVEN), **values})  # type: ignore[arg-type]


def test_equal_nodes_lose_nothing() -> None:
    outcome = simulate(EVEN)
    assert outcome.seconds == pytest.approx(1000)
    assert (outcome.efficiency, outcome.failures, outcome.busy_share) == (pytest.approx(1), 0, pytest.approx(1))


def test_each_shard_adds_its_start() -> None:
    assert simulate(change(start_s=1.0)).seconds == pytest.approx(1000 + 100)


def test_storage_slows_all_alike() -> None:
    outcome = simulate(change(image_bytes=1e6, storage_mb_s=500.0))
    assert outcome.seconds == pytest.approx(2000)


def test_one_slow_node_holds_up_large_shards_only() -> None:
    """A node of half speed: with one shard a node the run takes twice as long, with small ones 1 / 0.95."""
    slow = {"slow_share": 0.1, "slow_factor": 0.5}
    assert simulate(change(**slow, shard_images=100_000)).seconds == pytest.approx(2000)
    assert simulate(change(**slow)).seconds == pytest.approx(1000 / 0.95, rel=0.03)


def test_failures_cost_their_repairs() -> None:
    """Every node is down for the repair time in each (failure + repair) of its time."""
    setting = change(images=100_000_000, shard_images=10_000, failure_hours=5.0, repair_s=1800.0)
    outcome = simulate(setting)
    assert outcome.failures == pytest.approx(10 * outcome.seconds / (5.5 * 3600), rel=0.25)
    assert outcome.efficiency == pytest.approx(5 / 5.5, rel=0.03)
    assert outcome.repeated_starts == outcome.failures


def test_headroom() -> None:
    found = find_headroom(change(image_bytes=1e6, start_s=1.0), 500.0, 1.0)
    assert found["storage bandwidth"] == pytest.approx(0.5)
    assert found["memory of the driver of --ray"] == pytest.approx(1 / 1.1)
    assert all(math.isfinite(value) for value in found.values())
