"""The loop of every worker: open, compare, time and close one case after another until the time is up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from atrous.runtime.backends.protocol import Array

from .cases import Case
from .job import Job, compare

Feeds = Mapping[str, Array]
WARM_UP_RUNS = 5
LEAST_RUNS = 10


@dataclass
class Opened:
    """A case that is ready to run.

    Attributes:
        run: feeds -> scores, N x L x h x w float32, as the reference's.
        measure_ms: feeds, runs -> times of the stages of each run in ms: "compute", and "h2d", "d2h", "latency" if the
            library measures them; "latency" is from the start of the first copy to the end of the last one.
        count_images: feeds, seconds -> images per second with copies overlapping compute; None if unsupported.
        close: frees the case.
        details: additional fields of the row.
    """

    run: Callable[[Feeds], Array]
    measure_ms: Callable[[Feeds, int], Iterable[Mapping[str, float]]]
    count_images: Callable[[Feeds, float], float] | None
    close: Callable[[], None]
    details: dict[str, Any]


class Library(Protocol):
    """A library in one setting."""

    @property
    def name(self) -> str:
        """Name with the setting, such as "torch eager"."""

    def takes(self, case: Case) -> bool:
        """Whether the library runs the case."""

    def open(self, job: Job, case: Case) -> Opened:
        """Load the net, or raise with the reason."""


def run_cases(job: Job, worker: str, libraries: Iterable[Library], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run every case with every library that takes it; write the rows after each case."""
    rows: list[dict[str, Any]] = []
    for case, library in [(case, library) for case in job.cases for library in libraries if library.takes(case)]:
        row: dict[str, Any] = {"library": library.name, **asdict(case), "agrees": False}
        if job.is_over():
            row["skipped"] = "the time was up"
        else:
            try:
                row |= run_case(job, case, library)
            except Exception as error:  # a failing case must not stop the others
                lines = str(error).strip().splitlines()
                row["skipped"] = f"{type(error).__name__}: {lines[0] if lines else ''}"
        rows.append(row)
        say(describe_row(row))
        job.write_result(worker, {"rows": rows})
    return rows


def run_case(job: Job, case: Case, library: Library) -> dict[str, Any]:
    """Open, compare, time and close one case; return the figures of its row."""
    started_s = time.perf_counter()
    opened = library.open(job, case)
    figures: dict[str, Any] = {"open_s": time.perf_counter() - started_s, **opened.details}
    try:
        feeds = job.make_feeds(case)
        figures |= compare(case, opened.run(feeds), job.read_reference(case))
        for _ in range(WARM_UP_RUNS):
            opened.run(feeds)
        times = list(_measure(opened, feeds, job.seconds))
        for stage in times[0]:
            figures[f"{stage}_ms"] = statistics.median(entry[stage] for entry in times)
        figures["runs"] = len(times)
        if "latency" in times[0]:
            figures["latency_p99_ms"] = float(np.percentile([entry["latency"] for entry in times], 99))
        if "compute_ms" in figures and figures["compute_ms"] > 0:
            flops = job.nets[case.net].flops[case.size] * case.batch
            figures["tflops"] = flops / figures["compute_ms"] / 1e9
        if opened.count_images is not None:
            figures["images_per_s"] = opened.count_images(feeds, job.seconds)
    finally:
        opened.close()
    return figures


def _measure(opened: Opened, feeds: Feeds, seconds: float) -> Iterator[Mapping[str, float]]:
    ends_s = time.perf_counter() + seconds
    yield from opened.measure_ms(feeds, LEAST_RUNS)
    while time.perf_counter() < ends_s:
        yield from opened.measure_ms(feeds, 1)


def describe_row(row: Mapping[str, Any]) -> str:
    """Format a row as one line of text."""
    place = f"{row['library']}: {row['net']} {row['precision']} {row['batch']} x {row['height']}x{row['width']}"
    if "skipped" in row:
        return f"{place}: skipped: {row['skipped']}"
    speed = ", ".join(
        f"{name} {row[key]:.3g}{unit}"
        for name, key, unit in (
            ("compute", "compute_ms", " ms"),
            ("latency", "latency_ms", " ms"),
            ("", "images_per_s", " images/s"),
            ("", "tflops", " TFLOP/s"),
        )
        if row.get(key) is not None
    )
    error = "no finite scores" if row["error"] is None else f"error {row['error']:.1e}"
    return f"{place}: {speed}; {error}{'' if row['agrees'] else ' DISAGREES'}"
