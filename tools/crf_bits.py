"""Compares the bits of the dense CRF's core: `python -m tools.crf_bits --against OTHER.so [--shared FOLDER]`.

Problems are the recordings of the shared folder and random settings of everything: grids, free features, masks, all
kinds of terms, float16, settled pixels. The sum of a problem is the CRC-32 of its marginals; it must be the same for
all instruction sets and thread counts, and for both builds of the extension. `write_problems` writes them for a program
in C++ that repeats them where no Python runs (tools/cross_check.py).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

_MODULE = "atrous.runtime.crf._lattice"
_NORMALIZATIONS = {"none": 0, "before": 1, "after": 2, "symmetric": 3}
_POTTS, _VECTOR, _MATRIX = 0, 1, 2

Random = np.random.Generator
Floats = npt.NDArray[np.float32]


@dataclass
class Term:
    """One term: `values` of its compatibility, and free features (d, N) or the sigmas of the axes and channels."""

    normalization: int
    kind: int
    values: Floats
    features: Floats | None = None
    axis_sigmas: list[float] = field(default_factory=list)
    channel_sigmas: list[float] = field(default_factory=list)
    image: npt.NDArray[Any] | None = None  # (*grid, C) uint8 or float32


@dataclass
class BitProblem:
    """Energies (L, N) float32 over a grid, the terms, and the options of a run."""

    name: str
    grid: list[int]
    energies: Floats
    terms: list[Term]
    iterations: int
    half: bool = False
    settle: float = 0.0
    mask: npt.NDArray[np.uint8] | None = None


def read_recordings(shared: Path) -> Iterator[BitProblem]:
    """The recordings of the reference CRF."""
    for file in sorted((shared / "crf").glob("*.npz")):
        with np.load(file) as data:
            case, image, p = json.loads(str(data["case"])), data["image"], data["probabilities"]
        labels, height, width = p.shape
        terms = []
        for term in case["terms"]:
            compat = np.array(term["compat"], np.float32)
            values = (compat + compat.T) / 2 if compat.ndim == 2 else compat
            own = Term(
                _NORMALIZATIONS[term["normalization"]], compat.ndim, np.atleast_1d(np.float32(values)).reshape(-1)
            )
            own.axis_sigmas = np.broadcast_to(np.float32(term["sxy"]), 2).tolist()
            if term["kind"] != "gaussian":
                own.channel_sigmas, own.image = np.broadcast_to(np.float32(term["srgb"]), 3).tolist(), image
            terms.append(own)
        energies = -np.log(np.clip(p, 1e-5, 1)).reshape(labels, -1)
        yield BitProblem(file.stem, [height, width], energies, terms, case["iterations"])


def draw_problems(count: int, labels: int | None = None) -> Iterator[BitProblem]:
    """Random settings, the same on every call; `labels` fixes their number."""
    for seed in range(count):
        random = np.random.default_rng(seed)
        axes = int(random.choice([1, 2, 2, 2, 3]))
        grid = [int(n) for n in random.integers(1, {1: 900, 2: 60, 3: 11}[axes], axes)]
        points = int(np.prod(grid))
        few = int(random.choice([1, 2, 2, 3, 4, 5, 8, 13, 21, 33]))
        energies = np.minimum(random.gamma(1.0, random.uniform(0.5, 4), (labels or few, points)), 11.5).astype(
            np.float32
        )
        problem = BitProblem(f"random {seed}", grid, energies, [], int(random.integers(0, 5)))
        problem.half = bool(random.random() < 0.2)
        problem.settle = float(random.uniform(0.5, 1)) if random.random() < 0.25 else 0.0
        problem.mask = (
            (random.random(points) < random.uniform(0, 1)).astype(np.uint8) if random.random() < 0.2 else None
        )
        problem.terms = [draw_term(random, grid, len(energies)) for _ in range(int(random.integers(0, 4)))]
        yield problem


def draw_term(random: Random, grid: list[int], labels: int) -> Term:
    """One term of a random kind."""
    kind, strength = int(random.integers(0, 3)), float(random.uniform(0.5, 4))
    values = [
        np.array([strength]),
        -strength * random.uniform(0.3, 1, labels),
        strength * random.uniform(0, 1, (labels, labels)),
    ][kind]
    if kind == _MATRIX:
        values = (values + values.T) / 2
    term = Term(int(random.integers(0, 4)), kind, values.reshape(-1).astype(np.float32))
    if random.random() < 0.3:
        term.features = random.normal(0, 2, (int(random.integers(1, 9)), int(np.prod(grid)))).astype(np.float32)
        return term
    term.axis_sigmas = [float(s) for s in random.uniform(1.5, 40, len(grid)).astype(np.float32)]
    if random.random() < 0.7:
        channels = int(random.choice([1, 3, 3, 3, 4]))
        noise = np.clip(random.normal(120, random.uniform(1, 60), (*grid, channels)), 0, 255)
        term.image = noise.astype(np.uint8 if random.random() < 0.7 else np.float32)
        term.channel_sigmas = [float(s) for s in random.uniform(3, 20, channels).astype(np.float32)]
    return term


def run_problem(problem: BitProblem, core: Any, kernels: str, threads: int) -> Floats:
    """Run a problem and return its marginals (L, N); `core` is the extension module, `kernels` "" its best ones."""
    grid = problem.grid
    order = core.PixelOrder.tiled(*grid) if len(grid) == 2 else core.PixelOrder.linear(problem.energies.shape[1])
    model = core.MeanField(order, len(problem.energies), problem.half, kernels, threads)
    with model:
        model.set_unary(problem.energies, 0, 0, float("inf"))
        for term in problem.terms:
            rest = term.normalization, problem.mask, threads, kernels
            if term.features is not None:
                lattice = core.Lattice.from_features(order, term.features, *rest)
            else:
                sigmas = term.axis_sigmas, term.image, term.channel_sigmas
                lattice = core.Lattice.from_grid(order, grid, *sigmas, *rest)
            model.add_term(lattice, term.kind, term.values)
        marginals, _ = model.run(problem.iterations, True, False, 0.0, problem.settle, None)
    return np.ascontiguousarray(marginals)


def write_problems(problems: list[BitProblem], core: Any, file: BinaryIO) -> None:
    """Write the problems and their marginals by `core` as tests/runtime/crf/native/bits.cpp reads them.

    All numbers have 32 bits, little-endian; images of uint8 and masks are written as they are.
    """
    for problem in problems:
        labels, points = problem.energies.shape
        numbers = [len(problem.grid), *problem.grid, points, labels, problem.iterations, problem.half]
        numbers += [problem.mask is not None, len(problem.terms)]
        file.write(struct.pack(f"<{len(numbers)}if", *map(int, numbers), problem.settle))
        if problem.mask is not None:
            file.write(problem.mask.tobytes())
        file.write(problem.energies.tobytes())
        for term in problem.terms:
            free = 0 if term.features is None else len(term.features)
            sigmas = [*term.axis_sigmas, *term.channel_sigmas]
            is_bytes = term.image is not None and term.image.dtype == np.uint8
            numbers = [term.normalization, term.kind, len(term.values), free, len(term.channel_sigmas), is_bytes]
            file.write(struct.pack("<6i", *map(int, numbers)) + term.values.tobytes())
            if term.features is not None:
                file.write(term.features.tobytes())
            else:
                file.write(np.array(sigmas, np.float32).tobytes())
                file.write(b"" if term.image is None else term.image.tobytes())
        file.write(run_problem(problem, core, "", 1).tobytes())


def load_core(file: Path | None) -> Any:
    """The extension in a file, or the installed one."""
    if file is None:
        return importlib.import_module(_MODULE)
    spec = importlib.util.spec_from_file_location(_MODULE, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sum_all(core: Any, problems: list[BitProblem], names: list[str]) -> dict[str, int]:
    """The sum of each problem; raises AssertionError where instruction sets (`names`) or thread counts differ."""
    sums = {}
    for problem in problems:
        runs = [(name, threads) for name in names for threads in (1, 3)]
        found = {(name, threads): zlib.crc32(run_problem(problem, core, name, threads).data) for name, threads in runs}
        assert len(set(found.values())) == 1, f"{problem.name}: {found}"
        sums[problem.name] = next(iter(found.values()))
    return sums


def choose_problems(shared: Path | None, rounds: int) -> list[BitProblem]:
    """The recordings, if the folder is given, and `rounds` random settings; two labels as often as all others."""
    few = list(draw_problems(rounds // 2, labels=2))
    for problem in few:
        problem.name += ", two labels"
    recordings = [] if shared is None else list(read_recordings(shared))
    return [*recordings, *draw_problems(rounds - rounds // 2), *few]


def main(arguments: list[str] | None = None) -> int:
    """Compare two builds, or print the sums of one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--against", type=Path, help="another build of the extension")
    parser.add_argument(
        "--extension", type=Path, help="the build to run, with its best kernels (default: the installed one)"
    )
    parser.add_argument("--shared", type=Path, help="folder whose crf/ holds the recordings")
    parser.add_argument("--rounds", type=int, default=400, help="number of random settings")
    options = parser.parse_args(arguments)
    problems = choose_problems(options.shared, options.rounds)
    core = load_core(options.extension)
    sums = sum_all(core, problems, core.kernel_names()[-1:] if options.extension else core.kernel_names())
    if options.against is None:
        print(json.dumps(sums))
        return 0
    command = [sys.executable, "-m", "tools.crf_bits", "--extension", options.against, "--rounds", options.rounds]
    command += [] if options.shared is None else ["--shared", options.shared]
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    other = json.loads(done.stdout.splitlines()[-1])
    different = [name for name in sums if sums[name] != other[name]]
    print(f"crf_bits: {len(sums)} problems, {len(different)} differ {different[:9] or ''}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
