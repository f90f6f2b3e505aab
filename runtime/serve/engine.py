"""The engine: a bounded queue of jobs before one pipeline for all models.

1. A job is admitted or refused at once: `queue` jobs at a time, and 503 with `Retry-After` for the rest.
2. A job's answer goes to its caller when it is ready, whatever the order; a job is answered exactly once.
3. A caller that goes away or runs out of time cancels its job: the CRF stops after its current update, and no further
   stage begins.
4. `stop` lets the admitted jobs finish.

Stages run in the pipeline's threads, callers in an event loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ...errors import AtrousError, RequestError
from ..pipeline import Pipeline, PipelineReport, Stage
from ..pipeline.segmentation import Choice, make_stages
from ..segmentation import Image, Segmentation
from ..segmenter import Segmenter

if TYPE_CHECKING:
    from .metrics import Metrics

_log = logging.getLogger("atrous.serve")
_REMEMBERED = 64  # ends of jobs, for the rate in Retry-After
_LONGEST_RETRY_S = 60


class Job:
    """The work of one request; subclasses say how. Everything but `cancel` runs in the pipeline's threads.

    Attributes:
        timings_ms: milliseconds by stage, complete when the job is done.
    """

    def __init__(self) -> None:
        from ..crf import CancelToken

        self.token = CancelToken()
        self.timings_ms: dict[str, float] = {}
        self.submitted_s = 0.0
        self.answer: Callable[[Any, BaseException | None], None] = lambda value, error: None
        self._refusal: RequestError | None = None

    def choose(self) -> Choice:
        """Read the request and choose how to label its image."""
        raise NotImplementedError

    def read_size(self) -> tuple[int, int] | None:
        """The (height, width) of the image, before it is decoded; None if it needs no estimate of memory."""
        return None

    def read(self) -> Image:
        """The image, H x W x 3 uint8 RGB."""
        raise NotImplementedError

    def finish(self, image: Image, result: Segmentation) -> Any:
        """The answer."""
        raise NotImplementedError

    def cancel(self, reason: RequestError) -> None:
        """Stop it soon; may be called by any thread."""
        self._refusal = reason
        self.token.cancel()

    def check(self) -> None:
        """Raise the reason of `cancel`, if it was called."""
        if self._refusal is not None:
            raise RequestError(str(self._refusal), status=self._refusal.status)


class Engine:
    """Runs jobs. `start` before the first, `stop` after the last; both return when it is done.

    Attributes:
        capacity: jobs at a time.
        is_broken: whether the pipeline has ended.
        has_failed: whether it ended by an error.
    """

    def __init__(
        self,
        segmenters: Sequence[Segmenter],
        *,
        cores: int,
        queue: int,
        timeout_s: float,
        metrics: Metrics,
        batch: int = 1,
        batch_delay_s: float = 0.0,
    ) -> None:
        """Set up a pipeline for these segmenters; other arguments as in `ServeSettings`."""
        stages = make_stages(
            segmenters,
            read=lambda job: job.read(),
            read_size=lambda job: job.read_size(),
            choose=lambda job: job.choose(),
            finish=lambda job, image, result: job.finish(image, result),
            cores=cores,
            batch=batch,
        )
        guarded = [
            self._guard(replace(stage, batch_delay_s=batch_delay_s), is_last=stage is stages[-1]) for stage in stages
        ]
        self.capacity, self.is_broken, self.has_failed = queue, False, False
        self._pipeline = Pipeline(guarded, cores=cores, max_alive=queue + 1)
        self._timeout_s, self._metrics = timeout_s, metrics
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._feed, name="engine")
        self._lock = threading.Lock()
        self._open: set[Job] = set()
        self._ends_s: deque[float] = deque(maxlen=_REMEMBERED)

    def start(self) -> None:
        """Start the pipeline."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the admitted jobs and end the threads."""
        self._queue.put(None)
        self._thread.join()

    def report(self) -> PipelineReport:
        """Measurements of the stages since the start."""
        return self._pipeline.report()

    @property
    def open_jobs(self) -> int:
        """The number of jobs that are admitted and not finished."""
        return len(self._open)

    async def run(self, job: Job) -> Any:
        """Run a job and return its answer; a cancelled call cancels the job.

        Raises:
            RequestError: 503 if the queue is full or the time is over; what the stages raise.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            if not future.done():
                future.set_result(value) if error is None else future.set_exception(error)

        def answer(value: Any, error: BaseException | None) -> None:
            try:
                loop.call_soon_threadsafe(settle, value, error)
            except RuntimeError:  # the loop was closed: no caller waits any more
                _log.debug("an answer came after the end")

        job.answer = answer
        self._admit(job)
        try:
            return await asyncio.wait_for(future, self._timeout_s)
        except asyncio.TimeoutError:
            late = RequestError("Request timeout expired", status=503)
            job.cancel(late)
            raise late from None
        except asyncio.CancelledError:
            job.cancel(RequestError("the client has gone", status=499))
            raise

    def _admit(self, job: Job) -> None:
        with self._lock:
            if self.is_broken:
                raise RequestError("the server has failed and ends", status=503)
            if len(self._open) >= self.capacity:
                message = f"the queue is full: {self.capacity} requests are in progress"
                raise RequestError(message, status=503, retry_after_s=self._estimate_wait_s())
            self._open.add(job)
            job.submitted_s = time.monotonic()
            self._queue.put(job)
        self._metrics.set_open(len(self._open))

    def _estimate_wait_s(self) -> int:
        """Seconds until the queue will be empty, at the rate of the last jobs."""
        if len(self._ends_s) < 2:
            return 1
        per_job_s = (self._ends_s[-1] - self._ends_s[0]) / (len(self._ends_s) - 1)
        return max(1, min(_LONGEST_RETRY_S, math.ceil(per_job_s * len(self._open))))

    # ---- in the pipeline's threads ----------------------------------------------------------------------------------

    def _feed(self) -> None:
        """Feed the pipeline until `stop`; answers are sent by the stages."""
        try:
            with self._pipeline as pipeline:
                for _ in pipeline.run(iter(self._queue.get, None)):
                    pass
        except BaseException:
            _log.exception("the pipeline has failed")
            self.has_failed = True
        finally:
            with self._lock:
                self.is_broken = True
                left = list(self._open)
            for job in left:
                self._finish(job, None, RequestError("the server has failed and ends", status=503))

    def _guard(self, stage: Stage, *, is_last: bool) -> Stage:
        """The stage, such that it skips cancelled jobs, and answers those that fail or are done."""

        def run(value: Any, *cores: int) -> Any:
            return self._call(stage.name, value, lambda: stage.function(value, *cores), is_last)

        def run_batch(values: list[Any]) -> list[Any]:
            self._metrics.count_batch(len(values))
            if len(values) == 1:
                return [self._call(stage.name, values[0], lambda: stage.function(values)[0], is_last)]
            start_s = time.monotonic()
            for value in values:
                value.item.check()
            results: list[Any] = stage.function(values)  # if it fails, the pipeline tries each value alone
            for value in values:
                value.item.timings_ms[stage.name] = (time.monotonic() - start_s) * 1000 / len(values)
            return results

        return replace(stage, function=run if stage.batch == 1 else run_batch)

    def _call(self, name: str, value: Any, function: Callable[[], Any], is_last: bool) -> Any:
        job: Job = value if isinstance(value, Job) else value.item
        start_s = time.monotonic()
        if isinstance(value, Job):
            job.timings_ms["queue"] = (start_s - job.submitted_s) * 1000
        try:
            job.check()
            result = function()
            job.check()  # a cancelled CRF returns early
        except Exception as error:
            self._finish(job, None, error)
            raise
        job.timings_ms[name] = (time.monotonic() - start_s) * 1000
        if not is_last:
            return result
        self._finish(job, result, None)
        return None

    def _finish(self, job: Job, value: Any, error: BaseException | None) -> None:
        """Answer a job, once."""
        with self._lock:
            if job not in self._open:
                return
            self._open.discard(job)
            self._ends_s.append(time.monotonic())
        self._metrics.set_open(len(self._open))
        if error is not None and not isinstance(error, AtrousError):
            _log.error("a request has failed", exc_info=error)
            message = f"internal error ({type(error).__name__}): the server's log has the details"
            error = RequestError(message, status=500)
        job.answer(value, error)
