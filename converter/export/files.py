"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from ..errors import BundleWriteError


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file beside its final place, then rename it there.

    Args:
        path: the final place.
        write: called with the open binary file.

    Raises:
        BundleWriteError: the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise BundleWriteError(
            f"{path}: cannot be written ({error.strerror}); choose a folder you may write"
        ) from error
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
        os.chmod(temporary, 0o666 & ~read_umask())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise BundleWriteError(f"{path}: cannot be written ({error.strerror})") from error
        raise


def read_umask() -> int:
    """The permissions that new files of this process do not get; the system tells it only by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
