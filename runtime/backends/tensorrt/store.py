"""The engine store: a folder of engines by key, each with its record, its timing cache and its signature.

::

    engines/<key>/engine.json             the record; the only file that is ever replaced, and last
    engines/<key>/<sha256>.plan           the serialized engine
    engines/<key>/<sha256>.timing         the timing cache behind it

A plan is handed out after these checks, in this order, and each refusal names the field at fault:

1. the record is readable, agrees with itself and stands under its own key (`record`, `key`, the field's name);
2. this installation signed it (`signature`, `installation`);
3. the plan has the size and the digest that the record says (`plan.bytes`, `plan.sha256`).

A writer puts the new files beside the old ones, then replaces the record; a reader sees the old engine or the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ....bundle.files import write_file
from ....errors import EngineError, OutputError
from .keys import Difference, EngineKey, Value
from .options import Shape
from .records import FILE_NAME, MAX_RECORD_BYTES, RECORD_NAME, EngineRecord, Piece, parse_record
from .signing import Signer, open_signer

FOLDER_NAME = "engines"
MAX_PLAN_BYTES = 16 << 30
_STALE_PART_S = 3600.0
_FOLDER_NAME = re.compile(r"[0-9a-f]{64}")
_OWN_FILE = re.compile(rf"{re.escape(RECORD_NAME)}|{FILE_NAME.pattern}")
_OWN_PART = re.compile(rf"\.(?:{_OWN_FILE.pattern})\.[0-9a-f]{{12}}\.part")  # as `write_file` names them
_REBUILD = "build it again with `atrous build`"


@dataclass(frozen=True)
class StoredEngine:
    """An engine in a store: its folder and its record, read but not yet trusted."""

    folder: Path
    record: EngineRecord

    @property
    def fields(self) -> Mapping[str, Value]:
        """What it is, by field."""
        return self.record.key.fields

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether one of its profiles takes these shapes; an engine without profiles takes its graph's own."""
        profiles = self.fields.get("profiles")
        if not isinstance(profiles, list) or not profiles:
            return True
        return any(_profile_takes(profile, shapes) for profile in profiles)


class EngineStore:
    """A folder of engines."""

    def __init__(self, folder: str | Path, signer: Signer | None = None):
        """Open a store, there already or not.

        Args:
            folder: where its engines lie.
            signer: None for this installation's own, which is opened at the first use.
        """
        self.folder = Path(folder)
        self._signer = signer

    @property
    def signer(self) -> Signer:
        """Who signs here."""
        if self._signer is None:
            self._signer = open_signer()
        return self._signer

    def put(
        self, key: EngineKey, plan: bytes, timing_cache: bytes, build: Mapping[str, Any], *, sign: bool = True
    ) -> StoredEngine:
        """Write an engine, in the place of an older one of the same key.

        Raises:
            OutputError: if it cannot be written.
        """
        folder = self.folder / key.digest
        pieces = []
        for content, suffix in ((plan, "plan"), (timing_cache, "timing")):
            digest = hashlib.sha256(content).hexdigest()
            pieces.append(Piece(f"{digest[:32]}.{suffix}", len(content), digest))
            write_file(folder / pieces[-1].file, content)
        created = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        record = EngineRecord(key, pieces[0], pieces[1], created, build)
        record = record.signed_by(self.signer) if sign else record
        replaced = self._list_pieces(folder)
        write_file(folder / RECORD_NAME, record.to_bytes())
        # Only what the old record named: other files may be those of a writer that is not at its record yet.
        for name in replaced - {piece.file for piece in pieces}:
            with contextlib.suppress(OSError):
                (folder / name).unlink()
        return StoredEngine(folder, record)

    def find(self, key: EngineKey) -> StoredEngine:
        """The engine of a key.

        Raises:
            EngineError: if there is none, naming the fields in which the nearest one differs; or if its record is bad.
        """
        folder = self.folder / key.digest
        if (folder / RECORD_NAME).exists():
            return self.read(folder)
        candidates = [(engine, key.fields) for engine in self.list_engines()]
        raise _no_such_engine(candidates, f"no engine is built for this in {self.folder}")

    def choose(
        self,
        wanted: Mapping[str, Value],
        shapes: Mapping[str, Shape] | None = None,
        *,
        here: Callable[[Mapping[str, Value]], Mapping[str, Value]] = lambda fields: {},
    ) -> StoredEngine:
        """The newest engine, one of this installation first, that has the fields `wanted` and takes `shapes`.

        Args:
            wanted: some of the fields, such as "onnx.sha256" and "precision.name".
            shapes: input -> shape.
            here: further fields that an engine must have, told from its own, such as `keys.fields_here`.

        Raises:
            EngineError: if there is none, naming the fields in which the nearest one differs.
        """
        candidates = [(engine, {**wanted, **here(engine.fields)}) for engine in self.list_engines()]
        same = [engine for engine, fields in candidates if not _compare(fields, engine)]
        fitting = [engine for engine in same if shapes is None or engine.fits(shapes)]
        if fitting:
            own = self.signer.installation
            return max(fitting, key=lambda engine: (engine.record.installation == own, engine.record.created))
        if same and shapes is not None:
            written = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
            raise EngineError(
                f"no profile of the engines here takes {written}: build one that does (--shape or --max)",
                field="profiles",
                expected={name: list(shape) for name, shape in shapes.items()},
                found=same[0].fields.get("profiles"),
                path=self.folder,
            )
        raise _no_such_engine(candidates, f"no engine fits in {self.folder}")

    def read(self, folder: Path) -> StoredEngine:
        """The engine of a folder, its record checked against itself.

        Raises:
            EngineError: if the record is missing or bad.
        """
        path = folder / RECORD_NAME
        text = _read_limited(self._inside(path), MAX_RECORD_BYTES, "record")
        return StoredEngine(folder, parse_record(text, path=path))

    def list_engines(self) -> list[StoredEngine]:
        """The engines with readable records, oldest first; what is unreadable is for `find_garbage`."""
        engines = []
        for folder in self._folders():
            with contextlib.suppress(EngineError):
                engines.append(self.read(folder))
        return sorted(engines, key=lambda engine: engine.record.created)

    def read_plan(self, engine: StoredEngine, *, trust: bool = False) -> bytes:
        """The plan of an engine, checked to the last byte.

        Args:
            engine: from this store.
            trust: whether the user says that an engine which this installation did not sign may run. Size and digest
                are checked all the same.

        Raises:
            EngineError: naming the field at fault.
        """
        if not (engine.folder / engine.record.plan.file).exists():  # replaced since its record was read, perhaps
            engine = self.read(engine.folder)
        if not trust:
            engine.record.check_signature(self.signer, path=engine.folder / RECORD_NAME)
        return self._read_piece(engine, engine.record.plan, "plan", MAX_PLAN_BYTES)

    def read_timing_cache(self, engine: StoredEngine) -> bytes:
        """The timing cache of an engine that this installation signed.

        Raises:
            EngineError: naming the field at fault.
        """
        engine.record.check_signature(self.signer, path=engine.folder / RECORD_NAME)
        return self._read_piece(engine, engine.record.timing_cache, "timing_cache", MAX_PLAN_BYTES)

    def trust(self, engine: StoredEngine) -> StoredEngine:
        """Sign an engine of another maker, at its user's word; its plan must be whole.

        Raises:
            EngineError: naming the field at fault.
            OutputError: if the record cannot be written.
        """
        self.read_plan(engine, trust=True)
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

    def find_garbage(self, find_reason: Callable[[StoredEngine], str] = lambda engine: "") -> dict[Path, str]:
        """List what can be removed: folder or file -> why. Nothing is removed.

        Engines of other installations are left alone, and so is every file and folder that a store does not write.

        Args:
            find_reason: returns why an intact engine is no longer needed, or "" if it is.

        Raises:
            EngineError: if the store is a link.
        """
        if self.folder.is_symlink():
            raise EngineError("is a link: give the folder itself", field="path", path=self.folder)
        garbage: dict[Path, str] = {}
        for folder in self._folders():
            try:
                engine = self.read(folder)
                engine.record.check_signature(self.signer, path=folder / RECORD_NAME)
                self._read_piece(engine, engine.record.plan, "plan", MAX_PLAN_BYTES)
                reason = find_reason(engine)
            except EngineError as error:
                if error.field == "installation":
                    continue
                reason = "" if _is_being_written(folder) else str(error)
            own = _list_own_files(folder)
            if reason:
                if own or not any(folder.iterdir()):
                    garbage[folder] = reason
                continue
            named = {RECORD_NAME, *self._list_pieces(folder)}
            for path in own:
                if path.name not in named and _age_s(path) > _STALE_PART_S:
                    garbage[path] = "left by an interrupted write"
        return garbage

    def collect_garbage(self, find_reason: Callable[[StoredEngine], str] = lambda engine: "") -> dict[Path, str]:
        """Remove what `find_garbage` lists, and return it. A folder that holds other files keeps them.

        Raises:
            EngineError: if the store is a link.
            OutputError: if something cannot be removed.
        """
        garbage = self.find_garbage(find_reason)
        for path in garbage:
            is_folder = path.is_dir() and not path.is_symlink()
            try:
                for file in _list_own_files(path) if is_folder else [path]:
                    file.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"cannot be removed: {error.strerror}", path=path) from error
            if is_folder:
                with contextlib.suppress(OSError):  # files of others are in it
                    path.rmdir()
        return garbage

    def _list_pieces(self, folder: Path) -> set[str]:
        """The files that a folder's record names; none where it has no readable one."""
        try:
            record = self.read(folder).record
        except EngineError:
            return set()
        return {record.plan.file, record.timing_cache.file}

    def _folders(self) -> list[Path]:
        try:
            paths = [path for path in self.folder.iterdir() if _FOLDER_NAME.fullmatch(path.name)]
            return sorted(path for path in paths if path.is_dir() and not path.is_symlink())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _read_piece(self, engine: StoredEngine, piece: Piece, name: str, limit: int) -> bytes:
        path = self._inside(engine.folder / piece.file)
        if not 0 <= piece.bytes <= limit:
            raise EngineError(f"{piece.bytes} bytes are no size of a {name}", field=f"{name}.bytes", path=path)
        content = _read_limited(path, piece.bytes, name)
        if len(content) != piece.bytes:
            raise EngineError(
                f"is cut short: {len(content)} bytes where the record says {piece.bytes}: {_REBUILD}",
                field=f"{name}.bytes",
                expected=piece.bytes,
                found=len(content),
                path=path,
            )
        digest = hashlib.sha256(content).hexdigest()
        if digest != piece.sha256:
            raise EngineError(
                f"was altered: its sha256 is {digest[:12]}..., the record says {piece.sha256[:12]}...: {_REBUILD}",
                field=f"{name}.sha256",
                expected=piece.sha256,
                found=digest,
                path=path,
            )
        return content

    def _inside(self, path: Path) -> Path:
        """The path itself, if no link leads out of the store."""
        try:
            resolved = path.resolve()
        except (OSError, RuntimeError) as error:
            raise EngineError("is a loop of links", field="path", path=path) from error
        if not resolved.is_relative_to(self.folder.resolve()):
            raise EngineError("is a link that leaves the store", field="path", path=path)
        return path


def _compare(wanted: Mapping[str, Value], engine: StoredEngine) -> list[Difference]:
    return EngineKey(wanted).compare({name: engine.fields.get(name) for name in wanted})


def _no_such_engine(candidates: Iterable[tuple[StoredEngine, Mapping[str, Value]]], what: str) -> EngineError:
    """Tell in which fields the nearest engine differs: the one with the fewest differences."""
    compared = [(engine, _compare(wanted, engine)) for engine, wanted in candidates]
    if not compared:
        return EngineError(f"{what}: build one with `atrous build`", field="key")
    engine, differences = min(compared, key=lambda pair: len(pair[1]))
    told = "; ".join(difference.describe() for difference in differences)
    first = differences[0]
    return EngineError(
        f"{what}; of the nearest one ({engine.folder.name[:12]}) {told}: {_REBUILD}",
        field=first.field,
        expected=first.wanted,
        found=first.found,
    )


def find_store(bundle_folder: str | Path) -> Path:
    """Where a bundle's engines lie: inside it, or, where it cannot be written, in the user's cache.

    The cache is $XDG_CACHE_HOME/atrous (by default ~/.cache/atrous), under the bundle's own path as a digest.

    Raises:
        EngineError: if the bundle's "engines" is a link, which may lead anywhere.
    """
    folder = Path(bundle_folder)
    inside = folder / FOLDER_NAME
    if inside.is_symlink() or inside.resolve() != folder.resolve() / FOLDER_NAME:
        raise EngineError(
            "is a link: remove it, or name the folder it leads to with --engines", field="path", path=inside
        )
    if inside.is_dir() or os.access(folder, os.W_OK):
        return inside
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path.home() / ".cache"
    return base / "atrous" / FOLDER_NAME / hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


def _profile_takes(profile: object, shapes: Mapping[str, Shape]) -> bool:
    if not isinstance(profile, dict):
        return False
    for name, shape in shapes.items():
        ranges = profile.get(name)
        if not isinstance(ranges, dict):
            return False
        low, high = ranges.get("min"), ranges.get("max")
        if not (isinstance(low, list) and isinstance(high, list) and len(low) == len(high) == len(shape)):
            return False
        if not all(a <= side <= b for a, side, b in zip(low, shape, high, strict=True)):
            return False
    return True


def _read_limited(path: Path, limit: int, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise EngineError(f"the {name} cannot be read: {error.strerror}: {_REBUILD}", field=name, path=path) from error
    if len(content) > limit:
        raise EngineError(
            f"is longer than {limit} bytes, the {name}'s size: {_REBUILD}", field=f"{name}.bytes", path=path
        )
    return content


def _list_own_files(folder: Path) -> list[Path]:
    """The files in an engine's folder that a store can have written, the record first: no reader picks up a remnant."""
    own = [path for path in folder.iterdir() if _OWN_FILE.fullmatch(path.name) or _OWN_PART.fullmatch(path.name)]
    files = [path for path in own if path.is_symlink() or not path.is_dir()]
    return sorted(files, key=lambda path: (path.name != RECORD_NAME, path.name))


def _is_being_written(folder: Path) -> bool:
    """Whether a folder without a record is so young that a writer may be at work in it."""
    return not (folder / RECORD_NAME).exists() and _age_s(folder) < _STALE_PART_S


def _age_s(path: Path) -> float:
    """Seconds since a file was written; 0 if it is gone by now."""
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0
