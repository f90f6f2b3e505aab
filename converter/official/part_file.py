"""A download that is not complete yet: its bytes, and a note beside them that says what they are the beginning of.

A `.part` file is continued only where the note names the same address and the server gave something by which its file
can be told again (an ETag or a date).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from ...errors import FolderError
from .quantities import describe_size


@dataclass(frozen=True)
class Origin:
    """What the server's file was when its download began.

    Attributes:
        url: the address that was asked.
        etag: a strong ETag, or empty.
        last_modified: the date the server gave, or empty.
        total: size of the whole file in bytes, or None where the server did not say.
    """

    url: str
    etag: str
    last_modified: str
    total: int | None

    @property
    def validator(self) -> str:
        """What `If-Range` is given; empty where the file could not be told again."""
        return self.etag or self.last_modified


class PartFile:
    """The incomplete file of one address.

    Args:
        folder: where the file will be.
        file: its name there.
        url: the address; files of different addresses are kept apart.
    """

    def __init__(self, folder: Path, file: str, url: str) -> None:
        key = hashlib.sha256(url.encode()).hexdigest()[:8]
        self.url = url
        self.path = folder / f".{file}.{key}.part"
        self._note = folder / f".{file}.{key}.part.json"

    @property
    def size(self) -> int:
        """Bytes that are there."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def read_origin(self) -> Origin | None:
        """The note, if it is one and belongs to this address."""
        try:
            content = json.loads(self._note.read_text(encoding="utf-8"))
            origin = Origin(**content)
        except (OSError, ValueError, TypeError):
            return None
        texts = (origin.url, origin.etag, origin.last_modified)
        if not all(isinstance(text, str) and "\n" not in text and "\r" not in text for text in texts):
            return None
        return origin if origin.url == self.url and isinstance(origin.total, int | None) else None

    def begin(self, origin: Origin) -> None:
        """Forget what is there and note what comes."""
        with _local_trouble(self.path):
            self.path.write_bytes(b"")
            self._note.write_text(json.dumps(asdict(origin)), encoding="utf-8")

    def discard(self) -> None:
        """Forget what is there."""
        for path in (self.path, self._note):
            with contextlib.suppress(OSError):
                path.unlink()

    def discard_note(self) -> None:
        """Forget where the file came from, once it is complete and has its final name."""
        with contextlib.suppress(OSError):
            self._note.unlink()

    def read_tail(self, count: int) -> bytes:
        """The last `count` bytes."""
        with _local_trouble(self.path), self.path.open("rb") as file:
            file.seek(-count, os.SEEK_END)
            return file.read(count)

    @contextlib.contextmanager
    def append(self) -> Iterator[PartWriter]:
        """Open the file for more bytes."""
        with _local_trouble(self.path):
            file = self.path.open("ab")
        with file:
            yield PartWriter(file, self.path)


class PartWriter:
    """Appends to a part file; trouble with the disk is not taken for trouble with the network."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path

    def write(self, data: bytes) -> None:
        """Append bytes."""
        with _local_trouble(self._path):
            self._file.write(data)


def require_space(folder: Path, count: int) -> None:
    """Refuse what the disk has no room for.

    Raises:
        FolderError: with both sizes.
    """
    with _local_trouble(folder):
        free = shutil.disk_usage(folder).free
    if count > free:
        raise FolderError(
            f"{folder}: {describe_size(count)} are needed and {describe_size(free)} are free; "
            "make room, or give another folder with --out"
        )


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from fetching into the same folder, which is made if need be.

    Raises:
        FolderError: one does, or the folder cannot be made.
    """
    with _local_trouble(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderError(f"{folder}: another atrous fetch is at work here; wait for it") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # a file system without locks
                raise FolderError(f"{folder}: cannot be locked ({error.strerror})") from error
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _local_trouble(path: Path) -> Iterator[Any]:
    try:
        yield
    except OSError as error:
        raise FolderError(f"{path}: cannot be written ({error.strerror}); give another folder with --out") from error
