from __future__ import annotations

import asyncio
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.errors import BackendError, RequestError
from atrous.runtime.pipeline.segmentation import Choice
from atrous.runtime.serve.engine import Job

from ..bundles import make_image
from .local import Local, make_local


class ArrayJob(Job):
    """Labels an array."""

    def __init__(self, local: Local, image: np.ndarray, fault: BaseException | None = None) -> None:
        super().__init__()
        self._segmenter, self._image, self._fault = local.server.models.first.segmenter, image, fault

    def choose(self) -> Choice:
        return Choice(self._segmenter, token=self.token)

    def read(self) -> Any:
        if self._fault is not None:
            raise self._fault
        return self._image

    def finish(self, image: np.ndarray, result: Any) -> Any:
        return result.labels


def test_each_answer_belongs_to_its_job(tmp_path: Path) -> None:
    images = [make_image(20 + seed % 5, 24, seed) for seed in range(40)]
    with make_local(tmp_path, queue=50, batch=4, batch_delay_ms=5) as local:
        segmenter = local.server.models.first.segmenter
        expected = [segmenter(image) for image in images]

        async def run() -> list[Any]:
            return await asyncio.gather(*(local.server.engine.run(ArrayJob(local, image)) for image in images))

        for found, labels in zip(asyncio.run(run()), expected, strict=True):
            np.testing.assert_array_equal(found, labels)
        assert local.server.engine.open_jobs == 0


def test_a_full_queue_refuses_with_a_time_to_wait(tmp_path: Path) -> None:
    with make_local(tmp_path, queue=3, delay_ms=50) as local:

        async def run() -> list[Any]:
            jobs = [local.server.engine.run(ArrayJob(local, make_image(20, 20))) for _ in range(8)]
            return await asyncio.gather(*jobs, return_exceptions=True)

        found = asyncio.run(run())
        refused = [error for error in found if isinstance(error, RequestError)]
        assert len(refused) == 5
        assert all(error.status == 503 and error.retry_after_s >= 1 for error in refused)
        assert local.server.engine.open_jobs == 0


def test_a_job_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    with make_local(tmp_path, timeout_s=0.05, delay_ms=400) as local:
        with pytest.raises(RequestError, match="Request timeout expired") as caught:
            asyncio.run(local.server.engine.run(ArrayJob(local, make_image(20, 20))))
        assert caught.value.status == 503


def test_errors_of_a_job_are_its_own(tmp_path: Path) -> None:
    faults: list[BaseException | None] = [None, RequestError("no"), None, ValueError("secret"), MemoryError()]
    with make_local(tmp_path, batch=4, batch_delay_ms=5) as local:

        async def run() -> list[Any]:
            jobs = [local.server.engine.run(ArrayJob(local, make_image(20, 20), fault)) for fault in faults]
            return await asyncio.gather(*jobs, return_exceptions=True)

        good, refused, also_good, broken, short = asyncio.run(run())
        assert good.shape == also_good.shape == (20, 20)
        assert str(refused) == "no"
        assert broken.status == short.status == 500
        assert "secret" not in str(broken)


def test_a_failing_batch_is_tried_image_by_image(tmp_path: Path) -> None:
    with make_local(tmp_path, batch=4, batch_delay_ms=50, fail_on=1) as local:

        async def run() -> list[Any]:
            jobs = [local.server.engine.run(ArrayJob(local, make_image(20, 20))) for _ in range(4)]
            return await asyncio.gather(*jobs, return_exceptions=True)

        found = asyncio.run(run())
        assert sum(isinstance(one, BackendError) for one in found) <= 1
        assert sum(isinstance(one, np.ndarray) for one in found) >= 3


def test_stop_finishes_what_was_admitted(tmp_path: Path) -> None:
    done: list[Any] = []
    with make_local(tmp_path, queue=20, delay_ms=20) as local:

        async def run() -> None:
            jobs = [local.server.engine.run(ArrayJob(local, make_image(20, 20))) for _ in range(10)]
            gathered = asyncio.gather(*jobs)
            await asyncio.sleep(0.03)
            await asyncio.to_thread(local.server.engine.stop)
            done.extend(await gathered)
            with pytest.raises(RequestError, match="ends"):
                await local.server.engine.run(ArrayJob(local, make_image(20, 20)))

        asyncio.run(run())
    assert len(done) == 10


@pytest.mark.parametrize("seed", range(3))
def test_cancelling_at_random_moments(tmp_path: Path, seed: int) -> None:
    """Each call ends once, with labels or as cancelled; afterwards the engine is empty and works."""
    choices, before = random.Random(seed), threading.active_count()
    with make_local(tmp_path, queue=8, delay_ms=2, batch=3, timeout_s=5) as local:

        async def call() -> str:
            task = asyncio.ensure_future(local.server.engine.run(ArrayJob(local, make_image(33, 40))))
            await asyncio.sleep(choices.random() * 0.05)
            if choices.random() < 0.6:
                task.cancel()
            try:
                return "labels" if (await task).shape == (33, 40) else "wrong"
            except asyncio.CancelledError:
                return "cancelled"
            except RequestError as error:
                return str(error.status)

        async def run() -> list[str]:
            return await asyncio.gather(*(call() for _ in range(60)))

        found = asyncio.run(run())
        assert set(found) <= {"labels", "cancelled", "503"}
        end_s = time.monotonic() + 5
        while local.server.engine.open_jobs and time.monotonic() < end_s:
            time.sleep(0.01)
        assert local.server.engine.open_jobs == 0
        assert asyncio.run(local.server.engine.run(ArrayJob(local, make_image(20, 20)))).shape == (20, 20)
    assert threading.active_count() == before
