"""Speed and accuracy of each shortcut of the dense CRF, on trained networks' unaries.

`python -m tools.bench_crf --shortcuts [--shared FOLDER] [--pydensecrf FOLDER]` compares the wall time from energies to
marginals (best of the runs) with pydensecrf's on the same energies, and labels and marginals with the exact result.
The run fails if `FAST` changes more than `MOST_CHANGED` of the labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atrous.runtime.crf import FAST, DenseCRF, dense_crf
from atrous.runtime.crf.terms import forget_lattices

from .crf_problems import Problem
from .crf_unaries import Trained, read_unaries

MOST_CHANGED = 0.0005
ITERATIONS = 10
KERNEL = (67.0, 3.0)

Marginals = npt.NDArray[np.float32]

SHORTCUTS: dict[str, Mapping[str, Any]] = {
    "exact": {},
    'storage="float16"': {"storage": "float16"},
    'prune="lossless"': {"prune": "lossless"},
    "prune=0.01": {"prune": 0.01},
    "prune=0.1": {"prune": 0.1},
    "tolerance=0.001": {"tolerance": 0.001},
    "settle=0.999": {"settle": 0.999},
    "settle=0.99": {"settle": 0.99},
    "FAST": FAST,
}


@dataclass(frozen=True)
class Outcome:
    """One shortcut on one unary: seconds, how many times faster than pydensecrf, fraction of labels changed."""

    name: str
    wall_s: float
    ratio: float | None
    changed: float
    largest_difference: float
    labels_kept: int
    settled: float


class Series:
    """One image, whose lattices can be reused for new unaries."""

    def __init__(self, problem: Problem, threads: int, options: Mapping[str, Any]) -> None:
        self.problem, self.options = problem, dict(options)
        labels, height, width = problem.probabilities.shape
        self.energies = problem.unary.reshape(labels, height, width)
        self.crf = DenseCRF((height, width), labels, threads=threads, storage=self.options.pop("storage", "float32"))
        self.prune = self.options.pop("prune", None)
        self.kept = labels

    def add_terms(self) -> Series:
        """Add pydensecrf's terms, with its normalization."""
        self.crf.add_gaussian(3.0, 3.0)
        self.crf.add_bilateral(*KERNEL, self.problem.image, 4.0)
        return self

    def infer(self, iterations: int = ITERATIONS, **options: Any) -> Marginals:
        """Compute the marginals of the unary."""
        self.crf.set_unary(self.energies)
        if self.prune is not None:
            self.kept = len(self.crf.prune_labels(below=None if self.prune == "lossless" else self.prune))
        return self.crf.inference(iterations, **{"keep": False, **self.options, **options})


def measure_shortcuts(trained: Trained, original: Any, threads: int, runs: int) -> list[Outcome]:
    """Measure all shortcuts on one unary; raises AssertionError if FAST changes too many labels."""
    problem = trained.problem
    forget_lattices()
    exact = Series(problem, threads, {}).add_terms().infer()
    reference = None if original is None else time_best(lambda: run_original(problem, original), max(2, runs // 2))[0]
    outcomes = []

    def note(name: str, run: Callable[[], Marginals], series: Series | None = None) -> None:
        seconds, found = time_best(run, runs)
        report = None if series is None else series.crf.report
        outcomes.append(
            Outcome(
                name,
                seconds,
                reference / seconds if reference else None,
                float((found.argmax(axis=0) != exact.argmax(axis=0)).mean()),
                float(np.abs(found - exact).max()),
                len(found) if series is None else series.kept,
                report.settled if report else 0.0,
            )
        )

    for name, options in SHORTCUTS.items():
        latest: list[Series] = []

        def run(options: Mapping[str, Any] = options, latest: list[Series] = latest) -> Marginals:
            latest[:] = [Series(problem, threads, options).add_terms()]
            return latest[0].infer()

        run()
        note(name, run, latest[0])
    again = Series(problem, threads, FAST).add_terms()
    note("FAST, image again", again.infer, again)
    warm = Series(problem, threads, {}).add_terms()
    warm.infer(keep=True)
    note("warm=True, 3 updates", lambda: warm.infer(3, warm=True, keep=True), warm)
    note("reduce=2", lambda: run_reduced(problem, threads))
    for outcome in outcomes:
        if outcome.name.startswith("FAST"):
            assert outcome.changed <= MOST_CHANGED, f"{trained.name}: {outcome.name} changes {outcome.changed:.3%}"
    return outcomes


def run_reduced(problem: Problem, threads: int) -> Marginals:
    """Run at half resolution, through `dense_crf`."""
    return dense_crf(
        problem.image,
        problem.probabilities,
        mode="pydensecrf",
        iterations=ITERATIONS,
        bilateral=(*KERNEL, 4.0),
        threads=threads,
        reduce=2,
    )


def run_original(problem: Problem, original: Any) -> Marginals:
    """Run pydensecrf on the same energies."""
    labels, height, width = problem.probabilities.shape
    crf = original.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(problem.unary)
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=KERNEL[0], srgb=KERNEL[1], rgbim=problem.image, compat=4)
    return np.array(crf.inference(ITERATIONS))


def time_best(run: Callable[[], Marginals], runs: int) -> tuple[float, Marginals]:
    """Return the least wall seconds of the runs, and the last result."""
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        result = run()
        best = min(best, time.perf_counter() - start)
    return best, result


def run_shortcuts(shared: Path | None, original: Any, threads: int, runs: int) -> list[dict[str, Any]]:
    """Measure all unaries, print the results, and return them as plain data."""
    results = []
    for trained in read_unaries(shared):
        labels, height, width = trained.problem.probabilities.shape
        title = f"{trained.name}: {height}x{width}x{labels}, mean largest p {trained.problem.mean_confidence:.3f}"
        print(title, flush=True)
        outcomes = measure_shortcuts(trained, original, threads, runs)
        for o in outcomes:
            ratio = f"{o.ratio:5.1f} x pydensecrf" if o.ratio else ""
            effect = f"{100 * o.changed:7.4f} % of labels, {o.largest_difference:.1e}"
            kept = f"{o.labels_kept} labels, {100 * o.settled:.0f} % settled"
            print(f"  {o.name:22s} {o.wall_s * 1e3:8.1f} ms {ratio}  {effect}  {kept}", flush=True)
        results.append({"unary": title, "outcomes": [asdict(outcome) for outcome in outcomes]})
    return results
