"""`atrous segment` killed and interrupted in the middle: nothing lost, nothing doubled, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from ...scripts.running import run_atrous
from ..bundles import make_image, write_bundle

IMAGES = 150
KINDS = "labels,overlay"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "b")
    (tmp_path / "photos").mkdir()
    for index in range(IMAGES):
        Image.fromarray(make_image(90, 120, index)).save(tmp_path / "photos" / f"{index:03}.png", compress_level=0)
    (tmp_path / "photos" / "050.png").write_bytes(b"broken")
    return tmp_path


def start(workplace: Path) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "atrous.scripts.main", "segment", "b", "photos", "-o", "out", "--save", KINDS]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    return subprocess.Popen(
        line,
        cwd=workplace,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts its background jobs with SIGINT ignored, and Python would leave it so
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )


def stop_at(workplace: Path, count: int, number: signal.Signals, times: int = 1) -> tuple[int, str]:
    """Start the command, send a signal when it has labeled `count` images, and wait for its end."""
    process = start(workplace)
    deadline_s = time.monotonic() + 60
    while len(read_done(workplace)) < count and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.002)
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.01)
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


def read_done(workplace: Path) -> list[str]:
    path = workplace / "out" / "done.jsonl"
    lines = path.read_text().splitlines()[1:] if path.exists() else []
    images = []
    for line in lines:
        try:
            images.append(json.loads(line)["image"])
        except ValueError:  # being written, or torn
            continue
    return images


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".jsonl"}


@pytest.fixture
def clean(workplace: Path) -> dict[str, bytes]:
    """The results of one undisturbed run."""
    outcome = run_atrous("segment", "b", "photos", "-o", "clean", "--save", KINDS, folder=workplace)
    assert outcome.code == 1
    found = results(workplace / "clean")
    assert len(found) == 2 * (IMAGES - 1)
    return found


def test_kill_9_three_times(workplace: Path, clean: dict[str, bytes]) -> None:
    before = 0
    for count in (20, 60, 100):
        code, _ = stop_at(workplace, count, signal.SIGKILL)
        assert code == -signal.SIGKILL
        assert before < len(read_done(workplace)) < IMAGES - 1
        before = len(read_done(workplace))
    untouched = {name: path.stat().st_mtime_ns for name in clean if (path := workplace / "out" / name).exists()}
    recorded = {Path(image).stem for image in read_done(workplace)}
    report = run_atrous("segment", "b", "photos", "-o", "out", "--save", KINDS, "--json", folder=workplace)
    assert report.code == 1
    assert report.json["skipped"] == before
    assert report.json["labeled"] == IMAGES - 1 - before
    assert len(report.json["failures"]) == 1
    assert results(workplace / "out") == clean  # the same files, byte for byte, and no other
    assert Counter(read_done(workplace)) == dict.fromkeys((f"photos/{n:03}.png" for n in range(IMAGES) if n != 50), 1)
    for name, time_ns in untouched.items():
        if name[:3] in recorded:  # what was done was not done again
            assert (workplace / "out" / name).stat().st_mtime_ns == time_ns


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm(workplace: Path, clean: dict[str, bytes], number: signal.Signals) -> None:
    code, stderr = stop_at(workplace, 30, number)
    assert code == 130
    assert "Traceback" not in stderr
    labeled, interrupted = stderr.splitlines()[-2:]
    assert re.fullmatch(r"atrous segment: \d+ labeled, about \d+ left: the same command resumes the run", labeled)
    assert interrupted == "atrous: interrupted"
    done = len(read_done(workplace))
    assert 30 <= done < IMAGES - 1
    assert not list((workplace / "out").glob(".*"))  # the images under way were finished
    assert len(results(workplace / "out")) == 2 * done
    report = run_atrous("segment", "b", "photos", "-o", "out", "--save", KINDS, "--json", folder=workplace)
    assert (report.code, report.json["skipped"]) == (1, done)
    assert results(workplace / "out") == clean


@pytest.mark.parametrize("times", [2, 3])
def test_ctrl_c_again_while_it_stops(workplace: Path, clean: dict[str, bytes], times: int) -> None:
    code, stderr = stop_at(workplace, 30, signal.SIGINT, times)
    assert code in (130, -signal.SIGINT)
    assert "terminate called" not in stderr
    assert run_atrous("segment", "b", "photos", "-o", "out", "--save", KINDS, folder=workplace).code == 1
    assert results(workplace / "out") == clean
