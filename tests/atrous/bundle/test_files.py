"""Results appear whole or not at all; only regular files are read."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

import pytest

from atrous.bundle.files import open_regular, prepare_folder, remove_leftovers, write_file
from atrous.bundle.writing import new_bundle
from atrous.errors import OutputError


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.bin"
    write_file(path, b"first")
    write_file(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(path.parent) == ["b.bin"]


def test_longest_name(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_file(path, b"x")
    assert path.read_bytes() == b"x"


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "kept"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match="No space left"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["kept"]


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        prepare_folder(file)
    with pytest.raises(OutputError, match="cannot be written: Not a directory"):
        prepare_folder(file / "sub")
    with pytest.raises(OutputError, match="cannot be written"):
        write_file(file / "sub" / "x", b"")
    assert prepare_folder(tmp_path / "a" / "b").is_dir()
    assert os.listdir(tmp_path / "a" / "b") == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    with pytest.raises(OutputError, match="Permission denied"):
        prepare_folder(locked)


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".photo.png.0123456789ab.part").write_bytes(b"half")
    for name in (".part", "photo.0123456789ab.part", ".photo.png.part", ".photo.png.0123456789AB.part"):
        (tmp_path / name).write_bytes(b"mine")
    remove_leftovers(tmp_path)
    assert len(os.listdir(tmp_path)) == 4
    remove_leftovers(tmp_path / "nothing")


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    for mask in (0o022, 0o077):
        old = os.umask(mask)
        try:
            write_file(tmp_path / "f", b"")
        finally:
            assert os.umask(old) == mask
        assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o666 & ~mask
        (tmp_path / "f").unlink()


def test_the_umask_is_never_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To read the umask is to change it for a moment, for all threads; no file needs that."""

    def refuse(mask: int) -> int:
        raise AssertionError("the umask was changed")

    monkeypatch.setattr(os, "umask", refuse)
    write_file(tmp_path / "a" / "f", b"", durable=True)
    with new_bundle(tmp_path / "b") as place:
        write_file(place / "f", b"")


def test_a_durable_file_is_on_the_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int | str] = []
    fsync, move = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        steps.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        steps.append("renamed")
        move(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_file(tmp_path / "f", b"content", durable=True)
    assert steps == [(tmp_path / "f").stat().st_ino, "renamed", tmp_path.stat().st_ino]


@pytest.mark.parametrize("error", [KeyError("in the middle"), OSError(28, "No space left on device")])
def test_failing_writer_keeps_the_old_file(tmp_path: Path, error: Exception) -> None:
    (tmp_path / "f").write_bytes(b"old")

    def fail(stream: IO[bytes]) -> None:
        stream.write(b"half")
        raise error

    expected = OutputError if isinstance(error, OSError) else KeyError
    with pytest.raises(expected, match=r"f: cannot be written: No space left|in the middle"):
        write_file(tmp_path / "f", fail, durable=True)
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "below", tmp_path / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(OutputError, match="cannot be written"):
            write_file(place, lambda stream: stream.write(b""))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"x"
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(os.devnull)
    with pytest.raises(OSError, match="is a folder"):
        open_regular(tmp_path)
    with pytest.raises(OSError, match="null byte"):
        open_regular("a\0b")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    open_regular(tmp_path / "link").close()
    with pytest.raises(OSError, match=r"link"):
        open_regular(tmp_path / "link", follow_links=False)
