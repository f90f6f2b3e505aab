"""A record of finished items on disk: an interrupted run (also by kill -9) resumes where it stopped.

`done.jsonl` in the output folder gets one line per item, after all files of the item have been renamed. Rules:

1. The first line identifies the file. A file with another first line is rejected, never overwritten.
2. Only lines that are complete JSON objects count. A kill may truncate the last one; the next run ends it with a
   newline.
3. An item is finished if a line has its key: a digest of the item and of all settings (see `make_key`). If any of them
   changes, the item is processed again.
4. An item is finished only while its files exist with the total size in its line; of equal keys the last one counts.
5. One run at a time: a lock on the file excludes others and ends with its process.
6. A shard has a file of its own, `done.0-of-4.jsonl`, so that all shards may write to one folder. Items in the files
   of earlier runs, with another number of shards or without any, count as finished too. A shard that comes to its end
   adds a line without a key, `end`, which `merge` checks.
7. If the file is removed or replaced during a run (with its folder, say), the run ends with an error: the lines of its
   finished items are lost.

Memory: 16 bytes per item. Keys are 64 bits of a SHA-256: a collision among a million items is expected once in 40
million runs.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from .lines import RUN, LineFile, LineObjects, find_lines, open_lines, read_lines, remove_lines
from .shards import Shard
from .storage import list_names, measure_bytes, open_place

DONE_NAME = "done.jsonl"
FAILURES_NAME = "failures.jsonl"
_DONE = re.compile(rf"done(?:\.(\d+)-of-(\d+))?(?:\.{RUN})?\.jsonl")


class Journal:
    """The record of finished items in a folder; use it in a `with` block."""

    def __init__(self, folder: str | Path, *, again: bool = False, shard: Shard | None = None) -> None:
        """Open or create the journal of a folder, or of one shard there.

        `again` forgets finished items. Raises OutputError if another run writes to it.
        """
        own = open_place(folder) / name_record(DONE_NAME, shard)
        self._lines = open_lines(own, "done")
        try:
            others = [] if again else list(_find_others(own, shard))
            entries = (entry for path in others for entry in read_lines(path, "done"))
            self._keys, self._bytes = _collect(entries, self._lines.read())
            if again:
                self._lines.clear()
                self._keys, self._bytes = self._keys[:0], self._bytes[:0]
                for path in _find_others(own, shard) if shard is None else ():
                    remove_lines(path)
            self._lines.begin()
        except BaseException:
            self._lines.close()
            raise

    def __len__(self) -> int:
        """Number of items finished before this run."""
        return len(self._keys)

    def is_done(self, key: str, files: Iterable[Path]) -> bool:
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

    def end(self, record: Mapping[str, Any]) -> None:
        """Record that a shard came to its end."""
        self._lines.write({"end": record})

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


def name_record(name: str, shard: Shard | None) -> str:
    """The file of a record: done.jsonl, or done.0-of-4.jsonl for a shard."""
    stem, _, suffix = name.partition(".")
    return name if shard is None else f"{stem}.{shard}.{suffix}"


def find_journals(folder: Path) -> dict[Path, Shard | None]:
    """The journals in a folder and their shards; None for `done.jsonl`, which comes first."""
    found: dict[Path, Shard | None] = {}
    for name in list_names(folder):
        if (match := _DONE.fullmatch(name)) is not None:
            shard = None if match[1] is None else Shard(int(match[1]), int(match[2]))
            found[folder / name_record(DONE_NAME, shard)] = shard
    return dict(sorted(found.items(), key=lambda entry: entry[1] is not None))


def _find_others(own: Path, shard: Shard | None) -> Iterator[Path]:
    """The journals of other runs that may hold items of this one: not those of the other shards of this run."""
    for path, other in find_journals(own.parent).items():
        is_sibling = shard is not None and other is not None and other.count == shard.count
        if path.name != own.name and not is_sibling:
            yield path


def _collect(*parts: Iterable[Mapping[str, Any]]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The keys of all entries, sorted, and the sizes of their files; of equal keys the last one counts."""
    keys, sizes = array("Q"), array("Q")
    for entry in itertools.chain(*parts):
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

    def __init__(self, folder: str | Path, shard: Shard | None = None) -> None:
        """Remove the previous run's file; OutputError if it is not a failure log."""
        self._path = open_place(folder) / name_record(FAILURES_NAME, shard)
        self._lines: LineFile | LineObjects | None = None
        if find_lines(self._path):
            before = open_lines(self._path, "failures")
            try:
                for _ in before.read():  # rejects a file of another kind
                    break
                remove_lines(self._path)
            finally:
                before.close()

    def add(self, record: Mapping[str, Any]) -> None:
        """Record a failure."""
        if self._lines is None:
            self._lines = open_lines(self._path, "failures")
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
