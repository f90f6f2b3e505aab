"""The memory of scores on the device: errors, threads, and segmenters that are closed."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.errors import AtrousError, BackendError, BundleError, CrfInputError
from atrous.runtime.backends.protocol import Array
from atrous.runtime.backends.tensorrt.runner import ExecutionLane
from atrous.runtime.crf import CancelToken
from atrous.runtime.crf.gpu import engine as crf_engine
from atrous.runtime.pipeline import Pipeline
from atrous.runtime.pipeline.segmentation import Choice, make_stages

from ..backends.tensorrt.machines import SharedDriver
from ..bundles import make_image
from .engines import SIZES, Emulation, compute, compute_reference, keep_scores, open_segmenter, require_nothing_left


def test_outputs_that_break_the_promise(folder: Path, late: SharedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_segmenter(folder, late) as segmenter:
        monkeypatch.setattr(segmenter.backend, "run_on_device", lambda feeds, allocate: {"lowres": allocate(*broken)})
        for broken in (((1, 3, 4, 5), "float32"), ((2, 4, 4, 5), "float32"), ((1, 4, 4, 5), "float16")):
            with pytest.raises(BundleError, match=f"gives {broken[1]} of shape"):
                segmenter(make_image(25, 33))


def test_memory_is_freed_when_the_crf_raises(folder: Path, late: SharedDriver, emulation: Emulation) -> None:
    faults = [np.nan, np.inf, None]

    def fail(feeds: Mapping[str, Array]) -> dict[str, Array]:
        found, fault = compute(feeds), faults.pop(0)
        if fault is not None:
            found["lowres"][0, 0, 0, 0] = fault
        return found

    image = make_image(*SIZES[0])
    with open_segmenter(folder, late, function=fail) as segmenter:
        for _ in range(2):
            with pytest.raises(CrfInputError, match="scores hold NaN or infinite values: look for an overflow"):
                segmenter(image)
            require_nothing_left(emulation)
        np.testing.assert_array_equal(segmenter(image), compute_reference(folder, [image])[0].labels)


def test_arrays_outlive_their_segmenter(folder: Path, late: SharedDriver, emulation: Emulation) -> None:
    image = make_image(*SIZES[0])
    with open_segmenter(folder, late) as segmenter:
        (scores,) = keep_scores(segmenter, [image])
    assert late.list_leaks() == []
    np.testing.assert_array_equal(np.from_dlpack(scores), compute({"image": image[None]})["lowres"][0])
    expected = compute_reference(folder, [image])[0].labels
    found = ThreadPoolExecutor(1).submit(segmenter.finish, image, scores).result()  # and in another thread
    np.testing.assert_array_equal(found.labels, expected)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(scores.to_host).result()
    exported = np.from_dlpack(scores)
    del scores
    np.testing.assert_array_equal(exported, compute({"image": image[None]})["lowres"][0])


def test_results_of_another_thread(folder: Path, late: SharedDriver, emulation: Emulation) -> None:
    """A run is submitted in one thread; its result is collected and dropped in others, by garbage collection too."""
    image = make_image(*SIZES[0])
    segmenter = open_segmenter(folder, late)
    backend: Any = segmenter.backend
    with backend.open_stream() as lane:
        ticket = lane.submit(segmenter.prepare(image), crf_engine.allocate_array)
        with ThreadPoolExecutor(1) as pool:
            kept = [pool.submit(ticket.result).result()["lowres"]]
        np.testing.assert_array_equal(kept[0].to_host(), compute({"image": image[None]})["lowres"])
        assert emulation.allocated_bytes == kept[0].to_host().nbytes
        del ticket
        kept.append(kept)  # a cycle
        del kept
        collecting = threading.Thread(target=gc.collect)
        collecting.start()
        collecting.join()
        assert emulation.allocated_bytes == 0
        lane.submit(segmenter.prepare(image), crf_engine.allocate_array)  # never collected
    assert emulation.allocated_bytes == 0
    segmenter.close()


@pytest.mark.parametrize("cuda_graphs", [False, True])
@pytest.mark.parametrize(
    ("call", "at"),
    [
        ("copy_on_device", 1),
        ("wait_event", 2),
        ("record_event", 5),
        ("record_event", 6),  # the copy is queued
        ("synchronize_event", 1),
        ("measure_ms", 4),
    ],
)
def test_failures_of_cuda(
    folder: Path,
    driver: SharedDriver,
    emulation: Emulation,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    at: int,
    cuda_graphs: bool,
) -> None:
    """The memory is freed, after the copy to it, and the next image is right."""
    image = make_image(17, 17)
    expected = compute_reference(folder, [image])[0].labels
    original, numbers = getattr(driver, call), itertools.count(1)

    def fail(*arguments: Any) -> Any:
        if next(numbers) == at:
            raise BackendError(f"CUDA's {call} failed")
        return original(*arguments)

    with open_segmenter(folder, driver, cuda_graphs=cuda_graphs) as segmenter:
        segmenter(image)
        monkeypatch.setattr(driver, call, fail)
        with pytest.raises(BackendError, match=call):
            segmenter(image)
        require_nothing_left(emulation)
        for _ in range(2):
            np.testing.assert_array_equal(segmenter(image), expected)
    assert driver.list_leaks() == []


@pytest.mark.parametrize("failing", [{"synchronize_event": 1}, {"record_event": 6, "synchronize": 1}])
def test_a_copy_that_runs_when_its_lane_is_closed(
    folder: Path, late: SharedDriver, emulation: Emulation, monkeypatch: pytest.MonkeyPatch, failing: dict[str, int]
) -> None:
    """Closing is the first to wait for the copy, after a run without its result or a cleanup that failed."""
    image = make_image(*SIZES[0])
    segmenter = open_segmenter(folder, late)
    segmenter(image)
    backend: Any = segmenter.backend

    def use() -> None:
        with backend.open_stream() as lane:
            lane._driver = Failing()
            lane.submit(segmenter.prepare(image), crf_engine.allocate_array)
            raise BackendError("the consumer stopped")  # and the error of the run is dropped, with its frames

    class Failing:
        """The driver until the lane is closed; some calls fail from a number on."""

        counts = dict.fromkeys(failing, 0)

        def __getattr__(self, name: str) -> Any:
            if name in failing and not is_closing:
                self.counts[name] += 1
                if self.counts[name] >= failing[name]:
                    return fail
            return getattr(late, name)

    def fail(*arguments: Any) -> None:
        raise BackendError("CUDA failed")

    def close(lane: ExecutionLane) -> None:
        is_closing.append(True)
        gc.collect()  # the frames of the first error
        close_lane(lane)

    is_closing: list[bool] = []
    close_lane = ExecutionLane.close
    monkeypatch.setattr(ExecutionLane, "close", close)
    with pytest.raises(BackendError, match=r"CUDA failed|the consumer stopped"):
        use()
    assert is_closing
    require_nothing_left(emulation)
    segmenter.close()
    assert late.list_leaks() == []


def test_no_memory_for_the_scores(
    folder: Path, late: SharedDriver, emulation: Emulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image(*SIZES[0])
    with open_segmenter(folder, late) as segmenter:
        with monkeypatch.context() as full:

            def fail(size_bytes: int, stream: int) -> int:
                raise BackendError("CUDA's cudaMallocAsync failed: the device's memory is full")

            full.setattr(emulation, "allocate_queued", fail)
            with pytest.raises(BackendError, match="memory is full"):
                segmenter(image)
        np.testing.assert_array_equal(segmenter(image), compute_reference(folder, [image])[0].labels)


@pytest.mark.parametrize("delay_ms", range(0, 60, 10))
def test_close_while_threads_label(folder: Path, late: SharedDriver, delay_ms: int) -> None:
    """Every result is right, or the backend was closed."""
    images = [make_image(*size) for size in SIZES]
    expected = compute_reference(folder, images)
    segmenter = open_segmenter(folder, late, contexts=1)

    def work(first: int) -> tuple[int, str]:
        turn = first
        while True:
            try:
                labels = segmenter(images[turn % 3])
            except AtrousError as error:
                return turn - first, str(error)
            np.testing.assert_array_equal(labels, expected[turn % 3].labels)
            turn += 1

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(work, index) for index in range(4)]
        time.sleep(delay_ms / 1000)
        segmenter.close()
        ends = [future.result(timeout=60) for future in futures]
    assert [text for _, text in ends] == ["this backend was closed"] * 4
    assert late.list_leaks() == []


@pytest.mark.parametrize("delay_ms", range(0, 60, 12))
def test_cancel_while_the_pipeline_runs(folder: Path, late: SharedDriver, delay_ms: int) -> None:
    """Cancelled images end early; a pipeline that is left frees all that waits in it."""
    image, token = make_image(*SIZES[0]), CancelToken()
    expected = compute_reference(folder, [image])[0].labels
    with open_segmenter(folder, late, contexts=1) as segmenter:
        stages = make_stages(
            segmenter,
            read=lambda index: image,
            finish=lambda index, image, result: result.labels,
            choose=lambda index: Choice(segmenter, token=token if index % 2 else CancelToken()),
            cores=4,
            batch=2,
        )
        cancelling = threading.Timer(delay_ms / 1000, token.cancel)
        cancelling.start()
        with Pipeline(stages, cores=4) as pipeline:
            for outcome in pipeline.run(range(30)):
                if outcome.index % 2 == 0:
                    np.testing.assert_array_equal(outcome.value, expected)
                if outcome.index == 20:
                    break
        cancelling.join()
        del outcome
    assert late.list_leaks() == []
