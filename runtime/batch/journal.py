"""A record of finished items on disk: an interrupted run (also by kill -9) resumes where it stopped.

`done.jsonl` in the output folder gets one line per item, after all files of the item have been renamed. Rules:

1. The first line identifies the file. A file with another first line is rejected, never overwritten.
2. Only lines that are complete JSON objects count. A kill may truncate the last one; the next run ends it with a
   newline.
3. An item is finished if a line has its key: a digest of the item and of all settings (see `make_key`). If any of them
   changes, the item is processed again.
4. An item is finished only while its files exist with the total size in its line; of equal keys the last one counts.
5. One run at a time: a lock on the file excludes others and ends with its process.
6. If the file is removed or replaced during a run (with its folder, say), the run ends with an error: the lines of its
   finished items are lost.

Memory: 16 bytes per item. Keys are 64 bits of a SHA-256: a collision among a million items is expected once in 40
million runs.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ...bundle.files import lock
from ...errors import OutputError
from .results import measure_bytes

DONE_NAME = "done.jsonl"
FAILURES_NAME = "failures.jsonl"
SCHEMA_VERSION = 1
_MOST_LINE_BYTES = 1 << 20


class Journal:
    """The record of finished items in a folder; use it in a `with` block."""

    def __init__(self, folder: str | Path, *, again: bool = False) -> None:
        """Open or create a folder's journal, forgetting finished items with `again`; OutputError if it is locked."""
        self._lines = _LineFile(Path(folder) / DONE_NAME, "done")
        try:
            self._keys, self._bytes = self._read()
            if again:
                self._lines.clear()
                self._keys, self._bytes = self._keys[:0], self._bytes[:0]
            self._lines.begin()
        except BaseException:
            self._lines.close()
            raise

    def __len__(self) -> int:
        """Number of items finished before this run."""
        return len(self._keys)

    def is_done(self, key: str, files: Iterable[str | Path]) -> bool:
        """Whether an item with this key was finished before this run and its files still have their total size."""
        wanted = np.uint64(int(key, 16))
        place = int(np.searchsorted(self._keys, wanted))
        if place == len(self._keys) or self._keys[place] != wanted:
            return False
        try:
            return sum(map(measure_bytes, files)) == int(self._bytes[place])
        except OSError:
            return False

    def add(self, key: str, size_bytes: int, record: Mapping[str, Any]) -> None:
        """Record an item as finished, with the total size of its files; thread-safe."""
        self._lines.write({"key": key, "bytes": size_bytes, **record})

    def check(self) -> None:
        """Raise OutputError if the file was removed or replaced since it was opened."""
        self._lines.check()

    def close(self) -> None:
        """Close the file, which unlocks it."""
        self._lines.close()

    def __enter__(self) -> Journal:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _read(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        keys, sizes = array("Q"), array("Q")
        for entry in self._lines.read():
            key, size = entry.get("key"), entry.get("bytes")
            if isinstance(key, str) and len(key) == 16 and isinstance(size, int) and 0 <= size < 1 << 63:
                try:
                    number = int(key, 16)
                except ValueError:
                    continue
                keys.append(number)
                sizes.append(size)
        newest_first = np.array(keys, np.uint64)[::-1]
        unique, places = np.unique(newest_first, return_index=True)  # the first of equals
        return unique, np.array(sizes, np.uint64)[::-1][places]


class FailureLog:
    """`failures.jsonl` of the latest run: one line per failed item; without failures, no file."""

    def __init__(self, folder: str | Path) -> None:
        """Remove the previous run's file; OutputError if it is not a failure log."""
        self._path = Path(folder) / FAILURES_NAME
        self._lines: _LineFile | None = None
        if os.path.lexists(self._path):
            before = _LineFile(self._path, "failures")
            try:
                for _ in before.read():  # rejects a file of another kind
                    break
                self._path.unlink()
            finally:
                before.close()

    def add(self, record: Mapping[str, Any]) -> None:
        """Record a failure."""
        if self._lines is None:
            self._lines = _LineFile(self._path, "failures")
            self._lines.begin()
        self._lines.write(record)

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._lines is not None:
            self._lines.close()


def make_key(what: object) -> str:
    """Digest of JSON values: 16 hexadecimal digits."""
    text = json.dumps(what, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _LineFile:
    """A file of JSON lines whose first line identifies it, locked by one process."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        self._header = {"schema_version": SCHEMA_VERSION, "kind": f"atrous {kind}"}
        self._lock = threading.Lock()
        try:
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 (held for the run)
        except OSError as error:
            raise OutputError(f"cannot be written: {error.strerror}", path=path) from error
        try:
            lock(self._file.fileno(), wait=False)
        except BlockingIOError as error:
            self._file.close()
            raise OutputError("another run is writing to this folder: wait until it ends", path=path) from error

    def read(self) -> Iterable[dict[str, Any]]:
        """Complete lines after the first. A truncated last line is ended, so that appended lines stand alone."""
        is_first, is_whole = True, True
        with open(self._path, "rb") as file:
            while line := file.readline(_MOST_LINE_BYTES):
                is_whole = line.endswith(b"\n")
                entry = _parse(line)
                if is_first:
                    if entry is None and not is_whole and _encode(self._header).startswith(line):
                        self.clear()  # killed while writing the first line
                        return
                    if entry is None or any(entry.get(name) != value for name, value in self._header.items()):
                        raise OutputError(
                            "is not a record of atrous: move it away, or choose another folder", path=self._path
                        )
                    is_first = False
                elif entry is not None:
                    yield entry
        if not is_whole:
            self._append(b"\n")

    def begin(self) -> None:
        """Write the first line if the file is empty."""
        if os.fstat(self._file.fileno()).st_size == 0:
            self.write(self._header)

    def clear(self) -> None:
        """Truncate the file."""
        self._file.truncate(0)

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append a line."""
        self._append(_encode(entry))

    def check(self) -> None:
        try:
            is_same = os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno()))
        except OSError:
            is_same = False
        if not is_same:
            raise OutputError("was removed or replaced during the run: run the command again", path=self._path)

    def close(self) -> None:
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


def _encode(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, default=str).encode() + b"\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
