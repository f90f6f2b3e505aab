"""File access: atomic writes (a temporary file beside the target, then a rename), and reads of regular files only."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from ..errors import OutputError

_TEMPORARY = re.compile(r"\..{0,60}\.[0-9a-f]{12}\.part", re.DOTALL)


def write_file(
    path: str | os.PathLike[str], content: bytes | Callable[[IO[bytes]], Any], *, durable: bool = False
) -> None:
    """Write a file whole or not at all; missing folders are created.

    `content` is the bytes, or a function that writes them to an open binary file. `durable` flushes to the disk before
    the rename, so that the file survives a power loss. Raises OutputError if the folder or the file cannot be written;
    nothing is left behind.
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
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", path=target) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a regular file for reading; OSError for a FIFO or device, which could block forever, or if it fails."""
    return open(path, "rb", opener=_open_regular)


def _open_regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # an open FIFO would wait for a writer
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
