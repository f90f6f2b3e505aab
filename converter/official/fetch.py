"""Fetch a model of the catalogue into a folder that `atrous convert` accepts.

    NAME/NAME.caffemodel   the weights, checked against the net
    NAME/NAME.prototxt     the net that atrous writes for these weights
    NAME/model.json        classes, mean, CRF, checksums, and where the weights came from

1. A model that is there already is compared with its record and kept.
2. Otherwise the weights come from the first address that gives the right file, or from a file of the user.
3. They are unpacked, a net is fitted to them, and a SHA-256 recorded before must be theirs.
4. Both files are renamed into place, and the record is written last: a folder without one is not a fetched model.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.filesize import decimal

from ... import __version__
from ...bundle.files import locked_folder, write_file
from ...errors import ChangedFileError, ConverterError, DownloadError, FetchError, FolderError
from ...printable import clean
from ..files.magic import name_wrong_kind
from .archive import SIGNATURE, extract_member
from .catalogue import Catalogue, OfficialModel, Settings
from .download import AddressError, Download
from .nets.fit import fit_net
from .record import RECORD_FILE, LocalFile, ModelRecord, find_damage, hash_file, read_record


class _Weights(NamedTuple):
    """Accepted weights, the prototxt for them, warnings, and fields of their record."""

    path: Path
    prototxt: str
    warnings: tuple[str, ...]
    origin: dict[str, Any]


@dataclass(frozen=True)
class Fetch:
    """Puts a model into a folder, which is created if necessary."""

    catalogue: Catalogue
    model: OfficialModel
    folder: Path
    source: Path | None = None  # a caffemodel or zip file to import instead of downloading
    again: bool = False  # download although the model is there
    accept_changed: bool = False  # accept another file than the recorded one
    timeout_s: float = 30.0  # deadline for the response headers of an address
    progress: Callable[[str, int, int | None], None] = lambda step, done, total: None  # bytes done, and in all if known

    def run(self) -> tuple[Literal["fetched", "imported", "present"], ModelRecord]:
        """Fetch; returns how the model came into the folder, and the content of its `model.json`.

        Raises:
            FolderError: the folder is in use, holds something else, or cannot be written.
            ChangedFileError: a file is not the recorded one.
            DownloadError: no address gave the file.
            FetchError: the user's file is not this model.
        """
        try:
            with self._lock_folder():
                record = read_record(self.folder)
                if record is not None and record.name != self.model.name:
                    raise FolderError(f"{self.folder}: holds {record.name}; give another folder with --out")
                recorded = record.weights if record is not None else None
                if self.source is not None:
                    return "imported", self._finish(self._import(self.source, recorded))
                if record is None or self.again:
                    return "fetched", self._finish(self._download(recorded))
                if damage := find_damage(self.folder, record):
                    raise ChangedFileError("\n".join((*damage, f"Repair it: atrous fetch {record.name} --again")))
                return "present", record
        except OSError as error:  # of the folder; those of the network and of the user's file were replaced
            reason = f"cannot be written ({error.strerror}); give another folder with --out"
            raise FolderError(f"{error.filename or self.folder}: {reason}") from error

    @property
    def _temporary(self) -> Path:
        return self.folder / ".caffemodel.new"

    @contextmanager
    def _lock_folder(self) -> Iterator[None]:
        """Keep other processes out of the folder; remove temporary files at the end, and the folder if it is empty."""
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if others and RECORD_FILE not in others:
            listed = clean(", ".join(others[:3]))
            raise FolderError(f"{folder}: holds other files ({listed}); give another folder with --out")
        try:
            with locked_folder(folder, wait=False):
                try:
                    yield
                finally:
                    self._temporary.unlink(missing_ok=True)
                    with suppress(OSError):
                        folder.rmdir()
        except BlockingIOError:
            raise FolderError(f"{folder}: in use by another atrous fetch; wait for it to end") from None

    def _download(self, recorded: LocalFile | None) -> _Weights:
        """The weights from the first address that gives them."""
        model, remote, failures = self.model, self.model.weights, []
        for url in (address.url for address in remote.addresses):
            part = self.folder / f".{remote.file}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part"
            progress = partial(self.progress, url)
            progress(0, None)
            download = Download(url, part, remote.size_range, self.timeout_s, progress)
            try:
                final_url = download.run()
                digest = hash_file(part)
                if remote.sha256 not in (None, digest):
                    raise FetchError(f"its sha256 is {digest}, and must be {remote.sha256}")
                origin = {"origin": "downloaded", "url": url, "final_url": final_url, "download_sha256": digest}
                weights = self._accept(part, recorded, origin)
            except (AddressError, FetchError) as error:
                failures.append((url, str(error)))
                if isinstance(error, FetchError):
                    download.discard()
            else:
                notes = tuple(f"{url}: {reason}" for url, reason in failures)
                if not final_url.startswith("https:"):
                    notes += ("downloaded over plain HTTP; authenticity cannot be checked",)
                return weights._replace(warnings=notes + weights.warnings)
        size = f" ({decimal(remote.size_bytes)})" if remote.size_bytes is not None else ""
        page = model.page or self.catalogue.page
        advice = f"If you find the file by hand (begin at {page}): atrous fetch {model.name} --from FILE"
        raise DownloadError(f"{model.name}: no address gave {remote.file}{size}", failures, advice)

    def _import(self, source: Path, recorded: LocalFile | None) -> _Weights:
        """The weights from the user's file."""
        if not (source.is_file() and os.access(source, os.R_OK)):
            raise FetchError(f"{source}: is not a readable file; give a caffemodel or a zip file")
        try:
            weights = self._accept(source, recorded, {"origin": "imported", "imported_from": str(source)})
        except FetchError as error:
            raise type(error)(f"{source}: {error}") from None
        if weights.path == source:
            weights = weights._replace(path=Path(shutil.copyfile(source, self._temporary)))
        return weights

    def _accept(self, path: Path, recorded: LocalFile | None, origin: dict[str, Any]) -> _Weights:
        """Unpack weights if necessary, and check them (step 3)."""
        with path.open("rb") as file:
            start = file.read(1024)
        try:
            if start.startswith(SIGNATURE):
                pattern, progress = self.model.weights.member or "*.caffemodel", partial(self.progress, "unpacking")
                origin["member"] = extract_member(path, pattern, self._temporary, progress)
                path = self._temporary
            elif problem := name_wrong_kind(start) if start else "is empty":
                raise FetchError(problem)
            prototxt, warnings = fit_net(self.model, path)
        except ConverterError as error:
            raise FetchError(clean(str(error).replace(f"{path}: ", ""))) from None
        digest = hash_file(path)
        if recorded is not None and digest != recorded.sha256 and not self.accept_changed:
            now, then = f"its sha256 is {digest[:16]}...", f"{recorded.sha256[:16]}... when recorded ({recorded.date})"
            raise ChangedFileError(f"{now}, but {then}; the old files are kept; add --accept-changed to replace them")
        return _Weights(path, prototxt, warnings, origin)

    def _finish(self, weights: _Weights) -> ModelRecord:
        """Step 4."""
        model = self.model
        paths = [self.folder / f"{model.name}.{kind}" for kind in ("caffemodel", "prototxt")]
        os.replace(weights.path, paths[0])
        write_file(paths[1], weights.prototxt.encode())
        record = ModelRecord(
            **model.model_dump(include=set(Settings.model_fields)),
            **self.catalogue.find_classes(model).model_dump(),
            minimum_size=(model.input_size, model.input_size),
            weights=_describe_file(paths[0], weights.origin),
            prototxt=_describe_file(paths[1], {"origin": "written"}),
            notes=model.notes + weights.warnings,
            atrous=__version__,
        )
        content = record.model_dump_json(indent=1).encode() + b"\n"
        write_file(self.folder / RECORD_FILE, content)
        for path in self.folder.glob(".*.part*"):
            path.unlink()
        return record


def _describe_file(path: Path, origin: dict[str, Any]) -> LocalFile:
    date, size = datetime.now(timezone.utc).isoformat(timespec="seconds"), path.stat().st_size
    return LocalFile(file=path.name, sha256=hash_file(path), size_bytes=size, date=date, **origin)
