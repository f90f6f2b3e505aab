"""One MLPerf LoadGen test: the system under test, the settings, the run, what it left behind.

LoadGen calls from a thread of its own and must never wait, so its callback only puts queries into a queue. Workers take
them out, label the image and report completion; or a pipeline does, as long as LoadGen has not said that no more will
come. LoadGen counts latency from the moment a query was *scheduled*, in
every scenario: where one query stalls the system, those scheduled meanwhile have waited, and their latency says so. A
timer around each call (a closed loop) would have seen the stall once.
"""

from __future__ import annotations

import array
import hashlib
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dependencies import import_optional
from ...errors import BackendError
from .clocks import Clock
from .loadgen_logs import Summary, TracedSample, read_answers, read_summary, read_trace
from .results import LoadMode, Scenario

SEEDS = (6023615788873153749, 15036839855038426416, 9933818062894767841)  # sample index, QSL, schedule: MLPerf v5's
FULL_DURATION_S = 600.0  # MLPerf's own for every scenario

Labels = npt.NDArray[np.uint8]
_MODES = {
    "performance": "PerformanceOnly",
    "accuracy": "AccuracyOnly",
    "find-peak": "FindPeakPerformance",
}


@dataclass(frozen=True)
class LoadSettings:
    """What is asked of LoadGen.

    Attributes:
        scenario, mode: see LoadGen.
        min_duration_s, min_queries: the test lasts until both are reached; MLPerf's own are 600 s and 1 (Offline: 24576
            samples, SingleStream's and the others' early stopping decides).
        target_qps: Server: Poisson rate; Offline: expected rate, which decides how many samples the one query holds.
        latency_bound_ms: Server: what the target percentile must stay under.
        samples_per_query: MultiStream: images of a query.
        workers: threads that label images at once, where no pipeline does.
    """

    scenario: Scenario
    mode: LoadMode = "performance"
    min_duration_s: float = 2.0
    min_queries: int = 1
    target_qps: float | None = None
    latency_bound_ms: float | None = None
    samples_per_query: int = 8
    workers: int = 1


@dataclass(frozen=True)
class LoadOutcome:
    """What a test left.

    Attributes:
        summary: LoadGen's own.
        samples: every sample by LoadGen's trace, in the order of their numbers (find-peak: of all its runs).
        service_ms: of every sample, in the order they arrived, how long a worker took for it.
        arrived: which image each was about, in the order they arrived.
        labels: by image, in accuracy mode.
        duration_s: of the whole test.
    """

    summary: Summary
    samples: list[TracedSample]
    service_ms: list[float]
    arrived: list[int]
    labels: dict[int, Labels]
    duration_s: float


@dataclass(frozen=True)
class Query:
    """One image that LoadGen wants labelled.

    Attributes:
        number: in the order of arrival.
        id: LoadGen's own.
        index: of the image.
    """

    number: int
    id: int
    index: int


#: answer(query, labels, service_ms): the query is done; may be called from any thread
Answer = Callable[[Query, Labels, float], None]
#: serve(queries, answer): answer all of them, and return when there are no more; an error ends the test
Serve = Callable[[Iterator[Query], Answer], None]


@dataclass
class _Answers:
    """What was done; guarded by one lock."""

    arrived: list[int] = field(default_factory=list)
    open: dict[int, Query] = field(default_factory=dict)
    service_ms: dict[int, float] = field(default_factory=dict)
    labels: dict[int, Labels] = field(default_factory=dict)
    error: BaseException | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class _SystemUnderTest:
    """A queue between LoadGen and those who serve."""

    def __init__(self, loadgen: Any, serve: Serve, *, keep_labels: bool) -> None:
        self._loadgen = loadgen
        self._serve = serve
        self._keep_labels = keep_labels
        self._queue: queue.SimpleQueue[Query | None] = queue.SimpleQueue()  # None: no more for now
        self._is_over = False
        self.answers = _Answers()

    def issue(self, samples: Sequence[Any]) -> None:
        """LoadGen's callback: hand over, one entry a sample, so that workers share a large query."""
        answers = self.answers
        for sample in samples:
            query = Query(len(answers.arrived), sample.id, sample.index)
            with answers.lock:
                answers.arrived.append(query.index)
                answers.open[query.number] = query
            self._queue.put(query)

    def flush(self) -> None:
        """LoadGen's callback at the end of a series: whoever serves may finish what is under way."""
        self._queue.put(None)

    def work(self) -> None:
        """Serve series after series. After an error the rest is answered unlabelled, so that LoadGen ends."""
        while not self._is_over:
            try:
                self._serve(self._read_series(), self.answer)
            except BaseException as error:  # of the backend; LoadGen must not wait for ever
                with self.answers.lock:
                    self.answers.error = self.answers.error or error
                self._refuse_rest()

    def stop(self, workers: int) -> None:
        """Tell all who serve to end."""
        self._is_over = True
        for _ in range(workers):
            self._queue.put(None)

    def answer(self, query: Query, labels: Labels, service_ms: float) -> None:
        """Report a query as done."""
        answer = b""
        with self.answers.lock:
            self.answers.service_ms[query.number] = service_ms
            if self._keep_labels:
                self.answers.labels[query.index] = labels
        if self._keep_labels:
            answer = hash_labels(labels)
        self._complete(query, answer)

    def _read_series(self) -> Iterator[Query]:
        while (query := self._queue.get()) is not None:
            yield query

    def _refuse_rest(self) -> None:
        """Until LoadGen's series is over, answer without labels what came and what comes."""
        while True:
            with self.answers.lock:
                waiting = list(self.answers.open.values())
            for query in waiting:
                self._complete(query, b"")
            if self._queue.get() is None:
                return

    def _complete(self, query: Query, answer: bytes) -> None:
        with self.answers.lock:
            if self.answers.open.pop(query.number, None) is None:
                return  # another worker's error has answered it
        buffer = array.array("B", answer)  # stays alive until LoadGen has copied it
        address, length = buffer.buffer_info()
        response = self._loadgen.QuerySampleResponse(query.id, address if length else 0, length)
        self._loadgen.QuerySamplesComplete([response])


def call_one_by_one(label: Callable[[int], Labels], clock: Clock) -> Serve:
    """Serve by labelling image after image; several workers may do so at once."""

    def serve(queries: Iterator[Query], answer: Answer) -> None:
        for query in queries:
            start_ns = clock.now_ns()
            labels = label(query.index)
            answer(query, labels, (clock.now_ns() - start_ns) / 1e6)

    return serve


def run_loadgen(
    settings: LoadSettings, serve: Serve, images: int, *, clock: Clock, log_folder: Path | None = None
) -> LoadOutcome:
    """Run one test.

    Args:
        settings: what is asked.
        serve: labels images; called in each worker's thread, again for each series of queries.
        images: how many there are.
        clock: times the test.
        log_folder: where LoadGen's logs go; None for a folder that is removed afterwards.

    Raises:
        MissingDependencyError: if mlcommons-loadgen is not installed.
        BackendError: if labelling fails, LoadGen leaves no result, or its accuracy log holds other answers than given.
    """
    loadgen = import_optional("mlperf_loadgen")
    if log_folder is None:
        with tempfile.TemporaryDirectory(prefix="atrous-loadgen-") as folder:
            return run_loadgen(settings, serve, images, clock=clock, log_folder=Path(folder))
    system = _SystemUnderTest(loadgen, serve, keep_labels=settings.mode == "accuracy")
    workers = [
        threading.Thread(target=system.work, name=f"load worker {number}", daemon=True)
        for number in range(settings.workers)
    ]
    for worker in workers:
        worker.start()
    begin_ns = clock.now_ns()
    # LoadGen runs in a thread of its own: Ctrl-C raises in the main thread, and raised inside one of LoadGen's
    # callbacks it would unwind C++ that does not expect it. An interrupted test cannot be stopped: it is left.
    test = threading.Thread(
        target=_start_test, args=(loadgen, settings, system, images, log_folder), name="LoadGen", daemon=True
    )
    test.start()
    test.join()
    system.stop(len(workers))
    for worker in workers:
        worker.join()
    duration_s = (clock.now_ns() - begin_ns) / 1e9
    answers = system.answers
    if answers.error is not None:
        raise answers.error if isinstance(answers.error, Exception) else BackendError(repr(answers.error))
    if settings.mode == "accuracy":
        _check_answers(log_folder, answers.labels, images)
    return LoadOutcome(
        summary=read_summary(log_folder),
        samples=read_trace(log_folder),
        service_ms=[answers.service_ms[number] for number in range(len(answers.arrived))],
        arrived=answers.arrived,
        labels=answers.labels,
        duration_s=duration_s,
    )


def hash_labels(labels: Labels) -> bytes:
    """What is answered in accuracy mode: the sha256 of the label map, instead of megabytes of it in hexadecimal."""
    return hashlib.sha256(labels.tobytes()).digest()


def make_test_settings(loadgen: Any, settings: LoadSettings) -> Any:
    """LoadGen's `TestSettings`; what is not asked keeps LoadGen's own value."""
    test = loadgen.TestSettings()
    test.scenario = getattr(loadgen.TestScenario, settings.scenario)
    test.mode = getattr(loadgen.TestMode, _MODES[settings.mode])
    test.min_duration_ms = int(settings.min_duration_s * 1000)
    test.min_query_count = settings.min_queries
    test.sample_index_rng_seed, test.qsl_rng_seed, test.schedule_rng_seed = SEEDS
    test.multi_stream_samples_per_query = settings.samples_per_query
    if settings.target_qps is not None:
        test.server_target_qps = settings.target_qps
        test.offline_expected_qps = settings.target_qps
    if settings.latency_bound_ms is not None:
        test.server_target_latency_ns = int(settings.latency_bound_ms * 1e6)
    test.server_find_peak_qps_decimals_of_precision = 1
    return test


def _start_test(loadgen: Any, settings: LoadSettings, system: _SystemUnderTest, images: int, folder: Path) -> None:
    output = loadgen.LogOutputSettings()
    output.outdir = str(folder)
    output.copy_summary_to_stdout = False
    output.copy_detail_to_stdout = False
    logs = loadgen.LogSettings()
    logs.log_output = output
    logs.enable_trace = True
    sut = loadgen.ConstructSUT(system.issue, system.flush)
    library = loadgen.ConstructQSL(images, images, _keep_loaded, _keep_loaded)
    try:
        # The name of an audit file that does not exist: none of the working folder may change the test.
        loadgen.StartTestWithLogSettings(
            sut, library, make_test_settings(loadgen, settings), logs, str(folder / "none")
        )
    except Exception as error:  # LoadGen's own; the thread that waits for the test raises it
        system.answers.error = system.answers.error or error
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(sut)


def _keep_loaded(_: Sequence[int]) -> None:
    """All images are in memory from the beginning."""


def _check_answers(folder: Path, labels: dict[int, Labels], images: int) -> None:
    """LoadGen's own log of the answers must be about every image, and be what was answered."""
    logged = read_answers(folder)
    wrong = [index for index in range(images) if index not in labels or logged.get(index) != hash_labels(labels[index])]
    if wrong:
        raise BackendError(f"LoadGen's accuracy log does not hold the answers for {len(wrong)} of {images} images")
