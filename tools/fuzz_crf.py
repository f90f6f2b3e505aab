"""Fuzzes the dense CRF with random shapes, types and extreme values: it must return distributions or reject the input.

    python -m tools.fuzz_crf --rounds 500 --seed 0

Any other exception, a value outside of 0 to 1, or a crash is a finding; the seed of the round reproduces it.
"""

from __future__ import annotations

import argparse
import math
import warnings
from typing import Any

import numpy as np

from atrous.errors import CrfInputError
from atrous.runtime.crf import CrfWarning, DenseCRF

_EXTREMES = [0.0, -0.0, 1.0, -1.0, 1e-45, 1e-38, 3e38, -3e38, math.nan, math.inf, -math.inf, 255.0, 1e5]
_DTYPES = ["float32"] * 200 + ["float64", "float16", "int32", "uint8", "bool"]


def draw_array(random: np.random.Generator, shape: tuple[int, ...], spread: float) -> np.ndarray[Any, Any]:
    """Return random numbers, sometimes extreme ones, of a random type, shape and stride."""
    values = random.normal(0, spread, shape)
    if random.random() < 0.05 and values.size:
        places = random.integers(0, values.size, 3)
        values.reshape(-1)[places] = random.choice(_EXTREMES, 3)
    with np.errstate(all="ignore"):
        array = values.astype(random.choice(_DTYPES))
    match random.integers(0, 80):
        case 0:
            array = array[..., ::-1]
        case 1:
            array = array.T
        case 2:
            array = array[:-1]
        case 3:
            array = np.asfortranarray(array)
    return array


def fuzz_once(seed: int) -> str:
    """Run one round; return "answered" or the first words of the refusal."""
    random = np.random.default_rng(seed)
    axes = int(random.integers(0, 4))
    labels = int(random.choice([1, 2, 3, 5, 8, 21, 33, 70]))
    shape: Any = tuple(int(n) for n in random.integers(1, 20, axes)) if axes else int(random.integers(1, 200))
    grid = shape if axes else (shape,)
    try:
        crf = DenseCRF(
            shape,
            labels,
            threads=int(random.integers(1, 5)),
            storage="float16" if random.random() < 0.3 else "float32",
            mask=random.random(grid) < 0.7 if random.random() < 0.2 else None,
        )
        match random.integers(0, 3):
            case 0:
                crf.set_unary(draw_array(random, (labels, *grid), 10 ** random.uniform(-2, 4)))
            case 1:
                size = tuple(int(random.integers(1, n + 1)) for n in grid) if random.random() < 0.5 else grid
                crf.set_scores(draw_array(random, (labels, *size), 10 ** random.uniform(-2, 4)))
            case 2:
                raw = np.exp(draw_array(random, (labels, *grid), 3).astype(np.float64))
                crf.set_probabilities((raw / raw.sum(axis=0)).astype(np.float32))
        for _ in range(int(random.integers(1, 4))):
            compatibility: Any = float(random.normal(0, 10 ** random.uniform(-1, 3)))
            if random.random() < 0.3:
                compatibility = draw_array(random, (labels,) * int(random.integers(1, 3)), 3)
            normalization: Any = random.choice(["none", "before", "after", "symmetric"])
            sigmas = [float(10 ** random.uniform(-5 if random.random() < 0.1 else 0, 3)) for _ in grid]
            match random.integers(0, 3):
                case 0:
                    crf.add_gaussian(sigmas, compatibility, normalization=normalization)
                case 1:
                    image = draw_array(random, (*grid, int(random.integers(1, 5))), 100)
                    image = image.astype(np.uint8) if random.random() < 0.7 else image
                    crf.add_bilateral(
                        sigmas,
                        float(10 ** random.uniform(-4 if random.random() < 0.1 else 1, 3)),
                        image,
                        compatibility,
                        normalization=normalization,
                    )
                case 2:
                    features = draw_array(random, (int(random.integers(1, 12)), int(np.prod(grid))), 10)
                    crf.add_features(features, compatibility, normalization=normalization)
        if random.random() < 0.3:
            crf.prune_labels(below=float(random.uniform(0, 1)) if random.random() < 0.5 else None)
        settle = float(random.uniform(0, 1)) if random.random() < 0.3 else 0.0
        tolerance = 0.01 if random.random() < 0.2 else 0.0
        keep = bool(random.random() < 0.5)
        marginals = crf.inference(int(random.integers(0, 5)), tolerance=tolerance, settle=settle, keep=keep)
    except CrfInputError as refusal:
        return " ".join(str(refusal).split()[:4])
    if not np.isfinite(marginals).all() or (marginals < 0).any() or np.abs(marginals.sum(axis=0) - 1).max() > 1e-4:
        raise AssertionError(f"seed {seed}: marginals are not distributions")
    return "answered"


def main(arguments: list[str] | None = None) -> None:
    """Run the requested rounds and print the number of answers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    answered = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CrfWarning)
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's own, on extreme values
        for seed in range(options.seed, options.seed + options.rounds):
            answered += fuzz_once(seed) == "answered"
    print(f"fuzz_crf: {options.rounds} rounds, {answered} answered, {options.rounds - answered} refused, none wrong")


if __name__ == "__main__":
    main()
