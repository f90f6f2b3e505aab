"""The roofline: what the machine can do at most, and how near the network comes.

Both limits are measured, not looked up: float32 matrix products in ONNX Runtime with as many threads as the network has
(its own kernels set the ceiling), and copies of arrays far larger than the caches by as many threads. The largest rate
of several tries counts, as a ceiling must.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..backends.onnxruntime import OnnxRuntimeBackend
from .clocks import Clock
from .results import ModelCost, Roofline

#: ONNX model of y = MatMul(a, b), float32 n x n
PRODUCT = base64.b64decode(
    "CAg6WwoRCgFhCgFiEgF5IgZNYXRNdWwSAWdaFQoBYRIQCg4IARIKCgMSAW4KAxIBbloVCgFiEhAKDggBEgoKAxIBbgoDEgFuYhUKAXkSEAoOCAES"
    "CgoDEgFuCgMSAW5CBAoAEBE="
)
SIDE = 1024
COPY_BYTES = 256 << 20
TRIES = 7
METHOD = (
    f"float32 products of {SIDE} x {SIDE} matrices in ONNX Runtime; copies of {COPY_BYTES >> 20} MiB, bytes read plus "
    f"bytes written; the best of {TRIES} tries each"
)


def measure_cpu_roofline(
    clock: Clock, *, threads: int, model: ModelCost | None, compute_ms: float | None, side: int = SIDE
) -> Roofline:
    """Measure both limits, and place the network under them.

    Args:
        clock: what times the tries.
        threads: how many work at once.
        model: cost of one image, if known.
        compute_ms: median time of the network for one image.
        side: of the matrices.
    """
    peak_gflops = measure_peak_gflops(clock, threads, side)
    bandwidth_gb_s = measure_bandwidth_gb_s(clock, threads)
    achieved = attainable = share = None
    if model is not None:
        attainable = min(peak_gflops, model.intensity * bandwidth_gb_s)
        if compute_ms:
            achieved = model.flops / (compute_ms / 1000) / 1e9
            share = achieved / attainable
    return Roofline(
        device="cpu",
        threads=threads,
        peak_gflops=round(peak_gflops, 3),
        bandwidth_gb_s=round(bandwidth_gb_s, 3),
        method=METHOD,
        model=model,
        achieved_gflops=round(achieved, 3) if achieved is not None else None,
        attainable_gflops=round(attainable, 3) if attainable is not None else None,
        share=round(share, 4) if share is not None else None,
    )


def measure_peak_gflops(clock: Clock, threads: int, side: int = SIDE) -> float:
    """The best rate of a float32 matrix product, in 1e9 FLOP/s, two a multiply-add."""
    backend = OnnxRuntimeBackend(PRODUCT, threads=threads)
    try:
        rng = np.random.default_rng(0)
        feeds = {name: rng.random((side, side), np.float32) for name in ("a", "b")}
        best_s = _time_best(clock, lambda: backend.run(feeds))
    finally:
        backend.close()
    return float(2 * side**3 / best_s / 1e9)


def measure_bandwidth_gb_s(clock: Clock, threads: int) -> float:
    """The best rate of a copy, in 1e9 byte/s, bytes read plus bytes written."""
    source = np.ones(COPY_BYTES, np.uint8)
    target = np.empty_like(source)
    pieces = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        best_s = _time_best(clock, lambda: list(pool.map(lambda piece: np.copyto(*piece), pieces)))
    return 2 * COPY_BYTES / best_s / 1e9


def _time_best(clock: Clock, work: Callable[[], object]) -> float:
    work()
    times_ns = []
    for _ in range(TRIES):
        start_ns = clock.now_ns()
        work()
        times_ns.append(clock.now_ns() - start_ns)
    return max(min(times_ns), 1) / 1e9
