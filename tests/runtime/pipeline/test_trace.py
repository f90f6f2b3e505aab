"""The trace as Perfetto reads it: one track per worker, slices that do not overlap, counters for queues."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from atrous.errors import OutputError
from atrous.runtime.pipeline import Stage, TraceWriter

from .reports import run_pipeline


def fail_at_two(value: int) -> int:
    if value == 2:
        raise ValueError("two")
    return value


def test_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "trace.json"
    with TraceWriter(path) as trace:
        assert not path.exists()  # it has its name when it is complete
        run_pipeline([Stage("a", fail_at_two), Stage("b", str)], range(9), workers={"a": 2, "b": 3}, trace=trace)
    assert os.listdir(path.parent) == ["trace.json"]
    events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    tracks = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    slices = [event for event in events if event["ph"] == "X"]
    assert set(tracks.values()) <= {"a 1", "a 2", "b 1", "b 2", "b 3"}
    assert len(set(tracks.values())) == len(tracks)
    assert sorted(event["args"]["items"][0] for event in slices if event["name"] == "b") == [0, 1, 3, 4, 5, 6, 7, 8]
    assert [event["args"]["items"] for event in slices if event["name"] == "a (failed)"] == [[2]]
    for track in tracks:
        own = sorted((event["ts"], event["dur"]) for event in slices if event["tid"] == track)
        assert all(first[0] + first[1] <= second[0] + 1e-3 for first, second in itertools.pairwise(own))
    depths = [event for event in events if event["ph"] == "C"]
    assert {event["name"] for event in depths} == {"queue before a", "queue before b"}
    last = {event["name"]: event["args"]["items"] for event in depths}
    assert set(last.values()) == {0}
    assert all(event["ts"] >= 0 for event in slices + depths)


def test_a_trace_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        TraceWriter(tmp_path / "file" / "trace.json")


class FullDisk:
    closed = False

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        self.closed = True


def test_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = TraceWriter(tmp_path / "trace.json")
    trace._file.close()
    monkeypatch.setattr(trace, "_file", FullDisk())
    with pytest.raises(OutputError, match=r"trace\.json: cannot be written: No space left"), trace:
        run_pipeline([Stage("a", str)], range(100), trace=trace)
    assert os.listdir(tmp_path) == []
