"""The command `soak` of `tools.prove_pipeline`: mixed work in a loop, and what the process holds meanwhile."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

bundle_argument = click.argument("bundle", type=click.Path(path_type=Path, exists=True))
images_argument = click.argument("images", type=click.Path(path_type=Path, exists=True, file_okay=False))
work_option = click.option("--work", type=click.Path(path_type=Path), default=Path("build/prove"), show_default=True)


@click.command()
@bundle_argument
@images_argument
@work_option
@click.option("--minutes", type=float, default=10.0, show_default=True)
def soak(bundle: Path, images: Path, work: Path, minutes: float) -> None:
    """Repeat mixed work in this process, and record memory, open files and threads once a minute.

    A round is: `segment --again`, the dense CRF in three threads and in two forked workers, and three segmenters opened
    and closed. All results must equal those of the first round. MALLOC_ARENA_MAX=1 in the environment makes the memory
    comparable to 1 MB; otherwise the C library keeps freed pages for each thread, a hundred MB more or less.
    """
    from atrous.scripts.main import main

    work.mkdir(parents=True, exist_ok=True)
    photo = min(path for path in images.iterdir() if path.is_file())
    samples: list[dict[str, float]] = []
    expected: list[str] = []
    start_s = time.monotonic()
    images_done = rounds = 0
    while (elapsed_s := time.monotonic() - start_s) < minutes * 60:
        code, report = _run_quietly(main, ["segment", str(bundle), str(images), "-o", str(work), "--again", "--json"])
        assert code == 0, code
        found = [*_refine_in_threads(3), *_refine_in_forks(2), *_open_and_close(bundle, photo, 3)]
        expected = expected or found
        assert found == expected, f"round {rounds}: results differ from those of the first round"
        images_done += report["labeled"]
        rounds += 1
        if not samples or elapsed_s - samples[-1]["s"] >= 60:
            samples.append({"s": round(elapsed_s, 1), "rounds": rounds, **_look_at_process()})
            click.echo(json.dumps(samples[-1]))

    def halves(name: str) -> tuple[float, float]:
        """Return the maxima of the first and second half; a thread that is about to end affects both alike."""
        middle = (len(samples) + 1) // 2
        first, second = samples[:middle], samples[middle:] or samples
        return max(sample[name] for sample in first), max(sample[name] for sample in second)

    settled = samples[len(samples) // 5 :]
    result: dict[str, Any] = {
        "minutes": round((time.monotonic() - start_s) / 60, 2),
        "rounds": rounds,
        "images": images_done,
        **{name: _sum_up([(sample["s"] / 60, sample[name]) for sample in settled]) for name in ("rss_mb", "held_mb")},
        "files_most": halves("files"),
        "threads_most": halves("threads"),
    }
    click.echo(json.dumps(result))
    leaks = any(result[name][1] > result[name][0] for name in ("files_most", "threads_most"))
    sys.exit(1 if leaks else 0)


def _refine(seed: int) -> str:
    """The digest of a dense CRF's marginals for a random problem of 120 x 160 pixels and 5 labels."""
    import numpy as np

    from atrous.runtime.crf import dense_crf

    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    scores = random.standard_normal((5, 120, 160), dtype=np.float32)
    return hashlib.sha256(dense_crf(image, scores=scores, iterations=3).tobytes()).hexdigest()


def _refine_in_threads(count: int) -> list[str]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(_refine, range(count)))


def _refine_in_forks(count: int) -> list[str]:
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(count) as pool:
        found = pool.map(_refine, range(count))
        pool.close()
        pool.join()
    return found


def _open_and_close(bundle: Path, photo: Path, times: int) -> list[str]:
    """Open the bundle without and with its CRF in turn, label a photo and close it; the labels' digests."""
    from atrous import runtime

    found = []
    for number in range(times):
        with runtime.load(bundle, crf="auto" if number % 2 else False) as segmenter:
            found.append(hashlib.sha256(segmenter(runtime.read_image(photo)).tobytes()).hexdigest())
    return found


def _run_quietly(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> tuple[int, dict[str, Any]]:
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        code = main(arguments)
    return code, json.loads(text.getvalue())


def _look_at_process() -> dict[str, float]:
    """Memory now, and after the C library returns the freed pages that it keeps for each thread."""
    import psutil

    process = psutil.Process()
    before = process.memory_info().rss
    _give_back_pages()
    return {
        "rss_mb": round(before / 1e6, 1),
        "held_mb": round(process.memory_info().rss / 1e6, 1),
        "files": process.num_fds(),
        "threads": process.num_threads(),
    }


def _give_back_pages() -> None:
    import contextlib
    import ctypes
    import gc

    gc.collect()  # first: what it frees goes to the pages that the CRF keeps
    with contextlib.suppress(ImportError):
        from atrous.runtime import crf

        crf.release_memory()
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _sum_up(points: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Summarize values over minutes: first, last, extremes, and the slope of a linear fit."""
    from statistics import linear_regression

    minutes, values = zip(*points, strict=True)
    slope = linear_regression(minutes, values).slope if len(points) > 2 else 0.0
    summary = {"first": values[0], "last": values[-1], "least": min(values), "most": max(values)}
    return {**summary, "a_minute": round(float(slope), 3)}
