"""Files of JSON lines whose first line identifies them: `done.jsonl`, `failures.jsonl` and those of shards.

A file is appended to by one process, which holds a lock on it, and may be read by others that share another lock.

Object stores have neither appending nor locks. There each run writes objects of its own, `done.RUN-000000.jsonl` and so
on, every few seconds; RUN is the time it began and a random number. A process that is killed loses the lines of these
seconds, so their images are labeled again. Two runs cannot harm each other's lines.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ...bundle.files import lock
from ...errors import OutputError
from .storage import is_store, list_names, read_object, remove, write_content

SCHEMA_VERSION = 1
#: a regular expression of a run's name in the names of objects
RUN = "[0-9a-f]{24}-[0-9]{6,}"
_MOST_LINE_BYTES = 1 << 20
_MOST_OBJECT_BYTES = 1 << 30
_FLUSHED_LINES, _FLUSHED_S = 256, 5.0
_JOINED_BYTES = 64 << 20


class LockedError(OutputError):
    """Another process has locked the file."""


def open_lines(path: Path, kind: str) -> LineFile | LineObjects:
    """Open or create a file of lines for appending; OutputError if another process has locked it."""
    return LineObjects(path, kind) if is_store(path) else LineFile(path, kind)


def find_lines(path: Path) -> list[Path]:
    """The file of this name, or the objects that stand for it, oldest first; none if there is none."""
    if not is_store(path):
        return [path] if path.exists() else []
    stem = re.escape(path.name.removesuffix(".jsonl"))
    found = [name for name in list_names(path.parent) if re.fullmatch(rf"{stem}(\.{RUN})?\.jsonl", name)]
    return [path.parent / name for name in sorted(found, key=lambda name: (name != path.name, name))]


def remove_lines(path: Path) -> None:
    """Remove the file of this name, or the objects that stand for it."""
    for place in find_lines(path):
        remove(place)


def read_lines(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    """Complete lines after the first of a file that no process is writing; OutputError if one is."""
    if is_store(path):
        for place in find_lines(path):
            yield from _read(io.BytesIO(read_object(str(place), _MOST_OBJECT_BYTES)), place, kind)
        return
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


class LineObjects:
    """Lines in an object store, as objects of this run beside those of earlier runs; the interface of `LineFile`."""

    def __init__(self, path: Path, kind: str) -> None:
        """Create nothing; other runs are not excluded."""
        self._path, self._kind = path, kind
        self._run = f"{time.time_ns():016x}{secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._number, self._flushed_s = 0, time.monotonic()
        self._written: list[tuple[Path, bytes]] | None = []  # to be joined at the end; None when they are too long

    def read(self) -> Iterator[dict[str, Any]]:
        """Lines of earlier runs."""
        return read_lines(self._path, self._kind)

    def begin(self) -> None:
        """Do nothing: the first line is written with the others."""

    def clear(self) -> None:
        """Remove the lines of earlier runs."""
        remove_lines(self._path)

    def write(self, entry: Mapping[str, Any]) -> None:
        """Add a line, and write an object if it is time; thread-safe."""
        with self._lock:
            self._lines.append(encode_line(entry))
            if len(self._lines) >= _FLUSHED_LINES or time.monotonic() > self._flushed_s + _FLUSHED_S:
                self._flush()

    def check(self) -> None:
        """Do nothing: nothing is held open."""

    def close(self) -> None:
        """Write what is left, and join the objects of this run into one."""
        with self._lock:
            self._flush()
            if self._written is not None and len(self._written) > 1:
                joined = encode_header(self._kind) + b"".join(lines for _, lines in self._written)
                write_content(self._name(self._number), joined)
                for place, _ in self._written:
                    remove(place)
            self._written = []

    def _flush(self) -> None:
        if self._lines:
            lines, place = b"".join(self._lines), self._name(self._number)
            write_content(place, encode_header(self._kind) + lines)
            self._number += 1
            self._lines = []
            if self._written is not None:
                self._written.append((place, lines))
                if sum(len(kept) for _, kept in self._written) > _JOINED_BYTES:
                    self._written = None
        self._flushed_s = time.monotonic()

    def _name(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name.removesuffix('.jsonl')}.{self._run}-{number:06}.jsonl")


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
        raise LockedError("another run is writing to this folder: wait until it ends", path=path) from error


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
