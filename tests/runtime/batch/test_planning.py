"""Predictions for many machines: worked examples by hand, and the cost of images that are really labeled."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from atrous.errors import InputError
from atrous.runtime.batch.planning import ImageCost, Nodes, measure_cost, plan_run

from ..bundles import make_image, write_bundle

COST = ImageCost("by hand", {"decode": 10.0, "network": 70.0, "crf": 100.0, "encode": 20.0}, 0.0, 3e5, 1e5, 0.9, 5.0)


def test_cores_are_the_limit() -> None:
    plan = plan_run(COST, Nodes(10, 16), 10_000_000)
    assert plan.bounds_per_s == {"cores": 16 / 0.2}
    assert plan.node_per_s == pytest.approx(72)
    assert plan.rate_per_s == pytest.approx(720)
    assert plan.hours == pytest.approx((10_000_000 / 720 + 5) / 3600)
    assert plan.bottleneck == "cores (crf: 50% of their time)"
    assert (plan.crf_cores, plan.crf_cores_all, plan.gpu_share) == (pytest.approx(7.2), pytest.approx(72), None)
    assert (plan.read_bytes, plan.written_bytes) == (pytest.approx(3e12), pytest.approx(1e12))
    assert plan.storage_mb_s == pytest.approx(720 * 0.4)
    assert plan.core_hours == pytest.approx(plan.hours * 160)


def test_a_gpu_takes_the_network_from_the_cores() -> None:
    fast = plan_run(COST, Nodes(1, 13, gpus=1, gpu_ms=4.0), 1000)
    assert fast.bounds_per_s == {"cores": pytest.approx(100), "gpu": pytest.approx(250)}
    assert fast.gpu_share == pytest.approx(90 * 0.004)
    slow = plan_run(COST, Nodes(1, 13, gpus=1, gpu_ms=20.0), 1000)
    assert (slow.bottleneck, slow.gpu_share) == ("gpu", pytest.approx(0.9))
    with pytest.raises(InputError, match="--gpu-ms"):
        plan_run(COST, Nodes(1, 13, gpus=1), 1000)
    on_device = dataclasses.replace(COST, core_ms={"crf": 100.0}, device_ms=5.0)
    assert plan_run(on_device, Nodes(1, 13, gpus=2), 1000).bounds_per_s["gpu"] == 400
    with pytest.raises(InputError, match="--gpus"):
        plan_run(on_device, Nodes(1, 13), 1000)


def test_storage_and_shards() -> None:
    plan = plan_run(COST, Nodes(4, 16, storage_mb_s=10), 100_000, shard_images=1000)
    assert (plan.bottleneck, plan.node_per_s) == ("storage", pytest.approx(25 * 0.9))
    assert plan.shards == 100
    assert plan.hours == pytest.approx((100_000 / 90 + 1000 / 22.5 / 2 + 25 * 5) / 3600)
    unknown = dataclasses.replace(COST, read_bytes=None)
    assert plan_run(unknown, Nodes(), 10).storage_mb_s is None
    with pytest.raises(InputError, match="how many bytes"):
        plan_run(unknown, Nodes(storage_mb_s=1), 10)


def test_bad_arguments() -> None:
    for bad in ({"count": 0}, {"cores": 0}, {"gpus": -1}, {"storage_mb_s": 0.0}, {"gpu_ms": -1.0}):
        with pytest.raises(InputError):
            plan_run(COST, Nodes(**bad), 10)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least one image"):
        plan_run(COST, Nodes(), 0)


def test_the_cost_of_real_images(tmp_path: Path) -> None:
    bundle, images = write_bundle(tmp_path / "b"), []
    for number in range(6):
        images.append(tmp_path / f"{number}.png")
        Image.fromarray(make_image(20, 30, number)).save(images[-1])
    cost = measure_cost(bundle, images, cores=1)
    assert set(cost.core_ms) >= {"decode", "network", "encode"}
    assert cost.read_bytes == sum(path.stat().st_size for path in images) / 6
    assert cost.written_bytes is not None
    assert cost.written_bytes > 100
    assert cost.start_s > 0
    images[0].write_bytes(b"hello")
    with pytest.raises(InputError, match="1 of 6 images failed"):
        measure_cost(bundle, images, cores=1)
