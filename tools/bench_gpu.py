"""All GPU benchmarks in one run: `python -m tools.bench_gpu OUT [--tensorrt-python ./run]`.

1. Prepare nets, their FP16 and INT8 graphs, images, and ONNX Runtime's CPU scores (without network access).
2. Run the workers, each in its own process, so that a crash or a library conflict is limited to one: plain matrix
   products, the tests marked `gpu`, TensorRT (an engine for each shape, built, audited, run with CUDA graphs), torch,
   ONNX Runtime's CUDA provider, and NVIDIA's Caffe parser if TensorRT still has it. Each output is compared before it
   is timed.
3. Write OUT/gpu-performance.md and .json: the table, the targets, the tests, and the list of cases that could not be
   measured. With `--page docs/gpu-performance.md`, write the same into that page.

`--minutes` limits the run; the cases that the targets need come first. `--fake` runs all of it without a GPU on
simulated clocks, to test the script. Exit codes: 0 all targets reached, 1 some missed or outputs disagree, 3 nothing
could be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .gpu_bench.cases import SIZES, Case, list_cases
from .gpu_bench.job import Job, read_job

MODULE = "tools.bench_gpu"
NETS = ("largefov", "miniature")
#: worker -> its share of the time left when it starts; workers that the targets need come first
WORKERS = {"matmul": 0.1, "tests": 0.3, "tensorrt": 0.65, "torch": 0.5, "onnxruntime": 0.7, "caffe_parser": 1.0}
OF_TENSORRT = ("tensorrt", "caffe_parser")
_GRACE_S = 45.0  # for the case that is running when the time is up
_FAKE_SIZES = ((41, 49), (40, 64), (33, 33))


def say(line: str) -> None:
    """Print progress."""
    print(line, flush=True)


def run_worker(name: str, job: Job, *, is_fake: bool) -> None:
    """Run one worker and write its result file; an error is written as the reason for skipping, not raised."""
    try:
        result = _WORK[name](job, is_fake)
    except Exception as error:  # any error of a library affects only this worker
        lines = str(error).strip().splitlines()
        result = {"skipped": f"{type(error).__name__}: {lines[0] if lines else ''}"}
        say(f"{name}: skipped: {result['skipped']}")
    job.write_result(name, result)


def _run_matmul(job: Job, is_fake: bool) -> dict[str, Any]:
    from .gpu_bench.library_workers import measure_ceilings

    rates = measure_ceilings("cpu", 64) if is_fake else measure_ceilings("cuda")
    for name, rate in rates.items():
        say(f"matrix products in {name}: {rate:.3g} TFLOP/s")
    return {"ceilings": rates}


def _run_tensorrt(job: Job, is_fake: bool) -> dict[str, Any]:
    from .gpu_bench.measuring import run_cases
    from .gpu_bench.tensorrt_worker import Host, TensorRt, TensorRtHost

    if is_fake:
        from .gpu_bench.fakes import FakeHost

        host: Host = FakeHost()
    else:
        host = TensorRtHost(job.folder)
    return {"rows": run_cases(job, "tensorrt", [TensorRt(host)], say)}


def _run_torch(job: Job, is_fake: bool) -> dict[str, Any]:
    from .gpu_bench.library_workers import TORCH_SETTINGS, Torch
    from .gpu_bench.measuring import run_cases

    device = "cpu" if is_fake else "cuda"
    names = [name for name in TORCH_SETTINGS if not is_fake or name in ("torch eager", "torch cuda_graphs")]
    return {"rows": run_cases(job, "torch", [Torch(name, device) for name in names], say)}


def _run_onnxruntime(job: Job, is_fake: bool) -> dict[str, Any]:
    from .gpu_bench.library_workers import OnnxRuntimeCuda
    from .gpu_bench.measuring import run_cases

    return {"rows": run_cases(job, "onnxruntime", [OnnxRuntimeCuda("cpu" if is_fake else "cuda")], say)}


def _run_tests(job: Job, is_fake: bool) -> dict[str, Any]:
    from .gpu_bench.tests_worker import FAKE_TESTS, GPU_TESTS, run_tests

    found = run_tests(job, FAKE_TESTS, "not gpu") if is_fake else run_tests(job, GPU_TESTS, "gpu")
    say(f"tests: {found['passed']} passed, {len(found['failed'])} failed, {found['skipped']} skipped")
    return {"tests": found}


def _run_caffe_parser(job: Job, is_fake: bool) -> dict[str, Any]:
    from atrous.runtime.backends.tensorrt import compat
    from atrous.runtime.backends.tensorrt.driver import CudaDriver

    from .gpu_bench.caffe_parser import run_caffe_parser

    case = Case("largefov", "fp32", *SIZES[0], 1)
    if case not in job.cases:
        return {"skipped": f"{case.title} is not among the cases"}
    driver = CudaDriver()
    trt, _ = compat.load_tensorrt()
    found = run_caffe_parser(job, case, trt, driver, compat.make_logger(trt, []))
    say(f"NVIDIA's Caffe parser: error {found['error']:.1e}, {'agrees' if found['agrees'] else 'DISAGREES'}")
    return found


_WORK: Mapping[str, Callable[[Job, bool], dict[str, Any]]] = {
    "matmul": _run_matmul,
    "tests": _run_tests,
    "tensorrt": _run_tensorrt,
    "torch": _run_torch,
    "onnxruntime": _run_onnxruntime,
    "caffe_parser": _run_caffe_parser,
}


def run_all(options: argparse.Namespace) -> int:
    """Prepare, run the workers, report; return the exit code."""
    from .gpu_bench.prepare import prepare
    from .gpu_bench.report import build_report, split_page, update_page, write_markdown, write_report

    if options.page is not None:
        split_page(options.page)  # before ten minutes of work
    started_at = time.time()
    ends_at = started_at + options.minutes * 60
    folder = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    sizes, batches = (_FAKE_SIZES, (1, 3)) if options.fake else (SIZES, (1, 8))
    entries = prepare(folder, options.nets, sizes, say)
    say(f"prepared in {time.time() - started_at:.0f} s")
    cases = tuple(list_cases(options.nets, sizes, batches))
    results: dict[str, Any] = {}
    for name, share in WORKERS.items():
        left_s = ends_at - time.time()
        job = Job(folder, entries, cases, time.time() + share * left_s, options.seconds)
        job.write()
        (folder / f"{name}.json").unlink(missing_ok=True)
        if options.fake:
            run_worker(name, job, is_fake=True)
        else:
            _start_worker(name, job, options.tensorrt_python if name in OF_TENSORRT else sys.executable)
        results[name] = _read_result(folder / f"{name}.json", name)
    report = build_report(results, describe_machine(), is_fake=options.fake)
    write_report(report, folder)
    if options.page is not None and not options.fake:
        update_page(report, options.page)
    say("\n" + write_markdown(report))
    say(f"{time.time() - started_at:.0f} s in all; written: {folder / 'gpu-performance.md'}")
    print(json.dumps({key: report[key] for key in ("passed", "agrees", "targets", "skipped", "ceilings_tflops")}))
    if not any("skipped" not in row for row in report["rows"]):
        return 3
    return 0 if report["passed"] else 1


def _start_worker(name: str, job: Job, python: str) -> None:
    """Run a worker in its own process, and kill it if it exceeds its time."""
    command = [python, "-m", MODULE, str(job.folder), "--worker", name]
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH", ""), find_import_root(root), root)))
    limit_s = max(job.ends_at - time.time(), 0) + _GRACE_S
    try:
        subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        say(f"{name}: killed after {limit_s:.0f} s; the results so far are kept")
    except OSError as error:
        job.write_result(name, {"skipped": f"{python} does not start: {error.strerror}"})


def find_import_root(root: str) -> str:
    """The folder from which a Python without atrous installed can import it: the source tree's link, or ""."""
    link = Path(root, "build", "typing")
    return str(link) if (link / "atrous").exists() else ""


def _read_result(path: Path, name: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {"skipped": f"the {name} worker wrote no result: it crashed, or its Python lacks a module (see above)"}
    return content


def describe_machine() -> dict[str, Any]:
    """Describe the machine: GPU, driver, and versions of the installed libraries."""
    from atrous.dependencies import read_version
    from atrous.runtime.devices import describe_processor, list_cuda_devices, read_driver_version

    devices = list_cuda_devices()
    machine: dict[str, Any] = {
        "GPU": devices[0].name if devices else "none",
        "driver": read_driver_version() or "none",
        "CPU": describe_processor().name,
        "Python": sys.version.split()[0],
    }
    versions = {name: read_version(name) for name in ("torch", "onnxruntime", "onnxruntime-gpu", "tensorrt")}
    return {**machine, **{name: version for name, version in versions.items() if version}}


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the prepared files and the results")
    parser.add_argument(
        "--tensorrt-python", default=sys.executable, help="Python interpreter that has TensorRT, if not this one"
    )
    parser.add_argument("--minutes", type=float, default=9.5, help="time limit of the whole run, in minutes")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="seconds to measure latency, and again throughput, of a case"
    )
    parser.add_argument("--page", type=Path, help="Markdown page whose figures are replaced by this run's")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=NETS)
    parser.add_argument("--fake", action="store_true", help="run without a GPU: fake driver, CPU, small images")
    parser.add_argument("--worker", choices=tuple(WORKERS), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, or one worker of it."""
    options = parse_arguments(arguments)
    if options.worker:
        run_worker(options.worker, read_job(options.out), is_fake=options.fake)
        return 0
    return run_all(options)


if __name__ == "__main__":
    sys.exit(main())
