"""File access: atomic writes (a temporary file beside the target, then a rename), locks, and reads of regular files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from ..errors import OutputError

_TEMPORARY = re.compile(r"\..{0,60}\.[0-9a-f]{12}\.part", re.DOTALL)


def write_file(
    path: str | os.PathLike[str], content: bytes | Callable[[IO[bytes]], Any], *, durable: bool = False
) -> None:
    """Write a file whole or not at all; missing folders are created.

    `content` is the bytes, or a function that writes them to an open binary file. `durable` flushes the file to the
    disk before the rename, and the folder after it, so that the new file survives a power loss from then on. Raises
    OutputError if the folder or the file cannot be written; nothing is left behind.
    """
    target = Path(path)
    temporary = temporary_name(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, target)
        if durable:
            flush_folder(target.parent)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", path=target) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def flush_file(path: Path) -> None:
    """Flush a closed file to the disk; OSError if that fails."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Flush the names in a folder to the disk, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def lock(descriptor: int, *, wait: bool = True, shared: bool = False) -> bool:
    """Lock an open file or folder against other processes, until it is closed or its process dies.

    Shared locks exclude the others, not each other. Returns whether it is locked: some file systems have no locks, such
    as NFS for folders. Raises BlockingIOError if another process has the lock, unless `wait`.
    """
    try:
        import fcntl

        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (ImportError, OSError):  # no fcntl: not a POSIX system
        return False
    return True


@contextlib.contextmanager
def locked_folder(path: str | os.PathLike[str], *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock on a folder, and return as `lock` does; a folder replaced meanwhile is locked in its new form.

    Raises FileNotFoundError if there is no such folder, also if it was removed before it was locked.
    """
    while True:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            is_locked = lock(descriptor, wait=wait)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                yield is_locked
                return
        finally:
            os.close(descriptor)


def open_regular(path: str | os.PathLike[str], *, follow_links: bool = True) -> IO[bytes]:
    """Open a regular file for reading; OSError for a FIFO or device, which could block forever, or if it fails."""
    extra_flags = getattr(os, "O_NONBLOCK", 0)  # an open FIFO would wait for a writer
    if not follow_links:
        extra_flags |= getattr(os, "O_NOFOLLOW", 0)
    try:
        return open(path, "rb", opener=partial(_open_regular, extra_flags))
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error)) from error


def _open_regular(extra_flags: int, path: str, flags: int) -> int:
    descriptor = os.open(path, flags | extra_flags)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    code = errno.EISDIR if stat.S_ISDIR(os.fstat(descriptor).st_mode) else errno.EINVAL
    os.close(descriptor)
    raise OSError(code, "is a folder" if code == errno.EISDIR else "not a regular file", path)


def hash_stream(file: IO[bytes]) -> str:
    """SHA-256 of the rest of an open file, in hexadecimal."""
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def temporary_name(target: Path) -> Path:
    """A name beside the target that `remove_leftovers` recognizes."""
    # At most 60 characters of the name, so that a long but legal name does not become too long.
    return target.with_name(f".{target.name[:60]}.{secrets.token_hex(6)}.part")


def remove_leftovers(folder: str | Path) -> None:
    """Remove temporary files that a killed process left in a folder; no other process may be writing there."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)


def prepare_folder(path: str | Path) -> Path:
    """Create a folder for results; raises OutputError if that fails, or no files can be written there."""
    folder = Path(path)
    probe = folder / f".{secrets.token_hex(6)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except FileExistsError as error:
        raise OutputError("is a file; results need a folder", path=folder) from error
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", path=folder) from error
    return folder
