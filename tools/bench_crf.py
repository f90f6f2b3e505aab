"""The dense CRF against pydensecrf: `python -m tools.bench_crf [--quick]`.

Both run the same drawn scenes, interleaved, in one process. The figures are wall and CPU seconds, the best of the runs,
including the construction of the lattices; both start from the same precomputed energies. Every result is compared:
labels must be equal and marginals within 1e-5 (see TOLERANCE), or the benchmark fails. pydensecrf is the installed one
(`atrous[pydensecrf]`), or a build in the folder of `--pydensecrf`; without it only this project's figures are printed.
Memory is measured in a separate process for each. The last line is one JSON object.
`--shortcuts` measures the optional approximations instead: see bench_crf_shortcuts.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atrous.bundle.files import write_file
from atrous.runtime.crf import DenseCRF, available_threads, release_memory
from atrous.runtime.crf.terms import forget_lattices

from .crf_problems import Problem, draw_problem

SIZES = [(360, 480, 11), (375, 500, 21), (513, 513, 21), (1024, 2048, 19)]
SMALL_SIZES = [(1, 1, 2), (33, 47, 2), (129, 161, 2), (513, 513, 2)]
KERNELS = [(67.0, 3.0), (121.0, 5.0), (49.0, 5.0)]
ITERATIONS = [5, 10]
#: Marginals agree within this, except where two labels are so nearly balanced that ten updates turn the last bit of a
#: float32 into more: at most one pixel in a hundred thousand, and never more than `UNDECIDED`.
TOLERANCE = 1e-5
UNDECIDED = 1e-4

Marginals = npt.NDArray[np.float32]


@dataclass
class Case:
    """One setting and its measurements; seconds are the best of the runs."""

    height: int
    width: int
    labels: int
    sxy: float
    srgb: float
    iterations: int
    vertices: list[int] = field(default_factory=list)
    wall_s: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    phases_s: dict[str, dict[str, float]] = field(default_factory=dict)
    moved_bytes: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    max_difference: float | None = None
    beyond_tolerance: int = 0

    @property
    def name(self) -> str:
        """Size, kernel and iterations as short text."""
        return f"{self.height}x{self.width}x{self.labels} ({self.sxy:g},{self.srgb:g}) {self.iterations} it"


def run_own(case: Case, problem: Problem, threads: int, phases: dict[str, float] | None = None) -> Marginals:
    """Run this project's CRF (unary, lattices, updates) with pydensecrf's normalization."""
    forget_lattices()  # every run builds its own
    start = time.perf_counter()
    usual = None if threads == available_threads() else threads  # the default uses fewer threads for few points
    crf = DenseCRF((case.height, case.width), case.labels, threads=usual)
    crf.set_unary(problem.unary.reshape(problem.probabilities.shape))
    fed = time.perf_counter()
    crf.add_gaussian(3.0, 3.0)
    crf.add_bilateral(case.sxy, case.srgb, problem.image, 4.0)
    built = time.perf_counter()
    marginals = crf.inference(case.iterations, keep=False)
    if phases is not None and crf.report is not None:
        report = crf.report
        phases.update(unary=fed - start, lattices=built - fed, start=report.start_s)
        phases.update(splat=report.splat_s, blur=report.blur_s, slice=report.slice_s)
        case.vertices = crf.lattice_vertices
        case.moved_bytes = count_bytes(crf, case)
    return marginals


def count_bytes(crf: DenseCRF, case: Case) -> dict[str, float]:
    """Memory traffic of one update in bytes, if only a row stays in a cache."""
    row = 4.0 * (-(-case.labels // 4) * 4)
    points = case.height * case.width
    rows, entries = sum(crf.lattice_vertices) * row, points * 9 * 8.0
    return {
        "splat": points * row * 2 + entries + 2 * rows,
        "blur": sum(crf.blurred_rows) * (2 * row + 4),
        "slice": rows + entries + points * row * 3,
    }


def run_reference(case: Case, problem: Problem, original: Any) -> Marginals:
    """Run the same with pydensecrf."""
    crf = original.DenseCRF2D(case.width, case.height, case.labels)
    crf.setUnaryEnergy(problem.unary)
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=case.sxy, srgb=case.srgb, rgbim=problem.image, compat=4)
    return np.array(crf.inference(case.iterations)).reshape(problem.probabilities.shape)


def measure(case: Case, problem: Problem, original: Any, threads: list[int], runs: int) -> None:
    """Fill in times and differences; raises AssertionError if results differ."""
    implementations: dict[str, Callable[[], Marginals]] = {}
    if original is not None:
        implementations["pydensecrf"] = lambda: run_reference(case, problem, original)
    for count in threads:
        phases: dict[str, float] = {}

        def run(count: int = count, phases: dict[str, float] = phases) -> Marginals:
            return run_own(case, problem, count, phases)

        case.phases_s[f"atrous {count}t"] = phases
        implementations[f"atrous {count}t"] = run
    best_phases: dict[str, dict[str, float]] = {}
    for _ in range(runs):
        results: dict[str, Marginals] = {}
        for name, implementation in implementations.items():
            wall, cpu = time.perf_counter(), time.process_time()
            results[name] = implementation()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if wall < case.wall_s.get(name, float("inf")):
                case.wall_s[name] = wall
                best_phases[name] = dict(case.phases_s.get(name, {}))
            case.cpu_s[name] = min(cpu, case.cpu_s.get(name, float("inf")))
        compare(case, list(results.values()), original is not None)
    case.phases_s = {name: phases for name, phases in best_phases.items() if phases}


def compare(case: Case, results: list[Marginals], has_reference: bool) -> None:
    """Check that thread counts agree bit for bit, and the reference in every label and within the tolerance."""
    own = results[1:] if has_reference else results
    for other in own[1:]:
        assert np.array_equal(own[0], other), f"{case.name}: thread counts differ"
    if has_reference:
        difference = np.abs(results[0] - own[0]).max(axis=0)
        case.max_difference = float(difference.max())
        case.beyond_tolerance = int((difference > TOLERANCE).sum())
        assert case.beyond_tolerance <= 1 + difference.size / 1e5, f"{case.name}: {case.beyond_tolerance} pixels differ"
        assert case.max_difference <= UNDECIDED, f"{case.name}: marginals differ by {case.max_difference:.2g}"
        assert np.array_equal(results[0].argmax(axis=0), own[0].argmax(axis=0)), f"{case.name}: labels differ"


def measure_memory(case: Case, options: argparse.Namespace) -> None:
    """Peak resident memory above the inputs, each implementation in a fresh process."""
    names = ["atrous", "pydensecrf"] if "pydensecrf" in case.wall_s else ["atrous"]
    setting = [case.height, case.width, case.labels, case.sxy, case.srgb, case.iterations]
    for name in names:
        command = [sys.executable, "-m", __spec__.name, "--child", name, json.dumps(setting)]
        if options.pydensecrf:
            command += ["--pydensecrf", str(options.pydensecrf)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        case.peak_bytes[name] = int(done.stdout.strip().splitlines()[-1])


def run_child(name: str, setting: str, options: argparse.Namespace) -> None:
    """Print the peak memory of one run above that of the process before it."""
    case = Case(*json.loads(setting))
    problem = draw_problem(case.height, case.width, case.labels)
    original = find_original(options.pydensecrf)
    warm = Case(9, 9, case.labels, case.sxy, case.srgb, 1)
    small = draw_problem(9, 9, case.labels)
    status = Path("/proc/self/status")

    def run(one: Case, inputs: Problem) -> Marginals:
        return run_own(one, inputs, available_threads()) if name == "atrous" else run_reference(one, inputs, original)

    run(warm, small)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = read_status(status, "VmRSS")
    assert np.isfinite(run(case, problem)).all()
    print(max(0, read_status(status, "VmHWM") - before))


def read_status(status: Path, key: str) -> int:
    """Read one line of /proc/self/status in bytes."""
    line = next(line for line in status.read_text().splitlines() if line.startswith(key + ":"))
    return int(line.split()[1]) * 1024


def find_original(folder: Path | None) -> Any:
    """Import pydensecrf from its build folder or as installed; None if missing."""
    if folder is not None:
        sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("pydensecrf.densecrf")
    except ImportError:
        return None


def measure_bandwidth() -> float:
    """Measure the copy bandwidth of one thread between large arrays in bytes per second, reads plus writes."""
    source = np.ones(1 << 25, np.float32)
    target = np.zeros_like(source)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return 2.0 * source.nbytes / best


def processor_name() -> str:
    """Model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def draw_cases(quick: bool, sizes: list[str] | None) -> Iterator[Case]:
    """Generate the settings to measure."""
    if quick:
        yield Case(513, 513, 21, 67.0, 3.0, 10)
        return
    for height, width, labels in SIZES:
        if sizes and f"{height}x{width}x{labels}" not in sizes:
            continue
        for sxy, srgb in KERNELS:
            for iterations in ITERATIONS:
                yield Case(height, width, labels, sxy, srgb, iterations)
    for height, width, labels in SMALL_SIZES:
        if sizes and "small" not in sizes:
            continue
        for iterations in ITERATIONS if height > 500 else ITERATIONS[:1]:
            yield Case(height, width, labels, 67.0, 3.0, iterations)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print a line for each setting, and one JSON object at the end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only 513x513x21, (67,3), 10 iterations")
    parser.add_argument("--pydensecrf", type=Path, help="folder from which pydensecrf can be imported")
    parser.add_argument("--threads", type=int, nargs="*", help="thread counts (default: powers of two and all)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sizes", nargs="*", help="sizes of the settings to run, such as 513x513x21, or small")
    parser.add_argument("--iterations", type=int, nargs="*", help="numbers of updates of the settings to run")
    parser.add_argument("--kernels", nargs="*", help="kernels of the settings to run, such as 67,3")
    parser.add_argument("--shortcuts", action="store_true", help="measure the speed and accuracy of each shortcut")
    parser.add_argument("--shared", type=Path, help="folder with more trained unaries, for --shortcuts")
    parser.add_argument("--json", type=Path, help="also write the JSON object to this file")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        name, setting = options.child
        run_child(name, setting, options)
        return
    original = find_original(options.pydensecrf)
    most = available_threads()
    threads = options.threads or sorted({1, most, *(2**n for n in range(1, 9) if 2**n < most)})
    bandwidth = measure_bandwidth()
    print(f"{processor_name()}, {most} processors, load {os.getloadavg()[0]:.1f}, copies {bandwidth / 1e9:.1f} GB/s")
    machine = {"processor": processor_name(), "processors": most, "copy_bytes_per_s": bandwidth}
    if original is None:
        print('pydensecrf is not installed: skipping the comparison (pip install "atrous[pydensecrf]")')
    if options.shortcuts:
        from .bench_crf_shortcuts import run_shortcuts

        results = run_shortcuts(options.shared, original, max(threads), options.runs)
        finish({"machine": machine, "threads": max(threads), "unaries": results}, options.json)
        return
    cases = []
    for case in draw_cases(options.quick, options.sizes):
        if options.iterations and case.iterations not in options.iterations:
            continue
        if options.kernels and f"{case.sxy:g},{case.srgb:g}" not in options.kernels:
            continue
        measure(case, draw_problem(case.height, case.width, case.labels), original, threads, options.runs)
        measure_memory(case, options)
        print_case(case, bandwidth)
        cases.append(case)
        release_memory()
    finish({"machine": machine, "cases": [asdict(case) for case in cases]}, options.json)


def finish(results: dict[str, Any], file: Path | None) -> None:
    """Print the JSON object, and write it to the file of `--json`."""
    text = json.dumps({**results, "load": os.getloadavg()[0]})
    if file is not None:
        write_file(file, text.encode())
    print(text)


def print_case(case: Case, bandwidth: float) -> None:
    """Print times, ratios, and the bandwidth of each phase relative to copying."""
    print(case.name, end="" if case.max_difference is not None else "\n")
    if case.max_difference is not None:
        print(f"  max difference {case.max_difference:.1e}, {case.beyond_tolerance} pixels beyond {TOLERANCE:g}")
    reference = case.wall_s.get("pydensecrf")
    for name, wall in case.wall_s.items():
        ratio = ""
        if reference:
            ratio = f"{reference / wall:5.2f} x wall, {case.cpu_s['pydensecrf'] / case.cpu_s[name]:5.2f} x CPU"
        print(f"  {name:12s} {wall * 1e3:9.1f} ms wall {case.cpu_s[name] * 1e3:9.1f} ms CPU  {ratio}")
        for phase, seconds in case.phases_s.get(name, {}).items():
            moved = case.moved_bytes.get(phase, 0.0) * case.iterations
            share = f"{100 * moved / bandwidth / seconds:4.0f} % of copying speed" if moved and seconds else ""
            print(f"      {phase:9s} {seconds * 1e3:9.1f} ms  {share}")
    for name, peak in case.peak_bytes.items():
        print(f"  {name:12s} {peak / 1e6:9.1f} MB peak above the inputs")


if __name__ == "__main__":
    main()
