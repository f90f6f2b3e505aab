"""Clients in threads: throughput in turns with `atrous segment`, SIGTERM under load, and the soak."""

from __future__ import annotations

import http.client
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .running import Running


def send_all(server: Running, bodies: Sequence[bytes], connections: int) -> tuple[float, list[bytes]]:
    """Send all images over kept connections; returns the seconds and the answers in order."""
    local, answers, opened = threading.local(), [b""] * len(bodies), []

    def send(index: int) -> None:
        if not hasattr(local, "connection"):
            local.connection = server.connect()
            opened.append(local.connection)
        local.connection.request("POST", "/segment", bodies[index])
        answer = local.connection.getresponse()
        answers[index] = answer.read()
        assert answer.status == 200, answers[index]

    start_s = time.perf_counter()
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(send, range(len(bodies))))
    spent_s = time.perf_counter() - start_s
    for connection in opened:
        connection.close()
    return spent_s, answers


def compare_throughput(
    server: Running, segmenter: Any, paths: Sequence[Path], folder: Path, rounds: int, connections: int, threads: int
) -> dict[str, Any]:
    """Images per second of `label_files` and of the server, in turns; the pictures must be equal."""
    from statistics import median

    from atrous import runtime

    bodies, times = [path.read_bytes() for path in paths], []
    for number in range(rounds + 1):  # the first warms up
        start_s = time.perf_counter()
        out = folder / str(number)
        runtime.batch.label_files(segmenter, [str(path) for path in paths], out, cores=threads)
        segment_s = time.perf_counter() - start_s
        serve_s, answers = send_all(server, bodies, connections)
        if number:
            times.append((segment_s, serve_s))
        different = [path for path, answer in zip(paths, answers, strict=True) if not is_equal(out, path, answer)]
        assert not different, f"other labels: {different}"
    segment_s, serve_s = (median(column) for column in zip(*times, strict=True))
    return {
        "images": len(paths),
        "rounds": [{"segment_s": round(one, 2), "serve_s": round(other, 2)} for one, other in times],
        "segment_per_s": round(len(paths) / segment_s, 2),
        "serve_per_s": round(len(paths) / serve_s, 2),
        "serve_over_segment": round(median(one / other for one, other in times), 3),
    }


def is_equal(out: Path, path: Path, answer: bytes) -> bool:
    """Whether an answer has the labels of a file of `label_files`."""
    import io

    import numpy as np
    from PIL import Image

    with Image.open(out / f"{path.stem}.png") as saved, Image.open(io.BytesIO(answer)) as sent:
        return bool(np.array_equal(np.array(saved), np.array(sent)))


def kill_once(server: Running, bodies: Sequence[bytes], connections: int, seed: int) -> Counter[str]:
    """SIGTERM at a random moment under load; counts what the clients saw.

    "lost" is a request that was sent on an open connection and got no answer, or a truncated one.
    """
    counts: Counter[str] = Counter()
    lock, is_over = threading.Lock(), threading.Event()

    def work(number: int) -> None:
        connection, choices = server.connect(), random.Random(seed * 1000 + number)
        while not is_over.is_set():
            if choices.random() < 0.3:  # some clients take a new connection for each request
                connection.close()
            try:
                if connection.sock is None:
                    connection.connect()
            except OSError:
                outcome, is_last = "refused", True
            else:
                outcome, is_last = _ask(connection, bodies[choices.randrange(len(bodies))])
            with lock:
                counts[outcome] += 1
            if is_last:
                break
        connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    time.sleep(1 + random.Random(seed).random() * 2)
    server.process.send_signal(signal.SIGTERM)
    code = server.process.wait(90)
    is_over.set()
    for thread in threads:
        thread.join()
    counts[f"exit code {code}"] += 1
    return counts


def _ask(connection: http.client.HTTPConnection, body: bytes) -> tuple[str, bool]:
    """The outcome of a request, and whether the server is gone."""
    try:
        connection.request("POST", "/segment", body)
    except OSError:
        return "not sent", True
    try:
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"lost ({type(error).__name__})", True
    return f"answered {answer.status}" if content else "lost (empty)", False


def soak(server: Running, bodies: Sequence[bytes], minutes: float, connections: int) -> dict[str, Any]:
    """Mixed requests: labels, overlays, JSON, bad bodies, cancelled ones; the server every ten seconds."""
    counts: Counter[str] = Counter()
    lock, end_s = threading.Lock(), time.monotonic() + 60 * minutes

    def work(number: int) -> None:
        choices = random.Random(number)
        while time.monotonic() < end_s:
            kind = choices.choice(["labels", "labels", "overlay", "json", "json", "bad", "leave"])
            body = bodies[choices.randrange(len(bodies))]
            connection = server.connect()
            try:
                path = "/segment?iterations=3" + (f"&output={kind}" if kind in ("overlay", "json") else "")
                connection.request("POST", path, body[:500] if kind == "bad" else body)
                if kind != "leave":
                    answer = connection.getresponse()
                    answer.read()
                    kind = f"{kind} {answer.status}"
            except OSError as error:
                kind = type(error).__name__
            finally:
                connection.close()
            with lock:
                counts[kind] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    series = []
    while any(thread.is_alive() for thread in threads):
        series.append(server.measure())
        time.sleep(min(10.0, 6 * minutes))
    for thread in threads:
        thread.join()
    half = series[len(series) // 2 :]
    return {
        "minutes": minutes,
        "requests": dict(counts),
        "rss_mb": [one["rss_mb"] for one in series],
        "rss_mb_second_half": [min(one["rss_mb"] for one in half), max(one["rss_mb"] for one in half)],
        "files": [min(one["files"] for one in series), max(one["files"] for one in series)],
        "threads": [min(one["threads"] for one in series), max(one["threads"] for one in series)],
    }
