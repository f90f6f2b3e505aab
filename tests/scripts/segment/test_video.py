"""`atrous segment` of a video."""

from __future__ import annotations

from pathlib import Path

import pytest

from ...runtime.batch.test_video import make_frames, read_clip, write_clip
from ...runtime.bundles import CRF, write_bundle
from ..running import run_atrous


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(Path("b"), crf=CRF)
    write_clip(Path("clip.mp4"), make_frames(5))


def test_a_video() -> None:
    done = run_atrous("segment", "b", "clip.mp4", "-o", "out.mp4", "--warm-crf", "2", "--seconds", "0.4")
    assert (done.code, done.stderr) == (0, "")
    assert (
        done.stdout.splitlines()[0] == "4 frames labeled with the dense CRF (3 frames from the frame before) -> out.mp4"
    )
    assert len(read_clip(Path("out.mp4"))[0]) == 4


def test_json() -> None:
    done = run_atrous("segment", "b", "clip.mp4", "-o", "out.mp4", "--no-crf", "--json")
    found = done.json
    assert done.code == 0
    assert (found["command"], found["frames"], found["damaged"], found["warm_starts"]) == ("segment", 5, 0, 0)
    assert (found["source"], found["out"], found["pipeline"]["items"]) == ("clip.mp4", "out.mp4", 5)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["clip.mp4"], "labels is not the name of a video"),
        (["clip.mp4", "-o", "out.mp4", "--batch", "2"], "--batch is not for videos"),
        (["clip.mp4", "-o", "out.mp4", "--save", "overlay"], "--save is not for videos"),
        (["photo.png", "--seconds", "2"], "--warm-crf and --seconds are for a single video"),
        (["/dev/video77", "-o", "out.mp4"], "/dev/video77: cannot be opened as a video"),
    ],
)
def test_refusals(arguments: list[str], error: str) -> None:
    done = run_atrous("segment", "b", *arguments)
    assert (done.code, done.stdout) == (2, "")
    assert error in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not Path("out.mp4").exists()
