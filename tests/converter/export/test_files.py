from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

import pytest

from atrous.converter.errors import BundleWriteError
from atrous.converter.export.files import read_umask, write_atomically


def test_file_is_written_with_its_folders(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "f", lambda stream: stream.write(b"new"))
    assert (tmp_path / "a" / "b" / "f").read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["f"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    for mask in (0o022, 0o077):
        old = os.umask(mask)
        try:
            assert read_umask() == mask
            write_atomically(tmp_path / "f", lambda stream: stream.write(b""))
        finally:
            assert os.umask(old) == mask
        assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o666 & ~mask


def test_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")

    def fail(stream: IO[bytes]) -> None:
        stream.write(b"half")
        raise KeyError("in the middle")

    with pytest.raises(KeyError):
        write_atomically(tmp_path / "f", fail)
    assert (tmp_path / "f").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_full_disk_is_told(tmp_path: Path) -> None:
    def fail(stream: IO[bytes]) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(BundleWriteError, match=r"f: cannot be written \(No space left on device\)"):
        write_atomically(tmp_path / "f", fail)
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "below", tmp_path / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(BundleWriteError, match="cannot be written"):
            write_atomically(place, lambda stream: stream.write(b""))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
