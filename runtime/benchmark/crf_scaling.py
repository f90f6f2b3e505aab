"""The dense CRF's time by number of threads, and against pydensecrf where it is installed.

All take turns within each round, so that machine-wide slowdowns affect all; each run builds its lattices and starts
from the same energies. Every result is compared: the marginals of all thread counts bit by bit, the labels with
pydensecrf's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from ...bundle.crf_parameters import CrfParameters
from ...errors import InputError, MemoryLimitError
from ..memory import find_limit_bytes
from ..tiles.memory import MemoryModel
from ..tiles.planner import write_size
from ..upsampling import softmax, upsample_scores
from .machine import read_load

_CLIP = 1e-5
_EACH_UP_TO = 8  # threads, above which only powers of two, halves between them and all are measured


class CrfRow(BaseModel):
    """One number of threads, or pydensecrf."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str
    """ "atrous" or "pydensecrf" """
    threads: int
    best_ms: float
    """milliseconds of the best run, from energies to marginals, lattices included"""
    median_ms: float
    speedup: float
    """best of one thread over this best"""
    over_pydensecrf: float | None
    """pydensecrf's best over this best; null without pydensecrf"""
    phases_ms: dict[str, float]
    """milliseconds of lattices, splat, blur and slice in the best run; empty for pydensecrf"""


class CrfScaling(BaseModel):
    """The measurement."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    processor: str
    cores: int
    """processors that this process may use"""
    load: float | None
    """of the machine before the measurement, averaged over a minute"""
    height: int
    width: int
    labels: int
    parameters: CrfParameters
    runs: int
    vertices: list[int]
    """of the lattice of each term"""
    kernels: str
    """instruction set in use"""
    reference: str | None
    """version of pydensecrf; null if it is not installed"""
    labels_equal: bool | None
    """whether pydensecrf gave the same label everywhere; null without it"""
    bits_equal: bool
    """whether all thread counts gave the same bits"""
    rows: list[CrfRow]


def choose_threads(cores: int) -> list[int]:
    """1 to `cores`: every number up to 8, above it powers of two, those between, and all."""
    steps = {base * factor // 2 for base in (8, 16, 32, 64, 128, 256) for factor in (2, 3)}
    return sorted({*range(1, min(cores, _EACH_UP_TO) + 1), *(step for step in steps if step < cores), cores})


def check_memory(height: int, width: int, labels: int, runs: int) -> None:
    """Raise MemoryLimitError if the CRF of an image, and the results of a round of `runs`, would not fit."""
    model = MemoryModel(labels, None, network_on_host=True, has_crf=True)
    needed = height * width * (model.finish(crf=True) + 4 * labels * runs)
    if needed > (limit := find_limit_bytes()):
        raise MemoryLimitError(
            f"{height}x{width}x{labels} needs about {write_size(needed)}, and it can have {write_size(limit)}: choose "
            "a smaller --size"
        )


def draw_scores(height: int, width: int, labels: int) -> npt.NDArray[np.float32]:
    """Scores (L, H, W) as of a network of stride 8: random numbers on a coarse grid, upsampled."""
    coarse = np.random.default_rng(0).normal(0, 2, (labels, -(-height // 8) + 1, -(-width // 8) + 1))
    return upsample_scores(coarse.astype(np.float32), (height, width), (height, width))


def measure_scaling(
    image: npt.NDArray[np.uint8],
    labels: int,
    parameters: CrfParameters,
    *,
    threads: Iterable[int] | None = None,
    runs: int = 5,
    on_step: Callable[[str], None] = lambda step: None,
) -> CrfScaling:
    """Measure.

    Args:
        image: H x W x 3 uint8 RGB.
        labels: number of labels, whose scores are drawn.
        parameters: of the CRF.
        threads: numbers of threads; None for 1 to all.
        runs: rounds; each runs all once.
        on_step: gets the name of each round.

    Raises:
        InputError: a number is out of range.
    """
    from ...dependencies import read_version
    from ..crf import available_threads
    from ..crf.pydensecrf_backend import run_pydensecrf
    from ..devices import describe_processor

    cores = available_threads()
    counts = choose_threads(cores) if threads is None else sorted(set(threads))
    if not counts or counts[0] < 1 or runs < 1 or not 1 <= labels <= 1000:
        raise InputError("threads and runs are at least 1, labels 1 to 1000")
    height, width = image.shape[:2]
    check_memory(height, width, labels, len(counts))
    probabilities = softmax(draw_scores(height, width, labels))
    energies = -np.log(np.clip(probabilities, _CLIP, 1.0))
    subjects: dict[tuple[str, int], Callable[[], npt.NDArray[np.float32]]] = {}
    best_phases: dict[tuple[str, int], dict[str, float]] = {}
    info: dict[str, Any] = {}
    original = _find_original()
    if original:
        subjects["pydensecrf", 1] = partial(run_pydensecrf, image, energies, parameters)
    for count in counts:
        phases = best_phases["atrous", count] = {}
        subjects["atrous", count] = _make_run(image, energies, parameters, count, phases, info)
    load = read_load()
    spent: dict[tuple[str, int], list[float]] = {subject: [] for subject in subjects}
    kept_phases: dict[tuple[str, int], dict[str, float]] = {}
    bits_equal, labels_equal = True, True
    for number in range(runs):
        results = {}
        for subject, run in subjects.items():
            on_step(f"round {number + 1} of {runs}: {subject[0]}, {subject[1]} threads")
            start_s = time.perf_counter()
            results[subject] = run()
            spent[subject].append((time.perf_counter() - start_s) * 1000)
            if spent[subject][-1] == min(spent[subject]):
                kept_phases[subject] = dict(best_phases.get(subject, {}))
        own = [result for (name, _), result in results.items() if name == "atrous"]
        bits_equal &= all(np.array_equal(own[0], other) for other in own[1:])
        if original:
            labels_equal &= np.array_equal(own[0].argmax(axis=0), results["pydensecrf", 1].argmax(axis=0))
    best = {subject: min(times) for subject, times in spent.items()}
    one = best["atrous", counts[0]]
    reference_ms = best.get(("pydensecrf", 1))
    rows = [
        CrfRow(
            name=name,
            threads=count,
            best_ms=round(best[name, count], 3),
            median_ms=round(statistics.median(spent[name, count]), 3),
            speedup=round(one / best[name, count], 3),
            over_pydensecrf=round(reference_ms / best[name, count], 3) if reference_ms else None,
            phases_ms={phase: round(value, 3) for phase, value in kept_phases[name, count].items()},
        )
        for name, count in subjects
    ]
    return CrfScaling(
        processor=describe_processor().name,
        cores=cores,
        load=load,
        height=height,
        width=width,
        labels=labels,
        parameters=parameters,
        runs=runs,
        reference=(read_version("pydensecrf2") or read_version("pydensecrf") or "unknown") if original else None,
        labels_equal=bool(labels_equal) if original else None,
        bits_equal=bool(bits_equal),
        rows=rows,
        **info,
    )


def _make_run(
    image: npt.NDArray[np.uint8],
    energies: npt.NDArray[np.float32],
    parameters: CrfParameters,
    threads: int,
    phases: dict[str, float],
    info: dict[str, Any],
) -> Callable[[], npt.NDArray[np.float32]]:
    from ..crf import DenseCRF
    from ..crf.image import add_terms
    from ..crf.terms import forget_lattices

    def run() -> npt.NDArray[np.float32]:
        forget_lattices()  # every run builds its own
        crf = DenseCRF(image.shape[:2], len(energies), threads=threads)
        crf.set_unary(energies)
        start_s = time.perf_counter()
        add_terms(crf, image, parameters)
        built_s = time.perf_counter() - start_s
        marginals = crf.inference(parameters.iterations, keep=False)
        report = crf.report
        assert report is not None
        seconds = {"lattices": built_s, "splat": report.splat_s, "blur": report.blur_s, "slice": report.slice_s}
        phases.update({name: 1000 * value for name, value in seconds.items()})
        info.update(vertices=crf.lattice_vertices, kernels=crf.kernels)
        return marginals

    return run


def _find_original() -> bool:
    from ...dependencies import import_optional
    from ...errors import BackendError

    try:
        return import_optional("pydensecrf.densecrf").__name__ == "pydensecrf.densecrf"
    except BackendError:  # missing, or it does not load
        return False
