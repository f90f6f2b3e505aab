"""Proof that nothing is lost or doubled on a Ray cluster; the last line is one JSON object.

    build/ray/bin/python -m tools.prove_cluster BUNDLE SCENES

A folder of images, some of them broken, is labeled by plain `segment`; by `segment --ray` undisturbed, for its
overhead; and by `segment --ray` with an actor killed (SIGKILL) after a third of the images and the driver after two
thirds, then started again. The labels must be equal in every byte, and `merge` must find neither gaps nor doubles. The
cluster is one node of this machine with an object store of 200 MB.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import psutil

_STORE_BYTES = 200_000_000
_BROKEN = {"broken-text.png": b"hello", "broken-empty.png": b""}
_LIMIT_S = 900


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.argument("scenes", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--work", type=click.Path(path_type=Path), default=Path("build/prove-cluster"), show_default=True)
@click.option(
    "--images", "count", type=click.IntRange(min=30), default=1000, show_default=True, help="Images to label."
)
@click.option("--cores", type=click.IntRange(min=1), default=2, show_default=True, help="Cores of the node.")
@click.option("--crf/--no-crf", default=False, show_default=True, help="Refine the labels by the dense CRF.")
def main(bundle: Path, scenes: Path, work: Path, count: int, cores: int, crf: bool) -> None:
    """Label images with and without Ray, with kills, and compare."""
    shutil.rmtree(work, ignore_errors=True)
    work = work.absolute()
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # of this node alone
    photos = _draw_images(scenes, work / "photos", count)
    settings = ["--threads", str(cores), "--crf" if crf else "--no-crf", "-q", "--json"]
    common = [str(bundle.absolute()), str(photos), *settings]
    start_s = time.perf_counter()
    plain = _finish(_segment(common, work / "plain"))
    plain_s = time.perf_counter() - start_s
    with _cluster(cores, work / "ray") as (address, watch):
        start_s = time.perf_counter()
        calm = _finish(_segment([*common, "--ray", address], work / "calm"))
        calm_s = time.perf_counter() - start_s
        killed = _run_with_kills([*common, "--ray", address], work / "kills", count, watch)
    labels = _read_labels(work / "plain")
    assert len(labels) == plain["labeled"] == count
    assert _read_labels(work / "calm") == labels
    assert _read_labels(work / "kills") == labels
    merged = subprocess.run(
        [sys.executable, "-m", "atrous.scripts.main", "merge", str(work / "kills"), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    joined = json.loads(merged.stdout)
    assert (joined["finished"], joined["failed"]) == (count, len(_BROKEN)), joined
    lines = (work / "kills" / "done.jsonl").read_text().splitlines()[1:]
    assert len({json.loads(line)["image"] for line in lines}) == len(lines) == count
    report = {
        "images": count,
        "broken": len(_BROKEN),
        "plain_s": round(plain_s, 2),
        "ray_s": round(calm_s, 2),
        "ray_work_s": round(calm["duration_s"], 2),
        "plain_work_s": round(plain["pipeline"]["wall_s"], 2),
        "overhead_run_s": round(calm_s - plain_s, 2),
        "overhead_image_ms": round((calm["duration_s"] - plain["pipeline"]["wall_s"]) / count * 1000, 2),
        **killed,
        "peak_memory_mb": round(watch.peak_bytes / 1e6),
        "store_mb": _STORE_BYTES // 1_000_000,
    }
    click.echo(json.dumps(report))


def _draw_images(scenes: Path, folder: Path, count: int) -> Path:
    """Scenes moved and mirrored, so that no two are equal, and broken files."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    sources = [np.array(Image.open(path).convert("RGB")) for path in sorted(scenes.iterdir())]
    for number in range(count):
        turned = np.roll(sources[number % len(sources)], number * 7, axis=1)[:, :: -1 if number % 2 else 1]
        Image.fromarray(np.ascontiguousarray(turned)).save(folder / f"{number:05}.png", compress_level=1)
    for name, content in _BROKEN.items():
        (folder / name).write_bytes(content)
    return folder


def _segment(arguments: list[str], out: Path) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "atrous.scripts.main", "segment", *arguments, "-o", str(out)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    text, _ = process.communicate(timeout=_LIMIT_S)
    found: dict[str, Any] = json.loads(text[text.index("{") :])
    assert process.returncode == 1, found.get("error")  # some images are broken
    return found


class _Watch:
    """The processes of the node: their memory, and the actors among them."""

    def __init__(self, node: psutil.Process) -> None:
        self._node, self.peak_bytes = node, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            with contextlib.suppress(psutil.Error):
                used = sum(_measure(process) for process in self._node.children(recursive=True))
                self.peak_bytes = max(self.peak_bytes, used)

    def find_actors(self) -> list[psutil.Process]:
        return [child for child in self._node.children(recursive=True) if "ray::BundleActor" in _name(child)]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def _measure(process: psutil.Process) -> int:
    """Memory of a process without what it shares, such as the object store."""
    try:
        found = process.memory_info()
        return int(found.rss - found.shared)
    except psutil.Error:
        return 0


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextlib.contextmanager
def _cluster(cores: int, folder: Path) -> Iterator[tuple[str, _Watch]]:
    """Start a node in the foreground of a process of ours, and end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    line += [f"--num-cpus={cores}", f"--object-store-memory={_STORE_BYTES}", "--include-dashboard=false"]
    line += [f"--port={port}"]
    with open(os.devnull, "w") as nowhere:
        node = subprocess.Popen(line, stdout=nowhere, stderr=nowhere)
    watch = _Watch(psutil.Process(node.pid))
    try:
        time.sleep(15)
        yield f"127.0.0.1:{port}", watch
    finally:
        watch.close()
        children = psutil.Process(node.pid).children(recursive=True)
        node.terminate()
        node.wait(60)
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()


def _run_with_kills(arguments: list[str], out: Path, count: int, watch: _Watch) -> dict[str, Any]:
    """Kill an actor after a third of the images and the driver after two thirds, then run the command again."""
    driver = _segment(arguments, out)
    _wait_for(out, count // 3, driver)
    (victim, *_) = watch.find_actors()
    victim.kill()
    at_actor = _count(out)
    _wait_for(out, 2 * count // 3, driver)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    at_driver = _count(out)
    final = _finish(_segment(arguments, out))
    assert final["labeled"] + final["skipped"] == count
    return {"actor_killed_at": at_actor, "driver_killed_at": at_driver, "skipped_after": final["skipped"]}


def _wait_for(out: Path, images: int, driver: subprocess.Popen[str]) -> None:
    until_s = time.monotonic() + _LIMIT_S
    while _count(out) < images:
        assert driver.poll() is None, "the driver ended before it was killed: use more images"
        assert time.monotonic() < until_s, "too slow"
        time.sleep(0.05)


def _count(out: Path) -> int:
    return len(_list_labels(out))


def _list_labels(out: Path) -> list[Path]:
    return [path for path in out.glob("*.png") if not path.name.startswith(".")] if out.is_dir() else []


def _read_labels(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in _list_labels(out)}


if __name__ == "__main__":
    main()
