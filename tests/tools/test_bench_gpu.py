"""bench_gpu from the nets to the table without a GPU, and its parts on planted faults."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from atrous.errors import BackendError
from atrous.runtime.backends.protocol import Array
from tools import bench_gpu
from tools.gpu_bench.caffe_parser import run_caffe_parser
from tools.gpu_bench.cases import SIZES, TARGETS, Case, list_cases
from tools.gpu_bench.fake_driver import FakeDriver
from tools.gpu_bench.fakes import FakeHost
from tools.gpu_bench.job import Job, NetEntry, compare, read_job
from tools.gpu_bench.measuring import Opened, run_cases
from tools.gpu_bench.report import build_report, split_page, update_page, write_markdown
from tools.gpu_bench.tensorrt_worker import TensorRt
from tools.gpu_bench.tests_worker import read_results

from ..runtime.bundles import make_image, make_model

SIZE = (9, 12)
CASE = Case("largefov", "fp32", *SIZE, 3)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job whose net is one convolution."""
    model = tmp_path / "deploy.onnx"
    model.write_bytes(make_model("lowres"))
    np.save(tmp_path / "images-9x12.npy", images := np.stack([make_image(*SIZE, seed) for seed in range(2)]))
    from atrous.runtime.backends.onnxruntime import OnnxRuntimeBackend

    np.save(
        tmp_path / "reference-largefov-fp32-9x12.npy",
        OnnxRuntimeBackend(model.read_bytes()).run({"image": images})["lowres"],
    )
    entry = NetEntry(str(tmp_path), "image", {"fp32": str(model)}, {"fp32": {}}, {"9x12": 1e9})
    return Job(tmp_path, {"largefov": entry}, (CASE,), time.time() + 60, 0.01)


def test_whole_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The miniature: converted, two variants made, every worker run or skipped with its reason, reported."""
    pytest.importorskip("torch", reason="torch is not installed")
    code = bench_gpu.main([str(tmp_path), "--fake", "--nets", "miniature", "--seconds", "0.01", "--minutes", "2"])
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "gpu-performance.json").read_text())
    assert report["simulated"]
    assert report["agrees"], printed
    assert code == 1  # the targets are LargeFOV's, and were not measured
    assert all(target["passed"] is None for target in report["targets"])
    rows = [row for row in report["rows"] if "skipped" not in row]
    by_library = {row["library"] for row in rows}
    assert by_library == {"tensorrt", "torch eager", "onnxruntime cpu"}
    tensorrt = [row for row in rows if row["library"] == "tensorrt"]
    assert {(row["precision"], row["batch"]) for row in tensorrt} == {
        (precision, batch) for precision in ("fp32", "tf32", "fp16", "int8") for batch in (1, 3)
    }
    for row in tensorrt:
        assert row["compute_ms"] == pytest.approx(
            {"fp32": 8, "tf32": 4, "fp16": 2, "int8": 1}[row["precision"]] * row["batch"]
        )
        assert row["latency_ms"] > row["compute_ms"]
        assert row["tflops"] > 0
    errors = {row["precision"]: row["error"] for row in tensorrt}
    assert errors["fp32"] == 0 < errors["fp16"]
    skipped = {row["library"]: row["skipped"] for row in report["rows"] if "skipped" in row}
    assert skipped == {"torch cuda_graphs": 'BackendError: the mode "cuda_graphs" needs the device "cuda"'}
    assert "largefov fp32" in report["skipped"]["caffe_parser"]
    assert report["tests"]["passed"] > 5
    assert report["tests"]["failed"] == []
    assert json.loads(printed.splitlines()[-1])["agrees"] is True
    table = (tmp_path / "gpu-performance.md").read_text()
    assert "Simulated" in table
    assert "| miniature | tensorrt | int8 |" in table


class TestReport:
    def test_failed_tests_are_reported(self) -> None:
        tests = {"passed": 8, "skipped": 1, "failed": ["test_two_threads[gpu]"], "cut": True}
        report = build_report({"tests": {"tests": tests}}, {})
        assert not report["passed"]
        text = write_markdown(report)
        assert "8 passed, 1 failed, 1 skipped; the time was up" in text
        assert "- FAILED: test_two_threads[gpu]" in text

    def test_results_of_a_run_that_was_cut(self) -> None:
        log = (
            "tests/a/test_gpu.py::test_x[gpu-fp16] PASSED   [ 3%]\n"
            "tests/a/test_gpu.py::test_y[gpu] SKIPPED (no memory)  [ 6%]\n"
            "tests/a/test_gpu.py::test_z[gpu] FAILED\ntests/a/test_gpu.py::test_w[gpu] \n"
        )
        assert read_results(log) == {"test_x[gpu-fp16]": "PASSED", "test_y[gpu]": "SKIPPED", "test_z[gpu]": "FAILED"}

    def test_the_page_keeps_its_text(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text((bench_gpu.Path(bench_gpu.__file__).parents[1] / "docs" / "gpu-performance.md").read_text())
        before, after = split_page(page)
        for gpu in ("A GPU", "Another GPU"):
            update_page(build_report({}, {"GPU": gpu}), page)
        assert split_page(page) == (before, after)
        text = page.read_text()
        assert text.count("Measured on: GPU Another GPU.") == text.count("## Figures\n\n|") == 1
        assert "A GPU." not in text
        page.write_text("no place")
        with pytest.raises(ValueError, match="lacks the lines"):
            bench_gpu.main([str(tmp_path / "out"), "--page", str(page)])
        assert not (tmp_path / "out").exists()


class TestCases:
    def test_targets_come_first(self) -> None:
        cases = list_cases(("largefov", "miniature"))
        assert len(cases) == len(set(cases)) == 2 * 3 * 2 * 4
        assert cases[0] == Case("largefov", "fp16", 513, 513, 8)
        assert {(case.precision, case.size, case.batch) for case in cases[:4]} >= {
            ("fp32", "513x513", 8),
            ("fp16", "1024x2048", 1),
            ("fp16", "360x480", 1),
        }
        assert [case.net for case in cases] == ["largefov"] * 24 + ["miniature"] * 24

    def test_targets_by_hand(self) -> None:
        def row(library: str, precision: str, size: tuple[int, int], batch: int, **figures: float) -> dict[str, Any]:
            base = {"net": "largefov", "library": library, "precision": precision, "agrees": True}
            return {**base, "height": size[0], "width": size[1], "batch": batch, **figures}

        rows = [
            row("tensorrt", "fp16", SIZES[0], 8, tflops=480.0, compute_ms=4.0, images_per_s=1900.0),
            row("torch eager", "fp32", SIZES[0], 8, compute_ms=44.0),
            row("tensorrt", "fp16", SIZES[1], 1, latency_ms=10.5),
            row("tensorrt", "fp16", SIZES[2], 1, latency_ms=1.2),
        ]
        found = [target.judge(rows, {"fp16": 750.0}) for target in TARGETS]
        assert [entry["found"] for entry in found] == [0.64, 11.0, 10.5, 1.2, 1900.0]
        assert [entry["passed"] for entry in found] == [True, True, False, True, True]
        rows[0]["agrees"] = False  # wrong scores: its time does not count
        assert TARGETS[0].judge(rows, {"fp16": 750.0})["passed"] is None
        assert [target.judge([], {})["passed"] for target in TARGETS] == [None] * 5


class TestCompare:
    def test_limits(self) -> None:
        random = np.random.default_rng(0)
        exact = random.standard_normal((1, 4, 5, 5)).astype(np.float32)
        assert compare(CASE, exact, exact) == {"agrees": True, "error": 0, "max_difference": 0, "equal_labels": 1}
        off = exact + np.float32(1e-2)
        assert not compare(CASE, off, exact)["agrees"]
        assert compare(replace(CASE, precision="fp16"), off, exact)["agrees"]
        assert not compare(CASE, exact[:, :, :4], exact)["agrees"]
        assert not compare(CASE, np.where(exact > 2, np.nan, exact), exact)["agrees"] or (exact <= 2).all()
        assert not compare(CASE, np.full_like(exact, np.inf), exact)["agrees"]


class TestTensorRt:
    def test_row(self, job: Job) -> None:
        (row,) = run_cases(job, "tensorrt", [TensorRt(FakeHost())], print)
        assert row["agrees"]
        assert row["compute_ms"] == pytest.approx(24.0)
        assert row["tflops"] == pytest.approx(3e9 / 24.0 / 1e9)
        assert row["runs"] >= 10
        assert row["images_per_s"] > 0
        assert json.loads((job.folder / "tensorrt.json").read_text())["rows"][0]["agrees"] is True

    def test_nothing_is_left_on_the_device(self, job: Job) -> None:
        host = FakeHost()
        run_cases(job, "tensorrt", [TensorRt(host)], print)
        assert host.device.list_leaks() == []

    @pytest.mark.parametrize(("fault", "part"), [("stale graph", "CUDA graph"), ("refuse", "enqueue failed")])
    def test_planted_fault_costs_the_case_not_the_run(self, job: Job, fault: str, part: str) -> None:
        (row,) = run_cases(job, "tensorrt", [TensorRt(FakeHost(fault))], print)
        assert part in row["skipped"]
        report = build_report({"tensorrt": {"rows": [row]}}, {})
        assert not report["passed"]
        assert part in write_markdown(report)

    def test_wrong_scores_are_told(self, job: Job) -> None:
        path = job.folder / "reference-largefov-fp32-9x12.npy"
        np.save(path, np.load(path) * 1.1)
        (row,) = run_cases(job, "tensorrt", [TensorRt(FakeHost())], print)
        assert not row["agrees"]
        report = build_report({"tensorrt": {"rows": [row]}}, {})
        assert not report["agrees"]
        assert "(disagrees)" in write_markdown(report)

    def test_time_is_up(self, job: Job) -> None:
        (row,) = run_cases(replace(job, ends_at=0.0), "tensorrt", [TensorRt(FakeHost())], print)
        assert row["skipped"] == "the time was up"


class TestWorkers:
    def test_job_survives_the_file(self, job: Job) -> None:
        job.write()
        assert read_job(job.folder) == job

    def test_worker_process_leaves_its_reason(self, job: Job, capfd: pytest.CaptureFixture[str]) -> None:
        """In a process of its own: no GPU here, so TensorRT or CUDA says why not."""
        from atrous.runtime.devices import list_cuda_devices

        if list_cuda_devices():
            pytest.skip("this machine has a GPU")
        job.write()
        bench_gpu._start_worker("tensorrt", job, bench_gpu.sys.executable)
        result = bench_gpu._read_result(job.folder / "tensorrt.json", "tensorrt")
        assert result["skipped"].startswith(("BackendError", "MissingDependencyError"))

    def test_python_that_does_not_start(self, job: Job) -> None:
        bench_gpu._start_worker("tensorrt", job, "/nowhere/python")
        assert "does not start" in bench_gpu._read_result(job.folder / "tensorrt.json", "tensorrt")["skipped"]

    def test_worker_that_left_nothing(self, tmp_path: Path) -> None:
        assert "crashed" in bench_gpu._read_result(tmp_path / "torch.json", "torch")["skipped"]

    def test_a_library_that_raises_anything(self, job: Job) -> None:
        class Broken:
            name = "broken"

            def takes(self, case: Case) -> bool:
                return True

            def open(self, job: Job, case: Case) -> Opened:
                raise KeyError("x")

        (row,) = run_cases(job, "broken", [Broken()], print)
        assert row["skipped"] == "KeyError: 'x'"

    def test_stage_medians(self, job: Job) -> None:
        times = iter([5.0, 1.0, 9.0] * 1000)

        class Steady:
            name = "steady"

            def takes(self, case: Case) -> bool:
                return True

            def open(self, job: Job, case: Case) -> Opened:
                def measure_ms(feeds: Mapping[str, Array], runs: int) -> Iterator[Mapping[str, float]]:
                    for _ in range(runs):
                        value = next(times)
                        yield {"compute": value, "latency": value + 1}

                return Opened(lambda feeds: job.read_reference(case), measure_ms, None, lambda: None, {})

        (row,) = run_cases(replace(job, seconds=0.0), "steady", [Steady()], print)
        assert row["runs"] == 10
        assert (row["compute_ms"], row["latency_ms"], row["latency_p99_ms"]) == (5.0, 6.0, 10.0)


class TestCaffeParser:
    def test_needs_tensorrt_8(self, job: Job) -> None:
        with pytest.raises(BackendError, match=r"has no Caffe parser; use 8\.5"):
            run_caffe_parser(job, CASE, SimpleNamespace(__version__="11.4"), FakeDriver(), None)

    def test_calls_and_numbers(self, job: Job) -> None:
        """A stand-in for 8.5 that computes what the reference does, from blobs without their mean."""
        (job.folder / "caffe.json").write_text('{"output": "fc8#0"}')
        driver = FakeDriver()
        reference = job.read_reference(CASE)
        images = next(iter(job.make_feeds(CASE).values()))
        calls: list[tuple[str, Any]] = []

        class Context:
            def execute_async(self, batch_size: int, bindings: list[int], stream_handle: int) -> bool:
                def work() -> None:
                    blob = driver.view_memory(bindings[0], 3 * 9 * 12 * 4).view(np.float32).reshape(3, 9, 12)
                    bgr = np.round(blob + np.array([104.008, 116.669, 122.675])[:, None, None])
                    index = next(i for i in range(2) if (images[i].transpose(2, 0, 1)[::-1] == bgr).all())
                    driver.view_memory(bindings[1], reference[0].nbytes).view(np.float32)[:] = reference[index].ravel()

                driver.run_kernel(work, 1.0, stream_handle)
                return batch_size == 1

        class Anything:
            def __getattr__(self, name: str) -> Any:
                def call(*arguments: Any, **named: Any) -> Any:
                    calls.append((name, arguments or named))
                    return Context() if name == "create_execution_context" else Anything()

                return call

        trt = SimpleNamespace(
            __version__="8.5.3.1",
            float32="float32",
            BuilderFlag=SimpleNamespace(TF32="TF32"),
            MemoryPoolType=SimpleNamespace(WORKSPACE="WORKSPACE"),
            TacticSource=SimpleNamespace(EDGE_MASK_CONVOLUTIONS=3, JIT_CONVOLUTIONS=4),
            **{name: lambda *_: Anything() for name in ("Builder", "CaffeParser", "Runtime")},
        )
        found = run_caffe_parser(job, CASE, trt, driver, None)
        assert found["agrees"]
        assert ("create_network", (0,)) in calls
        assert ("find", ("fc8#0",)) in calls
        assert ("clear_flag", ("TF32",)) in calls
        assert ("set_tactic_sources", (24,)) in calls
        assert driver.list_leaks() == []


def test_tensorrt_part_imports_neither_torch_nor_pydantic() -> None:
    """TensorRT 8.5 runs under a Python 3.10 that has NumPy and cuda-bindings alone."""
    import subprocess
    import sys

    code = (
        "import sys\n"
        "for name in ('pydantic', 'torch', 'onnxruntime', 'click', 'rich', 'PIL', 'onnx'): sys.modules[name] = None\n"
        "import tools.bench_gpu, tools.gpu_bench.job, tools.gpu_bench.caffe_parser\n"
        "import tools.gpu_bench.measuring, tools.gpu_bench.tensorrt_worker\n"
        "from atrous.runtime.backends.tensorrt import compat, workflow, keys, store, options\n"
        "from atrous.runtime.backends import tensorrt\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_arguments() -> None:
    options = bench_gpu.parse_arguments(["out"])
    assert isinstance(options, argparse.Namespace)
    assert options.minutes < 10
