"""Stop, close, errors and Ctrl-C against a running pipeline, at random moments."""

from __future__ import annotations

import gc
import inspect
import itertools
import linecache
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from atrous.runtime.pipeline import Pipeline, Stage

SEEDS = range(12)


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    # A join that Ctrl-C interrupts marks a live thread as stopped (Python 3.11); it still ends within moments.
    until_s = time.monotonic() + 10
    while set(threading.enumerate()) != before and time.monotonic() < until_s:
        time.sleep(0.01)
    assert set(threading.enumerate()) == before


class Calls:
    """Stage functions of random short duration that count their calls."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.lock = threading.Lock()
        self.begun = self.ended = 0

    def __call__(self, value: Any, cores: int = 1) -> Any:
        with self.lock:
            self.begun += 1
            pause_s = self.dice.choice((0.0, 0.0, 0.0005, 0.002))
        time.sleep(pause_s)
        with self.lock:
            self.ended += 1
        return value

    def make_stages(self) -> list[Stage]:
        dice = self.dice
        stages = []
        for name in "abcd"[: dice.randint(1, 4)]:
            cores = dice.randint(0, 2)
            most = dice.choice((None, 4)) if cores else None
            workers, batch, waits = dice.choice((None, 1, 3)), dice.choice((1, 1, 4)), dice.random() < 0.8
            stages.append(Stage(name, self, workers, cores, most, waits, batch))
        return stages


@pytest.mark.parametrize("seed", SEEDS)
def test_random_pipelines_return_every_item_in_order(seed: int) -> None:
    calls = Calls(seed)
    with Pipeline(calls.make_stages(), cores=3) as pipeline:
        results = list(pipeline.run(range(60)))
    assert [result.value for result in results] == list(range(60))
    assert [result.error for result in results] == [None] * 60
    assert calls.begun == calls.ended


@pytest.mark.parametrize("seed", SEEDS)
def test_stop_by_several_threads_at_a_random_moment(seed: int) -> None:
    calls = Calls(seed)
    pipeline = Pipeline(calls.make_stages(), cores=3)
    moment_s = calls.dice.random() * 0.03
    timers = [threading.Timer(moment_s, pipeline.stop) for _ in range(3)]
    for timer in timers:
        timer.start()
    values = [result.value for result in pipeline.run(itertools.count())]
    begun = calls.begun
    for timer in timers:
        timer.join()
    assert values == list(range(len(values)))
    assert (calls.begun, calls.ended) == (begun, begun)
    pipeline.stop()


@pytest.mark.parametrize("seed", SEEDS)
def test_leaving_the_loop_at_a_random_item(seed: int) -> None:
    calls = Calls(seed)
    last = calls.dice.randint(0, 20)
    with Pipeline(calls.make_stages(), cores=2) as pipeline:
        for result in pipeline.run(itertools.count()):
            if result.index == last:
                break
    assert calls.begun == calls.ended


@pytest.mark.parametrize("seed", SEEDS)
def test_fatal_errors_in_all_stages_at_once(seed: int) -> None:
    dice = random.Random(seed)
    begun: list[int] = []
    ended: list[int] = []

    def fail_late(value: int) -> int:
        begun.append(value)
        try:
            time.sleep(dice.choice((0.0, 0.001)))
            if value > 8 and dice.random() < 0.3:
                raise OSError(value)
            return value
        finally:
            ended.append(value)

    stages = [Stage(name, fail_late, max_workers=3) for name in "abc"]
    with Pipeline(stages, cores=3, fatal=(OSError,)) as pipeline, pytest.raises(OSError, match=r"\d+"):
        for _ in pipeline.run(itertools.count()):
            pass
    assert sorted(begun) == sorted(ended)


@pytest.mark.parametrize("seed", SEEDS)
def test_reports_during_the_run(seed: int) -> None:
    calls = Calls(seed)
    pipeline = Pipeline(calls.make_stages(), cores=3)
    is_over = threading.Event()
    items: list[int] = []

    def watch() -> None:
        while not is_over.is_set():
            report = pipeline.report()
            items.append(report.items)
            assert report.to_json()["items"] == report.items
            assert report.most_alive <= report.max_alive

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert len(list(pipeline.run(range(60)))) == 60
    is_over.set()
    watcher.join()
    assert items == sorted(items)
    assert pipeline.report().items == 60


def test_a_dropped_iterator_ends_the_threads() -> None:
    results = Pipeline([Stage("a", str)], cores=2).run(itertools.count())
    next(results)
    del results
    gc.collect()


CTRL_C = """
import itertools, os, random, signal, threading, time
from typing import Any
from atrous.runtime.pipeline import Pipeline, Stage

{calls}

for seed in range(12):
    calls = Calls(seed)
    timer = threading.Timer(0.01 + calls.dice.random() * 0.03, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        with Pipeline(calls.make_stages(), cores=3) as pipeline:
            for _ in pipeline.run(itertools.count()):
                pass
    except KeyboardInterrupt:
        print(seed, calls.begun - calls.ended)
    timer.join()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")
def test_ctrl_c_at_random_moments() -> None:
    """In a process of its own: an interrupt that arrives late would end the test runner."""
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C.format(calls=inspect.getsource(Calls))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("".join(f"{seed} 0\n" for seed in range(12)), "")


class InterruptAtLine:
    """Raises KeyboardInterrupt in this thread before the n-th line that it runs in `files`.

    Not on lines of `with`: the tracer stops there once more on the way out, where CPython never handles a signal.
    """

    def __init__(self, n: int, files: tuple[str, ...]) -> None:
        self.left, self.files = n, files

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.endswith(self.files):
            return None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
        if event == "line" and not line.startswith("with "):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


@pytest.mark.parametrize("batch", [1, 3])
def test_ctrl_c_at_every_line_of_the_caller(batch: int) -> None:
    """An interrupted start of a thread, or wait for one, once left `stop` waiting forever."""
    calls = Calls(0)
    files = ("threading.py", *(f"runtime/pipeline/{name}.py" for name in ("engine", "workers", "waiting", "cores")))

    def run(n: int) -> bool:
        tracer = InterruptAtLine(n, files)
        stages = [
            Stage("a", calls, 2),
            Stage("b", lambda values: list(map(calls, values)) if batch > 1 else calls(values), batch=batch),
        ]
        pipeline = Pipeline(stages, cores=2)
        sys.settrace(tracer)
        try:
            with pipeline:
                assert [result.value for result in pipeline.run(range(4))] == [0, 1, 2, 3]
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
            pipeline.stop()
        return tracer.left <= 0

    def run_all() -> None:
        ends.append(next(n for n in itertools.count(1) if not run(n)))

    ends: list[int] = []
    caller = threading.Thread(target=run_all, daemon=True)  # so that a hang is a failure
    caller.start()
    caller.join(60)
    assert not caller.is_alive()
    assert calls.begun == calls.ended
    assert ends[0] > 100


SCRIPT = """
import itertools, os, sys
import numpy as np
from atrous.runtime.crf import dense_crf
from atrous.runtime.pipeline import Pipeline, Stage

image = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
belief = np.full((8, 240, 320), 1 / 8, np.float32)

def refine(item):
    os.write(1, b"begun\\n")
    dense_crf(image, belief, iterations=8, threads=1)
    os.write(1, b"ended\\n")

pipeline = Pipeline([Stage("crf", refine)], cores=2)
if sys.argv[1] == "leave":
    results = pipeline.run(itertools.count())
    next(results)
    sys.modules["kept"] = results  # alive until the interpreter ends
else:
    with pipeline:
        for result in pipeline.run(itertools.count()):
            pass
"""


def run_script(how: str, act: Callable[[subprocess.Popen[bytes]], None]) -> tuple[int, int, str]:
    """Run the script; returns its exit code, its calls that began and did not end, and stderr."""
    pytest.importorskip("atrous.runtime.crf._lattice", reason="the CRF extension is not compiled")
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, how],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # so that what follows the first line is left to communicate()
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    assert process.stdout is not None
    assert process.stdout.read(6) == b"begun\n"
    act(process)
    out, err = process.communicate(timeout=60)
    return process.returncode, 1 + out.count(b"begun") - out.count(b"ended"), err.decode()


def test_a_pipeline_left_running_is_joined_at_exit() -> None:
    code, open_calls, err = run_script("leave", lambda process: None)
    assert (code, open_calls, err) == (0, 0, "")


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")
@pytest.mark.parametrize("times", [1, 2, 3, 5])
def test_ctrl_c_again_and_again_never_aborts(times: int) -> None:
    """Killing a thread in native code at exit would end the process by SIGABRT."""

    def interrupt(process: subprocess.Popen[bytes]) -> None:
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)

    code, open_calls, err = run_script("loop", interrupt)
    assert code in (-signal.SIGINT, 130, 1)
    assert "terminate called" not in err
    if times <= 2:
        assert open_calls == 0
