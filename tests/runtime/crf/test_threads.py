"""Several Python threads at the CRF: on one object, on separate ones, and at the interpreter's exit."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest

from atrous.runtime.crf import CancelToken, CrfInputError, DenseCRF, available_threads, dense_crf_batch
from atrous.runtime.crf.checks import check_threads

from .conftest import make_problem
from .test_model import make_crf

# Eight threads call everything that changes the object or reads it; ends after a second.
SHARED_OBJECT = """
import threading, time
import numpy as np
from atrous.runtime.crf import CrfInputError, DenseCRF

random = np.random.default_rng(0)
image = random.integers(0, 256, (96, 96, 3), np.uint8)
probabilities = random.random((21, 96, 96), np.float32)
probabilities /= probabilities.sum(axis=0)
crf = DenseCRF((96, 96), 21, threads=2)

def add_terms():
    crf.clear_terms()
    crf.add_gaussian(3.0, 3.0)
    crf.add_bilateral(40.0, 5.0, image, 4.0)

calls = [add_terms, crf.clear_terms, lambda: crf.inference(2), lambda: crf.inference(1, keep=False),
         lambda: crf.prune_labels(below=0.04), lambda: crf.set_probabilities(probabilities), crf.unary_energies,
         lambda: crf.set_scores(probabilities), crf.step, crf.kl_divergence, lambda: crf.size_bytes]
end = time.monotonic() + 1
refused, foreign = [], []

def work(seed):
    own = np.random.default_rng(seed)
    while time.monotonic() < end:
        try:
            calls[own.integers(len(calls))]()
        except CrfInputError as error:
            refused.append(str(error))
        except BaseException as error:
            foreign.append(repr(error))

threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not foreign, foreign[0]
assert any("in use by another thread" in message for message in refused)
crf.set_probabilities(probabilities)
add_terms()
assert np.allclose(crf.inference(3).sum(axis=0), 1, atol=1e-5)
"""


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=120)


def test_one_object_in_many_threads_does_not_crash() -> None:
    ended = run_script(SHARED_OBJECT)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12: the process has threads
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_worker_process_takes_one_thread(method: str) -> None:
    assert check_threads(None) == available_threads()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        assert list(pool.map(check_threads, [None, 3])) == [1, 3]


def wait_until_busy(crf: DenseCRF) -> None:
    for _ in range(10_000):
        try:
            crf.size_bytes  # noqa: B018 (raises while another thread computes)
        except CrfInputError:
            return
        time.sleep(0.001)
    pytest.fail("the other thread never began")


@pytest.mark.parametrize(
    "call",
    [
        lambda crf: crf.inference(1),
        lambda crf: crf.step(),
        lambda crf: crf.set_unary(np.zeros((21, 60, 80), np.float32)),
        lambda crf: crf.set_marginals(np.zeros((21, 60, 80), np.float32)),
        lambda crf: crf.add_gaussian(3.0, 3.0),
        lambda crf: crf.set_compatibilities([1.0, 1.0]),
        lambda crf: crf.clear_terms(),
        lambda crf: crf.prune_labels(),
        lambda crf: crf.size_bytes,
    ],
)
def test_calls_while_another_thread_computes_are_refused(call: Any) -> None:
    crf, token = make_crf(make_problem(60, 80, 21)), CancelToken()
    other = make_crf(make_problem(19, 26, 5))
    expected = crf.inference(3)
    worker = threading.Thread(target=crf.inference, args=(10_000_000,), kwargs={"token": token})
    worker.start()
    try:
        wait_until_busy(crf)
        with pytest.raises(CrfInputError, match="in use by another thread"):
            call(crf)
        other.inference(2)  # another object is free
    finally:
        token.cancel()
        worker.join()
    np.testing.assert_array_equal(crf.inference(3), expected)


@pytest.mark.parametrize("stop", [lambda results: results.close(), lambda results: results.throw(KeyboardInterrupt)])
def test_a_batch_that_is_left_ends_its_threads(stop: Any) -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    probabilities = np.full((2, 20, 20), 0.5, np.float32)
    before = threading.active_count()
    results = dense_crf_batch(itertools.repeat(image), itertools.repeat(probabilities), threads=2)
    next(results)
    with contextlib.suppress(KeyboardInterrupt):
        stop(results)
    assert threading.active_count() == before


def test_a_bad_image_of_a_batch_raises_in_its_turn() -> None:
    image, probabilities = np.zeros((20, 20, 3), np.uint8), np.full((2, 20, 20), 0.5, np.float32)
    before = threading.active_count()
    results = dense_crf_batch([image, image[:9], image], [probabilities] * 3, threads=2)
    next(results)
    with pytest.raises(CrfInputError):
        next(results)
    assert threading.active_count() == before
    assert list(results) == []


# Daemon threads compute in the core while the interpreter ends; also in the child of a fork.
EXIT = """
import atexit, os, sys, threading, time
import numpy as np
random = np.random.default_rng(0)
image = random.integers(0, 256, (60, 80, 3), np.uint8)
probabilities = random.random((4, 60, 80), np.float32)
probabilities /= probabilities.sum(axis=0)
atexit.register(lambda: crf.dense_crf(image, probabilities, iterations=1))  # runs after the hook of the core
from atrous.runtime import crf

def loop():
    while True:
        crf.dense_crf(image, probabilities, iterations=1, threads=2)

for _ in range(4): threading.Thread(target=loop, daemon=True).start()
time.sleep(0.5)
child = os.fork() if {fork} else None
if child == 0: sys.exit(0)
if child: assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("fork", [False, True])
def test_exit_while_daemon_threads_compute(fork: bool) -> None:
    for _ in range(3):
        ended = run_script(EXIT.replace("{fork}", str(fork)))
        assert (ended.returncode, ended.stderr) == (0, "")
