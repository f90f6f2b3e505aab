"""One MLPerf LoadGen test: settings, system under test, and the logs LoadGen writes.

LoadGen calls from its own thread and must never block, so its callback only puts queries into a queue. Workers or a
pipeline take them out, label the image and report completion. LoadGen counts latency from the moment a query was
*scheduled*, in every scenario: a stall delays all queries scheduled meanwhile, and their latency includes the wait. A
timer around each call (closed loop) would see the stall once.

LoadGen's trace is parsed line by line with a pattern because it is not valid JSON (quotes inside quotes). Its `ts` is
the scheduled moment in microseconds since the test began; `issue_start_ns` and `complete_ns` count from that moment.
"""

from __future__ import annotations

import queue
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ...dependencies import import_optional
from ...errors import BackendError
from .plan import Scenario
from .timing import Clock

SEEDS = (6023615788873153749, 15036839855038426416, 9933818062894767841)  # sample index, QSL, schedule: MLPerf v5
FULL_DURATION_S = 600.0  # MLPerf's minimum for every scenario
MAX_SUMMARY_BYTES = 1 << 20

_SAMPLE = re.compile(
    r'"name":"Sample".*?"ph":"b".*?"ts":\s*(-?[\d.]+).*?"sample_seq":(\d+),"query_seq":(\d+),"sample_idx":(\d+),'
    r'"issue_start_ns":(-?\d+),"complete_ns":(-?\d+)'
)


@dataclass(frozen=True)
class LoadSettings:
    """Settings of one test, which lasts until its minimum duration and number of queries are reached."""

    scenario: Scenario
    min_duration_s: float = 2.0
    min_queries: int = 1
    target_qps: float | None = None  # Server: Poisson rate; Offline: expected rate, which sets its number of samples
    latency_bound_ms: float | None = None  # Server: bound of the target percentile
    samples_per_query: int = 8  # MultiStream
    workers: int = 1  # threads that label images at once, without a pipeline


class Query(NamedTuple):
    """One image that LoadGen wants labeled."""

    number: int  # in the order of arrival
    id: int  # LoadGen's
    image: int  # its index


class TracedSample(NamedTuple):
    """One sample of a query; delays count from its scheduled moment."""

    at_s: float  # scheduled moment, in seconds since the test began
    sequence: int
    query: int
    image: int  # its index
    issue_delay_ms: float  # until it was handed over
    latency_ms: float  # until it was complete


class Summary(NamedTuple):
    """LoadGen's summary: every "key : value", the verdict (None if missing), and the reasons of INVALID."""

    fields: dict[str, str]
    valid: bool | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class LoadOutcome:
    """Results of a test; lists by arrival are in the order in which LoadGen issued the samples."""

    summary: Summary
    samples: list[TracedSample]  # by number
    service_ms: list[float]  # by arrival, time at work
    arrived: list[int]  # by arrival, the image's index
    duration_s: float


#: answer(query, service_ms): report a query as done; may be called from any thread
Answer = Callable[[Query, float], None]
#: serve(queries, answer): answer all queries, and return when there are no more; an error ends the test
Serve = Callable[[Iterator[Query], Answer], None]


class _SystemUnderTest:
    """A queue between LoadGen and the workers; its fields are guarded by one lock."""

    def __init__(self, loadgen: Any, serve: Serve) -> None:
        self._loadgen = loadgen
        self._serve = serve
        self._queue: queue.SimpleQueue[Query | None] = queue.SimpleQueue()  # None: end of a series
        self._lock = threading.Lock()
        self._open: dict[int, Query] = {}
        self._is_over = False
        self.arrived: list[int] = []
        self.service_ms: dict[int, float] = {}
        self.error: BaseException | None = None

    def issue(self, samples: Sequence[Any]) -> None:
        """LoadGen's callback: enqueue each sample by itself, so that workers share a large query."""
        for sample in samples:
            query = Query(len(self.arrived), sample.id, sample.index)
            with self._lock:
                self.arrived.append(query.image)
                self._open[query.number] = query
            self._queue.put(query)

    def flush(self) -> None:
        """LoadGen's callback at the end of a series: let the pipeline drain."""
        self._queue.put(None)

    def work(self) -> None:
        """Serve series after series. After an error, answer the rest without labels, so that LoadGen ends."""
        while not self._is_over:
            try:
                self._serve(iter(self._queue.get, None), self.answer)
            except BaseException as error:  # raised by the backend; LoadGen must not wait forever
                self.error = self.error or error
                self._refuse_rest()

    def stop(self, workers: int) -> None:
        """End all workers."""
        self._is_over = True
        for _ in range(workers):
            self._queue.put(None)

    def answer(self, query: Query, service_ms: float) -> None:
        """Report a query as done."""
        with self._lock:
            self.service_ms[query.number] = service_ms
        self._complete(query)

    def _refuse_rest(self) -> None:
        while True:
            with self._lock:
                waiting = list(self._open.values())
            for query in waiting:
                self._complete(query)
            if self._queue.get() is None:
                return

    def _complete(self, query: Query) -> None:
        with self._lock:
            if self._open.pop(query.number, None) is None:
                return  # answered after another worker's error
        self._loadgen.QuerySamplesComplete([self._loadgen.QuerySampleResponse(query.id, 0, 0)])


def call_one_by_one(label: Callable[[int], object], clock: Clock) -> Serve:
    """Serve by labeling one image after the other; several workers may do so at once."""

    def serve(queries: Iterator[Query], answer: Answer) -> None:
        for query in queries:
            start_ns = clock.now_ns()
            label(query.image)
            answer(query, (clock.now_ns() - start_ns) / 1e6)

    return serve


def run_loadgen(settings: LoadSettings, serve: Serve, images: int, *, clock: Clock) -> LoadOutcome:
    """Run one test on this number of images; `serve` is called in each worker's thread, once per series of queries.

    Raises:
        MissingDependencyError: if mlcommons-loadgen is not installed.
        BackendError: if labeling fails, or LoadGen leaves no result.
    """
    loadgen = import_optional("mlperf_loadgen")
    system = _SystemUnderTest(loadgen, serve)
    workers = [threading.Thread(target=system.work, name="load worker", daemon=True) for _ in range(settings.workers)]
    for worker in workers:
        worker.start()
    begin_s = clock.now_s()
    with tempfile.TemporaryDirectory(prefix="atrous-loadgen-") as name:
        folder = Path(name)
        # LoadGen runs in a thread of its own: Ctrl-C raises in the main thread, and raised inside one of LoadGen's
        # callbacks it would unwind C++ frames. An interrupted test cannot be stopped; it is abandoned.
        test = threading.Thread(
            target=_run_test, args=(loadgen, settings, system, images, folder), name="LoadGen", daemon=True
        )
        test.start()
        test.join()
        system.stop(len(workers))
        for worker in workers:
            worker.join()
        if system.error is not None:
            raise system.error if isinstance(system.error, Exception) else BackendError(repr(system.error))
        return LoadOutcome(
            summary=read_summary(folder),
            samples=read_trace(folder),
            service_ms=[system.service_ms[number] for number in range(len(system.arrived))],
            arrived=system.arrived,
            duration_s=clock.now_s() - begin_s,
        )


def parse_summary(text: str) -> Summary:
    """Parse mlperf_log_summary.txt."""
    lines = text.splitlines()
    parts = [line.partition(":") for line in lines if not line.lstrip().startswith("*")]
    fields = dict(
        reversed([(key.strip(), value.strip()) for key, _, value in parts if value.strip()])
    )  # the first wins
    verdict = fields.get("Result is")
    reasons = [f"{key}: no" for key, value in fields.items() if "satisfied" in key and value.upper() == "NO"]
    notes: list[str] = []  # lines that begin with a star, and lines that continue them with a leading space
    for line in lines if verdict == "INVALID" else ():
        if line.lstrip().startswith("* ") or (notes and notes[-1] and line.startswith(" ") and ":" not in line):
            notes.append(line.strip().removeprefix("* "))
        elif notes:
            notes.append("")
    if notes:
        reasons.append(" ".join(filter(None, notes)))
    return Summary(fields, None if verdict is None else verdict == "VALID", tuple(reasons))


def read_summary(folder: Path) -> Summary:
    """Read the summary in a log folder."""
    with (folder / "mlperf_log_summary.txt").open("rb") as file:
        return parse_summary(file.read(MAX_SUMMARY_BYTES).decode("utf-8", "replace"))


def read_trace(folder: Path) -> list[TracedSample]:
    """All samples of the trace in a log folder, by number."""
    samples = []
    with (folder / "mlperf_log_trace.json").open(encoding="utf-8", errors="replace") as file:
        for found in filter(None, map(_SAMPLE.search, file)):
            at_us, sequence, query, index, issue_ns, complete_ns = map(float, found.groups())
            numbers = int(sequence), int(query), int(index)
            samples.append(TracedSample(at_us / 1e6, *numbers, issue_ns / 1e6, complete_ns / 1e6))
    return sorted(samples, key=lambda sample: sample.sequence)


def join_queries(samples: Sequence[TracedSample]) -> list[TracedSample]:
    """One entry per query: the first sample's number and image, complete when the last sample is."""
    queries: dict[int, TracedSample] = {}
    for sample in samples:
        first = queries.get(sample.query, sample)
        last = max(first, sample, key=lambda one: one.latency_ms)
        queries[sample.query] = last._replace(sequence=first.sequence, image=first.image)
    return [queries[number] for number in sorted(queries)]


def _run_test(loadgen: Any, settings: LoadSettings, system: _SystemUnderTest, images: int, folder: Path) -> None:
    test = loadgen.TestSettings()  # what is not set keeps LoadGen's default
    test.scenario = getattr(loadgen.TestScenario, settings.scenario)
    test.mode = loadgen.TestMode.PerformanceOnly
    test.min_duration_ms = int(settings.min_duration_s * 1000)
    test.min_query_count = settings.min_queries
    test.sample_index_rng_seed, test.qsl_rng_seed, test.schedule_rng_seed = SEEDS
    test.multi_stream_samples_per_query = settings.samples_per_query
    if settings.target_qps is not None:
        test.server_target_qps = test.offline_expected_qps = settings.target_qps
    if settings.latency_bound_ms is not None:
        test.server_target_latency_ns = int(settings.latency_bound_ms * 1e6)
    logs = loadgen.LogSettings()
    logs.log_output = loadgen.LogOutputSettings()
    logs.log_output.outdir = str(folder)
    logs.log_output.copy_summary_to_stdout = logs.log_output.copy_detail_to_stdout = False
    logs.enable_trace = True
    sut = loadgen.ConstructSUT(system.issue, system.flush)
    library = loadgen.ConstructQSL(images, images, _keep_loaded, _keep_loaded)
    try:
        # The name of an audit file that does not exist: no file of the working folder may change the test.
        loadgen.StartTestWithLogSettings(sut, library, test, logs, str(folder / "none"))
    except Exception as error:  # LoadGen's; raised by the thread that waits for the test
        system.error = system.error or error
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(sut)


def _keep_loaded(_: Sequence[int]) -> None:
    """All images stay in memory."""
