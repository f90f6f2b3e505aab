from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atrous.errors import InputError
from atrous.runtime.benchmark.plan import Sample
from atrous.runtime.benchmark.result_file import read_result
from atrous.runtime.benchmark.results import BenchResult
from atrous.runtime.benchmark.server_view import ServerPlan, find_model, measure_server

from ...scripts.running import run_atrous
from ..bundles import make_image
from ..serve.local import run_local

pytest.importorskip("mlperf_loadgen")


def make_samples() -> list[Sample]:
    return [Sample(f"scene {seed}", b"", make_image(24, 30, seed)) for seed in range(3)]


def test_peak_and_rates_of_a_server(tmp_path: Path) -> None:
    """A network of 20 ms answers at most 50 images/s; what it cannot take, a short queue refuses."""
    with run_local(tmp_path, delay_ms=20, queue=4, token="0123456789abcdef") as local:
        name = find_model(local.url, "0123456789abcdef")
        plan = ServerPlan(
            local.url, make_samples(), name, "0123456789abcdef", duration_s=1.0, connections=2, shares=(0.5, 3.0)
        )
        steps: list[str] = []
        result = measure_server(plan, on_step=steps.append)
    subject = BenchResult.model_validate_json(result.model_dump_json()).subjects[0]
    alone, peak = subject.load
    assert alone.latency is not None
    assert alone.latency.min_ms >= 20
    assert peak.throughput_per_s is not None
    assert peak.throughput_per_s <= 51
    assert peak.refused == 0
    low, high = subject.curve
    assert low.completed_per_s / low.offered_per_s > high.completed_per_s / high.offered_per_s
    assert not high.kept_up
    assert high.refused > 0
    assert high.completed_per_s <= 51
    assert len(steps) == 4
    assert np.isclose(high.offered_per_s / low.offered_per_s, 6)


def test_no_server_and_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no server answers"):
        find_model("http://127.0.0.1:9", None)
    with run_local(tmp_path, delay_ms=1) as local, pytest.raises(InputError, match="unknown model"):
        measure_server(ServerPlan(local.url, make_samples(), "nope"))


def test_command_line(tmp_path: Path) -> None:
    with run_local(tmp_path / "bundle", delay_ms=2) as local:
        out = tmp_path / "result.json"
        options = ("--size", "30x40", "--count", 2, "--load-duration", 0.2, "-o", out, "--json")
        outcome = run_atrous("bench", "--server", local.url, *options)
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["result"] == read_result(out).model_dump(mode="json")
    assert [run["scenario"] for run in outcome.json["result"]["subjects"][0]["load"]] == ["SingleStream", "Offline"]
