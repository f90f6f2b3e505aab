"""The roofline: the machine's limits, and how close the network comes to them.

Both limits are measured: float32 matrix products in ONNX Runtime with the network's number of threads, and copies of
arrays far larger than the caches by as many threads; the best of several tries counts. A share above 100 % shows that
the limits were measured while the machine was busy, so they are measured again. If it stays above 100 %, it is withheld
with the reason.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..backends.onnxruntime import OnnxRuntimeBackend
from .results import ModelCost, Roofline
from .timing import Clock

#: ONNX model of y = MatMul(a, b), float32 n x n
PRODUCT = base64.b64decode(
    "CAg6WwoRCgFhCgFiEgF5IgZNYXRNdWwSAWdaFQoBYRIQCg4IARIKCgMSAW4KAxIBbloVCgFiEhAKDggBEgoKAxIBbgoDEgFuYhUKAXkSEAoOCAES"
    "CgoDEgFuCgMSAW5CBAoAEBE="
)
SIDE = 1024
COPY_BYTES = 256 << 20
TRIES = 7
REPEATS = 2  # of the whole measurement, while a share exceeds 1
METHOD = (
    f"float32 products of {SIDE} x {SIDE} matrices in ONNX Runtime; copies of {COPY_BYTES >> 20} MiB, bytes read plus "
    f"bytes written; the best of {TRIES} tries each"
)
_ABOVE = (
    "the network reaches {share:.0%} of the measured limits: it does less work than the formula counts (Winograd, a "
    "narrower type), or the machine was busy while the limits were measured; run again on an idle machine"
)


def measure_cpu_rooflines(
    clock: Clock, *, threads: int, model: ModelCost | None, compute_ms: Sequence[float | None], side: int = SIDE
) -> list[Roofline]:
    """Measure both limits, and place each subject on the CPU by its median time per image (None: unknown)."""
    achieved = [model.flops / (ms * 1e6) if model is not None and ms else None for ms in compute_ms]
    peak_gflops = bandwidth_gb_s = 0.0
    attainable = None
    for _ in range(1 + REPEATS):
        peak_gflops = max(peak_gflops, measure_peak_gflops(clock, threads, side))
        bandwidth_gb_s = max(bandwidth_gb_s, measure_bandwidth_gb_s(clock, threads))
        attainable = min(peak_gflops, model.intensity * bandwidth_gb_s) if model is not None else None
        if attainable is None or all(gflops is None or gflops <= attainable for gflops in achieved):
            break
    shares = [gflops / attainable if gflops is not None and attainable else None for gflops in achieved]
    return [
        Roofline(
            device="cpu",
            threads=threads,
            peak_gflops=peak_gflops,
            bandwidth_gb_s=bandwidth_gb_s,
            method=METHOD,
            model=model,
            achieved_gflops=gflops,
            attainable_gflops=attainable,
            share=share if share is not None and share <= 1 else None,
            reason=_ABOVE.format(share=share) if share is not None and share > 1 else None,
        )
        for gflops, share in zip(achieved, shares, strict=True)
    ]


def measure_peak_gflops(clock: Clock, threads: int, side: int = SIDE) -> float:
    """The best rate of a float32 matrix product, in 1e9 FLOP/s, two per multiply-add."""
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
