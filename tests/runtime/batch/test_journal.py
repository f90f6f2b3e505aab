"""The journal of finished items: truncated lines, foreign files, changed results, concurrent runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from atrous.errors import OutputError
from atrous.runtime.batch.journal import DONE_NAME, FAILURES_NAME, FailureLog, Journal, make_key

from ...processes import child_env

KEYS = [make_key(["image", number]) for number in range(50)]


def write_result(folder: Path, number: int) -> Path:
    path = folder / f"{number}.bin"
    path.write_bytes(bytes(number + 1))
    return path


def fill(folder: Path, numbers: range) -> None:
    with Journal(folder) as journal:
        for number in numbers:
            write_result(folder, number)
            journal.add(KEYS[number], number + 1, {"image": str(number)})


def count_done(folder: Path) -> int:
    with Journal(folder) as journal:
        return sum(journal.is_done(KEYS[number], [folder / f"{number}.bin"]) for number in range(50))


def test_what_was_added_is_done_in_the_next_run(tmp_path: Path) -> None:
    fill(tmp_path, range(20))
    fill(tmp_path, range(20, 30))
    assert count_done(tmp_path) == 30
    assert make_key({"a": 1, "b": 2}) == make_key({"b": 2, "a": 1})
    assert len(set(KEYS)) == 50


def test_the_results_must_be_there(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    (tmp_path / "0.bin").unlink()
    (tmp_path / "1.bin").write_bytes(b"more than that")
    assert count_done(tmp_path) == 1
    with Journal(tmp_path) as journal:  # done again, in another size: the last line counts
        journal.add(KEYS[1], 14, {})
    assert count_done(tmp_path) == 2


def test_again_forgets(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    with Journal(tmp_path, again=True) as journal:
        assert not journal.is_done(KEYS[0], [tmp_path / "0.bin"])
        journal.add(KEYS[2], 3, {})
    assert count_done(tmp_path) == 1


def test_every_cut_is_survived(tmp_path: Path) -> None:
    """A kill may leave any part of the file: complete lines count, and so do lines added afterwards."""
    fill(tmp_path, range(4))
    whole = (tmp_path / DONE_NAME).read_bytes()
    for length in range(len(whole)):
        (tmp_path / DONE_NAME).write_bytes(whole[:length])
        expected = max(0, whole[: length + 1].count(b"\n") - 1)  # an object is whole without its newline
        assert count_done(tmp_path) == expected, length
        write_result(tmp_path, 40)
        with Journal(tmp_path) as journal:
            journal.add(KEYS[40], 41, {})
        assert count_done(tmp_path) == expected + 1, length


@pytest.mark.parametrize(
    "line",
    [b"[1]", b"{", b"\xff", b'{"key": 1, "bytes": 1}', b'{"key": "zzzzzzzzzzzzzzzz", "bytes": 1}', b"[" * 100_000],
)
def test_lines_that_are_none_are_skipped(tmp_path: Path, line: bytes) -> None:
    fill(tmp_path, range(2))
    with (tmp_path / DONE_NAME).open("ab") as file:
        file.write(line + b"\n")
    fill(tmp_path, range(2, 3))
    assert count_done(tmp_path) == 3


@pytest.mark.parametrize("content", [b"mine\n", b"\n", b'{"kind": "atrous done"}\n', b"no line at all"])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    for name, opener in ((DONE_NAME, Journal), (FAILURES_NAME, FailureLog)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(OutputError, match="not a record of atrous"):
            opener(tmp_path)
        assert (tmp_path / name).read_bytes() == content


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / DONE_NAME).mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        Journal(tmp_path)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="this system has no file locks")
    program = (
        "import sys; from atrous.runtime.batch.journal import Journal\n"
        "with Journal(sys.argv[1]): print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_env(),
    )
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(OutputError, match="another run is writing to this folder"):
            Journal(tmp_path)
    finally:
        other.kill()
        other.communicate()
    Journal(tmp_path).close()  # the lock went with the process


def test_failures(tmp_path: Path) -> None:
    log = FailureLog(tmp_path)
    log.close()
    assert os.listdir(tmp_path) == []
    log = FailureLog(tmp_path)
    log.add({"image": "a"})
    log.add({"image": "b"})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / FAILURES_NAME).read_text().splitlines()]
    assert lines == [{"schema_version": 1, "kind": "atrous failures"}, {"image": "a"}, {"image": "b"}]
    FailureLog(tmp_path).close()
    assert os.listdir(tmp_path) == []
