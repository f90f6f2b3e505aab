"""Files of JSON lines whose first line identifies them: `done.jsonl`, `failures.jsonl` and their parts.

A file is appended to by one process, which holds a lock on it, and may be read by others that share another lock.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ...bundle.files import lock
from ...errors import OutputError

SCHEMA_VERSION = 1
_MOST_LINE_BYTES = 1 << 20


def read_lines(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    """Complete lines after the first of a file that no process is writing; OutputError if one is."""
    with _open(path, "rb") as file:
        _lock(file, path, shared=True)
        yield from _read(file, path, kind)


class LineFile:
    """A file of JSON lines, locked by this process."""

    def __init__(self, path: Path, kind: str) -> None:
        """Open or create it; OutputError if another process has locked it."""
        self._path, self._kind = path, kind
        self._lock = threading.Lock()
        self._file = _open(path, "a+b")
        _lock(self._file, path, shared=False)

    def read(self) -> Iterator[dict[str, Any]]:
        """Complete lines after the first. A truncated last line is ended, so that appended lines stand alone."""
        with open(self._path, "rb") as file:
            yield from _read(file, self._path, self._kind)
            size = file.seek(0, os.SEEK_END)
            if size and size < len(header := encode_header(self._kind)):
                file.seek(0)
                if header.startswith(file.read()):
                    self.clear()  # killed while writing the first line
                    return
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    self._append(b"\n")

    def begin(self) -> None:
        """Write the first line if the file is empty."""
        if os.fstat(self._file.fileno()).st_size == 0:
            self._append(encode_header(self._kind))

    def clear(self) -> None:
        """Truncate the file."""
        self._file.truncate(0)

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append a line."""
        self._append(encode_line(entry))

    def check(self) -> None:
        """Raise OutputError if the file was removed or replaced since it was opened."""
        try:
            is_same = os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno()))
        except OSError:
            is_same = False
        if not is_same:
            raise OutputError("was removed or replaced during the run: run the command again", path=self._path)

    def close(self) -> None:
        """Close the file, which unlocks it."""
        self._file.close()

    def _append(self, content: bytes) -> None:
        with self._lock:
            try:
                # one system call on a file opened for appending
                if self._file.write(content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                raise OutputError(f"cannot be written: {error.strerror}", path=self._path) from error
            self.check()


def _open(path: Path, mode: str) -> IO[bytes]:
    try:
        return open(path, mode, buffering=0 if "a" in mode else -1)
    except OSError as error:
        verb = "written" if "a" in mode else "read"
        raise OutputError(f"cannot be {verb}: {error.strerror}", path=path) from error


def _lock(file: IO[bytes], path: Path, *, shared: bool) -> None:
    try:
        lock(file.fileno(), wait=False, shared=shared)
    except BlockingIOError as error:
        file.close()
        raise OutputError("another run is writing to this folder: wait until it ends", path=path) from error


def _make_header(kind: str) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "kind": f"atrous {kind}"}


def _read(file: IO[bytes], path: Path, kind: str) -> Iterator[dict[str, Any]]:
    header = _make_header(kind)
    is_first = True
    while line := file.readline(_MOST_LINE_BYTES):
        entry = _parse(line)
        if is_first:
            if entry is None and not line.endswith(b"\n") and encode_header(kind).startswith(line):
                return  # killed while writing the first line
            if entry is None or any(entry.get(name) != value for name, value in header.items()):
                raise OutputError("is not a record of atrous: move it away, or choose another folder", path=path)
            is_first = False
        elif entry is not None:
            yield entry


def encode_header(kind: str) -> bytes:
    """The first line of a file."""
    return encode_line(_make_header(kind))


def encode_line(entry: Mapping[str, Any]) -> bytes:
    """A line; values that JSON lacks become text."""
    return json.dumps(entry, default=str).encode() + b"\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
