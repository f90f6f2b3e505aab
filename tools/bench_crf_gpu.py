"""Times the dense CRF on a GPU, and compares each result with the CPU's, bit for bit.

    python -m tools.bench_crf_gpu --json out/crf-gpu.json

A row has the milliseconds of an image whose pixels and energies are in device memory (unary, lattices, ten updates,
labels; the position lattice is kept from the image before), of the bilateral lattice, and of one update. The share of
bandwidth is that of the bytes that an update cannot avoid, if rows of vertices stay in the second-level cache, over a
copy within device memory. `--emulate` runs a tiny image on the CPU, to test this program; its times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from atrous.bundle.files import write_file
from atrous.runtime.crf import DenseCRF
from atrous.runtime.crf.gpu import Driver, engine, open_driver
from atrous.runtime.crf.gpu.arrays import DeviceArray
from atrous.runtime.crf.gpu.queue import Queue

from .crf_problems import Problem, draw_problem
from .cuda_on_cpu.driver import EmulatedDriver

_SIZES = ((513, 513, 21), (1024, 2048, 19))
_KERNEL = (67.0, 3.0)
_UPDATES, _MORE_UPDATES = 10, 50
_COPY_BYTES = 1 << 30


@dataclass(frozen=True)
class Row:
    """The figures of one size; times are medians in milliseconds."""

    size: tuple[int, int, int]
    vertices: list[int]
    image_ms: float
    lattice_ms: float
    update_ms: float
    update_bytes: int
    copy_bytes_per_s: float
    bandwidth_share: float


def time_ms(queue: Queue, repeats: int, act: Callable[[], Any]) -> float:
    """The median wall time of a call and all work that the device has after it."""
    times = []
    for turn in range(repeats + 1):  # the first one warms up
        queue.synchronize()
        start = time.perf_counter()
        act()
        queue.synchronize()
        if turn:
            times.append(1000 * (time.perf_counter() - start))
    return median(times)


def measure_copy(queue: Queue, size_bytes: int, repeats: int) -> float:
    """Bytes read and written in a second by a copy kernel within device memory."""
    source, target = queue.allocate(size_bytes // 4, np.float32), queue.allocate(size_bytes // 4, np.float32)
    sizes = (size_bytes // 4, 1, 1)
    copy_ms = time_ms(queue, repeats, lambda: queue.launch("write_marginals", size_bytes // 4, source, *sizes, target))
    return 2 * size_bytes / copy_ms * 1000


def count_bytes(crf: DenseCRF, labels: int) -> int:
    """The bytes that an update cannot avoid."""
    values, entries = crf.points * labels * 4, crf.points * (3 + 6) * 8
    return 2 * values + values + 2 * entries  # Q once read and once written, U, splat's and slice's entries


def measure(driver: Driver, problem: Problem, repeats: int, copy_bytes: int) -> Row:
    """Measure one problem; AssertionError if a bit differs from the CPU's."""
    labels, height, width = problem.probabilities.shape
    energies: npt.NDArray[np.float32] = problem.unary.reshape(labels, height, width)
    queue = Queue(driver)
    pixels, unary = (_upload(queue, array) for array in (problem.image, energies))
    sxy, srgb = _KERNEL

    def make(device: Any, image: Any, values: Any) -> DenseCRF:
        crf = DenseCRF((height, width), labels, device=device)
        crf.set_unary(values)
        crf.add_gaussian(3.0, 3.0)
        crf.add_bilateral(sxy, srgb, image, 4.0)
        return crf

    crf: Any = make("cuda", pixels, unary)
    expected = make("cpu", problem.image, energies).inference(_UPDATES)
    found = crf.inference(_UPDATES).to_host()
    if not np.array_equal(found.view(np.uint32), expected.view(np.uint32)):
        raise AssertionError(f"{problem.image.shape}: {int((found != expected).sum())} marginals differ from the CPU's")
    image_ms = time_ms(queue, repeats, lambda: _infer_labels(make("cuda", pixels, unary), _UPDATES))
    lattice_ms = time_ms(queue, repeats, lambda: crf.set_image(pixels))
    few, many = (time_ms(queue, repeats, partial(_infer_labels, crf, count)) for count in (_UPDATES, _MORE_UPDATES))
    update_ms = (many - few) / (_MORE_UPDATES - _UPDATES)
    update_bytes, copied = count_bytes(crf, labels), measure_copy(queue, copy_bytes, repeats)
    share = update_bytes / update_ms * 1000 / copied
    size = (height, width, labels)
    return Row(size, crf.lattice_vertices, image_ms, lattice_ms, update_ms, update_bytes, copied, share)


def _infer_labels(crf: Any, updates: int) -> None:
    """Run and wait."""
    crf.inference(updates, output="labels").__dlpack__()


def _upload(queue: Queue, array: npt.NDArray[Any]) -> DeviceArray:
    block = queue.upload(array)
    queue.synchronize()
    return DeviceArray(queue, block.address, array.shape, array.dtype, block)


def main(arguments: list[str] | None = None) -> None:
    """Measure all sizes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--emulate", action="store_true", help="run a tiny image on the CPU, to test this program")
    options = parser.parse_args(arguments)
    sizes = ((33, 41, 3),) if options.emulate else _SIZES
    repeats, copy_bytes = (1, 1 << 16) if options.emulate else (20, _COPY_BYTES)
    driver: Driver = EmulatedDriver() if options.emulate else open_driver()
    with mock.patch.object(engine, "open_driver", return_value=driver):
        rows = [measure(driver, draw_problem(*size), repeats, copy_bytes) for size in sizes]
    print("| size | vertices | image, ms | bilateral lattice, ms | update, ms | share of bandwidth |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        height, width, labels = row.size
        times = f"{row.image_ms:.2f} | {row.lattice_ms:.2f} | {row.update_ms:.3f}"
        print(f"| {height}x{width}x{labels} | {row.vertices[1]} | {times} | {row.bandwidth_share:.0%} |")
    if options.json is not None:
        write_file(options.json, json.dumps([asdict(row) for row in rows], indent=2).encode())


if __name__ == "__main__":
    main()
