"""Writing results: a file appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

from .errors import OutputError

_TEMPORARY = re.compile(r"\..{0,60}\.[0-9a-f]{12}\.part", re.DOTALL)


def write_file(path: str | Path, content: bytes) -> None:
    """Write `content` to `path` by way of a temporary file beside it; missing folders are made.

    Raises:
        OutputError: if the folder or the file cannot be written; nothing is left behind then.
    """
    target = Path(path)
    # At most 60 characters of the name, so that a long but legal one does not become too long.
    temporary = target.with_name(f".{target.name[:60]}.{secrets.token_hex(6)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", path=target) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | Path) -> None:
    """Remove what `write_file` left in a folder when its process was killed; nobody else may be writing there."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name):
                os.unlink(entry.path)


def prepare_folder(path: str | Path) -> Path:
    """Make a folder for results and prove that files can be written there.

    Raises:
        OutputError: if it is a file, cannot be made, or cannot be written to.
    """
    folder = Path(path)
    probe = folder / f".{secrets.token_hex(6)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except FileExistsError as error:
        raise OutputError("is a file; results need a folder", path=folder) from error
    except OSError as error:
        raise OutputError(f"is not a folder that can be written: {error.strerror}", path=folder) from error
    return folder
