"""Random settings of the dense CRF, on the CPU and by the GPU's kernels: every bit must be equal.

    python -m tools.cuda_on_cpu.settings --settings 1000

Runs on the emulation; `--gpu` runs on a GPU instead.
"""

from __future__ import annotations

import argparse
import warnings
from contextlib import ExitStack
from typing import Any
from unittest import mock

import numpy as np

from atrous.runtime.crf import CrfWarning, DenseCRF
from atrous.runtime.crf.gpu import engine

from .driver import EmulatedDriver

Random = np.random.Generator

#: Grids; 0 is replaced by a random extent.
SHAPES: tuple[tuple[int, ...], ...] = ((0, 0), (0, 0), (0, 0), (1, 0), (0, 1), (0,), (5, 0, 4), (2, 3, 2, 0, 2))
_LABELS = (1, 2, 2, 3, 5, 8, 19, 21, 33, 70)


def draw_shape(random: Random) -> tuple[int, ...]:
    """Return a small grid of one to five axes."""
    shape = SHAPES[random.integers(len(SHAPES))]
    return tuple(extent or int(random.integers(1, 48)) for extent in shape)


def set_unary(random: Random, models: list[DenseCRF], shape: tuple[int, ...], labels: int) -> None:
    """Give all models the same unary: energies, probabilities or scores, sometimes of a coarser grid or strided."""
    values = random.normal(0, 10 ** random.uniform(-1, 1.5), (labels, *shape)).astype(np.float32)
    match random.integers(4):
        case 0:
            energies = np.moveaxis(np.ascontiguousarray(np.moveaxis(values, 0, -1)), -1, 0)
            for model in models:
                model.set_unary(energies)
        case 1:
            likelihoods = np.exp(np.minimum(values, 40).astype(np.float64)) + 1e-9
            probabilities = (likelihoods / likelihoods.sum(axis=0)).astype(np.float32)
            for model in models:
                model.set_probabilities(probabilities)
        case 2 if len(shape) == 2:
            padded = shape[0] + int(random.integers(9)), shape[1] + int(random.integers(9))
            coarse = tuple(int(random.integers(1, extent + 1)) for extent in padded)
            dtype = np.float16 if random.random() < 0.3 and padded != coarse != shape else np.float32
            scores = random.normal(0, 3, (labels, *coarse)).astype(dtype)
            for model in models:
                model.set_scores(scores, clip=0.001, padded=padded)
        case _:
            for model in models:
                model.set_scores(values)


def add_term(random: Random, models: list[DenseCRF], shape: tuple[int, ...], labels: int) -> None:
    """Give all models the same term of any kind, compatibility and normalization."""
    compatibility: Any = float(random.normal(2, 3))
    if random.random() < 0.4:
        compatibility = random.normal(0, 2, (labels,) * int(random.integers(1, 3))).astype(np.float32)
    normalization = ("none", "before", "after", "symmetric")[random.integers(4)]
    sxy = [float(sigma) for sigma in 10 ** random.uniform(0, 2, len(shape))]
    match random.integers(5):
        case 0 | 1:
            for model in models:
                model.add_gaussian(sxy, compatibility, normalization=normalization)  # type: ignore[arg-type]
        case 2 | 3:
            channels = int(random.choice([1, 3, 3, 3, 4]))
            image = random.integers(0, 256, (*shape, channels)).astype(np.uint8)
            if random.random() < 0.5:
                image //= 16  # few vertices, each of many pixels
            pixels: Any = image if random.random() < 0.7 else image.astype(np.float32) * 1.37
            srgb = float(10 ** random.uniform(0.3, 2))
            for model in models:
                model.add_bilateral(sxy, srgb, pixels, compatibility, normalization=normalization)  # type: ignore[arg-type]
        case _:
            points = int(np.prod(shape))
            features = random.normal(0, 3, (int(random.integers(1, 13)), points)).astype(np.float32)
            for model in models:
                model.add_features(features, compatibility, normalization=normalization)  # type: ignore[arg-type]


def compare_setting(seed: int) -> None:
    """Run one setting on the CPU and with `device="cuda"`; AssertionError if a bit differs."""
    random = np.random.default_rng(seed)
    shape, labels = draw_shape(random), int(random.choice(_LABELS))
    mask = random.random(shape) < random.choice([0.0, 0.5, 0.9]) if random.random() < 0.25 else None
    models = [DenseCRF(shape, labels, mask=mask, threads=1, device=device) for device in ("cpu", "cuda")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CrfWarning)
        set_unary(random, models, shape, labels)
        for _ in range(int(random.integers(1, 4))):
            add_term(random, models, shape, labels)
    if models[0].lattice_vertices != models[1].lattice_vertices:
        raise AssertionError(f"setting {seed}: {models[0].lattice_vertices} != {models[1].lattice_vertices} vertices")
    energies = [model.unary_energies() for model in models]
    iterations = int(random.integers(0, 6))
    marginals = [model.inference(iterations) for model in models]
    stepped = [model.step() for model in models]
    for what, (expected, found) in (("energies", energies), ("marginals", marginals), ("step", stepped)):
        # the kernels leave the sign of zero to the compiler; the sum with 0 has none
        different = int(((expected + 0).view(np.uint32) != (found + 0).view(np.uint32)).sum())
        if different:
            largest = float(np.abs(expected - found).max())
            raise AssertionError(f"setting {seed}: {different} of {found.size} {what} differ, by {largest:g}")


def main(arguments: list[str] | None = None) -> None:
    """Run the requested settings."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--settings", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gpu", action="store_true", help="run on a GPU instead of the emulation")
    parser.add_argument("--backward", action="store_true", help="threads and blocks of the emulation last to first")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        if not options.gpu:
            emulation = EmulatedDriver(backward=options.backward)
            stack.enter_context(mock.patch.object(engine, "open_driver", return_value=emulation))
        for seed in range(options.seed, options.seed + options.settings):
            compare_setting(seed)
    where = "GPU" if options.gpu else "GPU source on the CPU"
    print(f"{options.settings} settings, CPU against {where}: all bits equal")


if __name__ == "__main__":
    main()
