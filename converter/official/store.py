"""The folder of a fetched model: names, temporary files, and files moved into place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from ...errors import FolderError
from .quantities import hash_file
from .record import RECORD_FILE, LocalFile, ServerFile

Kind = Literal["caffemodel", "prototxt"]
Origin = Literal["downloaded", "imported", "written"]


class ModelFolder:
    """Where one model lies.

    Args:
        path: the folder.
        name: of the model; its files are called so.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    def require_own(self) -> None:
        """Refuse to put a model among other things.

        Raises:
            FolderError: the path is a file, or a folder of something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise FolderError(f"{self.path}: is a file; give a folder with --out")
        if not self.path.is_dir() or (self.path / RECORD_FILE).exists():
            return
        others = sorted(path.name for path in self.path.iterdir() if not path.name.startswith("."))
        if others:
            raise FolderError(
                f"{self.path}: exists and is no fetched model (it holds {', '.join(others[:3])}); "
                "give another folder with --out"
            )

    def temporary(self, kind: Kind) -> Path:
        """Where a file is made before it has its name."""
        return self.path / f".{self.name}.{kind}.new"

    @contextlib.contextmanager
    def temporary_files(self) -> Iterator[None]:
        """Remove what is left of them at the end."""
        try:
            yield
        finally:
            for path in (self.temporary("caffemodel"), self.temporary("prototxt")):
                with contextlib.suppress(OSError):
                    path.unlink()

    def place(
        self,
        source: Path,
        kind: Kind,
        origin: Origin,
        *,
        server: ServerFile | None = None,
        imported_from: Path | None = None,
    ) -> LocalFile:
        """Give a file its final name.

        Raises:
            FolderError: the folder cannot be written.
        """
        target = self.path / f"{self.name}.{kind}"
        try:
            os.replace(source, target)
            size = target.stat().st_size
        except OSError as error:
            raise FolderError(f"{target}: cannot be written ({error.strerror})") from error
        return LocalFile(
            file=target.name,
            sha256=hash_file(target),
            size_bytes=size,
            origin=origin,
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            server=server,
            imported_from=str(imported_from) if imported_from is not None else None,
        )

    def forget_parts(self) -> None:
        """Remove what incomplete downloads left."""
        for path in [*self.path.glob(".*.part"), *self.path.glob(".*.part.json")]:
            with contextlib.suppress(OSError):
                path.unlink()
