"""The engine store: a folder of engines by key, each with its record, timing cache and signature.

::

    engines/<key>/engine.json             the record; written last
    engines/<key>/<sha256>.plan           the serialized engine
    engines/<key>/<sha256>.timing         the timing cache it was built from

A plan is returned only after these checks, in this order; each refusal names the invalid field:

1. the record is readable, consistent, and in the folder of its own key (`record`, `key`, or the field's name);
2. this installation signed it (`signature`, `installation`);
3. the plan has the recorded size and digest (`plan.bytes`, `plan.sha256`).

A writer adds its files, replaces the record, and removes the files of the old one, under a lock. Readers take no lock:
one whose plan was replaced reads the new record. Only regular files inside the store are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ....bundle.files import locked_folder, open_regular, prepare_folder, write_file
from ....errors import EngineError, OutputError
from .keys import Difference, EngineKey, Value
from .options import Shape
from .records import FILE_NAME, MAX_RECORD_BYTES, REBUILD, RECORD_NAME, EngineRecord, Piece, parse_record, refuse
from .signing import Signer, open_signer

FOLDER_NAME = "engines"
MAX_PLAN_BYTES = 16 << 30
_STALE_PART_S = 3600.0
_FOLDER_NAME = re.compile(r"[0-9a-f]{64}")
_OWN_FILE = re.compile(rf"{re.escape(RECORD_NAME)}|{FILE_NAME.pattern}")
_OWN_PART = re.compile(rf"\.(?:{_OWN_FILE.pattern})\.[0-9a-f]{{12}}\.part")  # as `write_file` names them
PieceName = Literal["plan", "timing_cache"]


@dataclass(frozen=True)
class StoredEngine:
    """An engine in a store: its folder and its record, which is read but not yet trusted."""

    folder: Path
    record: EngineRecord

    @property
    def fields(self) -> Mapping[str, Value]:
        """The fields of its key."""
        return self.record.key.fields

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether one of its profiles allows these shapes; an engine without profiles allows all."""
        profiles = self.fields.get("profiles")
        if not isinstance(profiles, list) or not profiles:
            return True
        return any(profile_allows(profile, shapes) for profile in profiles)


class EngineStore:
    """A folder of engines."""

    def __init__(self, folder: str | Path, signer: Signer | None = None):
        """Open a store, which need not exist yet; without a signer, this installation's is opened when needed."""
        self.folder = Path(folder)
        if signer is not None:
            self.signer = signer

    @cached_property
    def signer(self) -> Signer:
        """The signer of this installation."""
        return open_signer()

    def require_writable(self) -> None:
        """Check before a build that its engine can be written and signed; raises OutputError or EngineError if not."""
        prepare_folder(self.folder)
        _ = self.signer

    def put(self, key: EngineKey, plan: bytes, timing_cache: bytes, build: Mapping[str, Any]) -> StoredEngine:
        """Write and sign an engine; replaces an older one of the same key. Raises OutputError if that fails."""
        folder = self.folder / key.digest
        self._require_inside(folder / RECORD_NAME)
        with self._lock(create=True):
            pieces = []
            for content, suffix in ((plan, "plan"), (timing_cache, "timing")):
                digest = hashlib.sha256(content).hexdigest()
                pieces.append(Piece(f"{digest[:32]}.{suffix}", len(content), digest))
                write_file(folder / pieces[-1].file, content)
            created = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            record = EngineRecord(key, pieces[0], pieces[1], created, build).signed_by(self.signer)
            replaced = self._list_pieces(folder)
            write_file(folder / RECORD_NAME, record.to_bytes())
            for name in replaced - {piece.file for piece in pieces}:
                with contextlib.suppress(OSError):
                    (folder / name).unlink()
        return StoredEngine(folder, record)

    def choose(
        self,
        wanted: Mapping[str, Value],
        shapes: Mapping[str, Shape] | None = None,
        *,
        here: Callable[[Mapping[str, Value]], Mapping[str, Value]] = lambda fields: {},
    ) -> StoredEngine:
        """Return the newest engine that has the fields `wanted` and allows `shapes`, preferably of this installation.

        `here` returns further required fields, given an engine's own, such as `keys.fields_here`. EngineError names
        the fields in which the nearest engine differs.
        """
        engines = self.list_engines()
        differences = [_compare({**wanted, **here(engine.fields)}, engine) for engine in engines]
        same = [engine for engine, differing in zip(engines, differences, strict=True) if not differing]
        fitting = [engine for engine in same if shapes is None or engine.fits(shapes)]
        if fitting:
            own = self.signer.installation
            return max(fitting, key=lambda engine: (engine.record.installation == own, engine.record.created))
        if same and shapes is not None:
            written = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
            raise EngineError(
                f"no profile of these engines allows {written}: build one that does (--shape or --max)",
                field="profiles",
                expected={name: list(shape) for name, shape in shapes.items()},
                found=same[0].fields.get("profiles"),
                path=self.folder,
            )
        if not engines:
            raise EngineError(f"no engine is built in {self.folder}: build one with `atrous build`", field="key")
        nearest = min(range(len(engines)), key=lambda index: len(differences[index]))
        first, described = differences[nearest][0], "; ".join(found.describe() for found in differences[nearest])
        name = engines[nearest].folder.name[:12]
        raise EngineError(
            f"no engine in {self.folder} fits; in the nearest one ({name}) {described}: {REBUILD}",
            field=first.field,
            expected=first.wanted,
            found=first.found,
        )

    def read(self, folder: Path) -> StoredEngine:
        """Return the engine of a folder; raises EngineError if its record is missing or inconsistent."""
        path = self._require_inside(folder / RECORD_NAME)
        return StoredEngine(folder, parse_record(_read_file(path, MAX_RECORD_BYTES, "record"), path=path))

    def list_engines(self) -> list[StoredEngine]:
        """Return the engines with readable records, oldest first."""
        engines = []
        for folder in self._list_folders():
            with contextlib.suppress(EngineError):
                engines.append(self.read(folder))
        return sorted(engines, key=lambda engine: engine.record.created)

    def read_plan(self, engine: StoredEngine, *, trust: bool = False) -> bytes:
        """Return the plan of an engine, or of its replacement, after all checks; with `trust`, from any signer."""
        return self._read_current(engine, "plan", trust=trust)

    def read_timing_cache(self, engine: StoredEngine) -> bytes:
        """Return the timing cache of an engine, or of its replacement; raises as `read_plan`."""
        return self._read_current(engine, "timing_cache")

    def trust(self, engine: StoredEngine) -> StoredEngine:
        """Sign a foreign engine because the user trusts it; raises EngineError unless its plan is intact."""
        with self._lock():
            self._read_piece(engine, "plan")
            record = replace(engine.record, build={**engine.record.build, "trusted": True}).signed_by(self.signer)
            write_file(engine.folder / RECORD_NAME, record.to_bytes())
        return StoredEngine(engine.folder, record)

    def is_own(self, engine: StoredEngine) -> bool:
        """Whether this installation signed an engine's record."""
        try:
            engine.record.check_signature(self.signer, path=engine.folder / RECORD_NAME)
        except EngineError:
            return False
        return True

    def collect_garbage(
        self, find_reason: Callable[[StoredEngine], str] = lambda engine: "", *, dry_run: bool = False
    ) -> dict[Path, str]:
        """Remove engines that are broken or no longer needed, and files left by interrupted writes.

        Engines of other installations are left alone, and so is every file and folder that a store does not write.
        `find_reason` returns why an intact engine is no longer needed, or "" if it is. With `dry_run`, nothing is
        removed. The result is folder or file -> why it is removed.
        """
        if self.folder.is_symlink():
            raise EngineError("is a link: give the folder itself", field="path", path=self.folder)
        with self._lock():
            garbage = {
                path: reason for folder in self._list_folders() for path, reason in self._judge(folder, find_reason)
            }
            for path in [] if dry_run else garbage:
                is_folder = path.is_dir() and not path.is_symlink()
                try:
                    for file in _list_own_files(path) if is_folder else [path]:
                        file.unlink(missing_ok=True)
                except OSError as error:
                    raise OutputError(f"cannot be removed: {error.strerror}", path=path) from error
                if is_folder:
                    with contextlib.suppress(OSError):  # it holds other files
                        path.rmdir()
        return garbage

    def _judge(self, folder: Path, find_reason: Callable[[StoredEngine], str]) -> Iterator[tuple[Path, str]]:
        """Find what can be removed of an engine's folder, and why: the folder itself, or some of its files."""
        try:
            engine = self.read(folder)
            engine.record.check_signature(self.signer, path=folder / RECORD_NAME)
            self._read_piece(engine, "plan")
            reason = find_reason(engine)
        except EngineError as error:
            if error.field == "installation":
                return
            is_being_written = not (folder / RECORD_NAME).exists() and _age_s(folder) < _STALE_PART_S
            reason = "" if is_being_written else str(error)
        own = _list_own_files(folder)
        if reason:
            if own or not any(folder.iterdir()):
                yield folder, reason
            return
        named = {RECORD_NAME, *self._list_pieces(folder)}
        for path in own:
            if path.name not in named and _age_s(path) > _STALE_PART_S:
                yield path, "left by an interrupted write"

    @contextlib.contextmanager
    def _lock(self, *, create: bool = False) -> Iterator[None]:
        """Keep other writers out, where the file system has locks for folders."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                if create:
                    self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked_folder(self.folder))
            yield

    def _list_pieces(self, folder: Path) -> set[str]:
        """The files that a folder's record names; none if it has no readable record."""
        try:
            record = self.read(folder).record
        except EngineError:
            return set()
        return {record.plan.file, record.timing_cache.file}

    def _list_folders(self) -> list[Path]:
        try:
            paths = [path for path in self.folder.iterdir() if _FOLDER_NAME.fullmatch(path.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(path for path in paths if path.is_dir() and not path.is_symlink())

    def _read_current(self, engine: StoredEngine, name: PieceName, *, trust: bool = False) -> bytes:
        """Read a piece of an engine; if that fails because the engine was replaced, read the replacement's."""
        while True:
            try:
                if not trust:
                    engine.record.check_signature(self.signer, path=engine.folder / RECORD_NAME)
                return self._read_piece(engine, name)
            except EngineError:
                current = self.read(engine.folder)
                if current.record == engine.record:
                    raise
                engine = current

    def _read_piece(self, engine: StoredEngine, name: PieceName) -> bytes:
        piece: Piece = getattr(engine.record, name)
        path = self._require_inside(engine.folder / piece.file)
        if not 0 <= piece.bytes <= MAX_PLAN_BYTES:
            raise refuse(f"{piece.bytes} bytes is not a valid size", f"{name}.bytes", path)
        content = _read_file(path, piece.bytes, name)
        if (size := len(content)) != piece.bytes:
            problem = f"is truncated: {size} bytes, the record says {piece.bytes}"
            raise refuse(problem, f"{name}.bytes", path, piece.bytes, size)
        if (digest := hashlib.sha256(content).hexdigest()) != piece.sha256:
            problem = f"was altered: its sha256 is {digest[:12]}..., the record says {piece.sha256[:12]}..."
            raise refuse(problem, f"{name}.sha256", path, piece.sha256, digest)
        return content

    def _require_inside(self, path: Path) -> Path:
        """Return the path, if no link on it leads out of the store."""
        try:
            resolved = path.resolve()
        except (OSError, RuntimeError) as error:
            raise EngineError("is a loop of links", field="path", path=path) from error
        if not resolved.is_relative_to(self.folder.resolve()):
            raise EngineError("is a link that leaves the store", field="path", path=path)
        return path


def find_store(bundle_folder: str | Path) -> Path:
    """Return the folder of a bundle's engines: inside it, or in the user's cache if the bundle cannot be written.

    The cache is $ATROUS_CACHE, else $XDG_CACHE_HOME/atrous (by default ~/.cache/atrous), under a digest of the bundle's
    path. EngineError is raised if the bundle's "engines" is a link, which may lead anywhere.
    """
    folder = Path(bundle_folder)
    inside = folder / FOLDER_NAME
    if inside.is_symlink() or inside.resolve() != folder.resolve() / FOLDER_NAME:
        raise EngineError(
            "is a link: remove it, or name the folder it leads to with --engines", field="path", path=inside
        )
    if inside.is_dir() or os.access(folder, os.W_OK):
        return inside
    return _find_cache() / FOLDER_NAME / hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


def find_runtime_cache(digest: str) -> Path:
    """Return the folder of the kernels that a GPU's driver compiled for a plan or graph with a digest.

    It is in the user's cache, never in a bundle: compiled kernels are code, and nothing signs them.
    """
    return _find_cache() / "kernels" / digest[:32]


def _find_cache() -> Path:
    own = os.environ.get("ATROUS_CACHE", "")
    if own:
        return Path(own).absolute()
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "atrous"


def _compare(wanted: Mapping[str, Value], engine: StoredEngine) -> list[Difference]:
    return EngineKey(wanted).compare({name: engine.fields.get(name) for name in wanted})


def profile_allows(profile: Any, shapes: Mapping[str, Shape]) -> bool:
    """Whether a profile, as a record writes it, allows these shapes; one that is malformed allows none."""
    try:
        return all(
            all(low <= side <= high for low, side, high in zip(*ranges, strict=True))
            for name, shape in shapes.items()
            for ranges in [(profile[name]["min"], shape, profile[name]["max"])]
        )
    except (LookupError, TypeError, ValueError):
        return False


def _read_file(path: Path, limit: int, name: str) -> bytes:
    """Read a regular file of at most `limit` bytes."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise refuse(f"the {name} is {size} bytes, the limit is {limit}", f"{name}.bytes", path)
            return file.read(size)
    except OSError as error:
        raise refuse(f"the {name} cannot be read: {error.strerror}", name, path) from error


def _list_own_files(folder: Path) -> list[Path]:
    """The files in an engine's folder that a store can have written, the record first so that no reader uses a rest."""
    own = [path for path in folder.iterdir() if _OWN_FILE.fullmatch(path.name) or _OWN_PART.fullmatch(path.name)]
    files = [path for path in own if path.is_symlink() or not path.is_dir()]
    return sorted(files, key=lambda path: (path.name != RECORD_NAME, path.name))


def _age_s(path: Path) -> float:
    """Seconds since a file was written; 0 if it no longer exists."""
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0
