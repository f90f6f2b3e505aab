"""The readable JSON beside a plan: what it is, how it was made, and the signature over all of that."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....errors import EngineError
from .keys import EngineKey, write_canonical
from .signing import Signer

SCHEMA_VERSION = 1
RECORD_NAME = "engine.json"
MAX_RECORD_BYTES = 4 << 20
#: names of the files beside a record: the beginning of their sha256
FILE_NAME = re.compile(r"[0-9a-f]{32}\.(?:plan|timing)")
_REBUILD = "build it again with `atrous build`"


@dataclass(frozen=True)
class Piece:
    """A file that belongs to an engine: its name in the engine's folder, its size and its digest."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class EngineRecord:
    """What is written down of an engine.

    Attributes:
        key: the fields that make it what it is.
        plan: the serialized engine.
        timing_cache: the timings it was built by.
        created: when, ISO 8601 in UTC.
        build: how: seconds, log, audit, the timing cache it began with; free to read, not to rely on.
        installation: whose signature it bears; empty where it bears none.
        signature: over everything else.
    """

    key: EngineKey
    plan: Piece
    timing_cache: Piece
    created: str
    build: Mapping[str, Any]
    installation: str = ""
    signature: str = ""

    def _content(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "key": self.key.digest,
            "fields": dict(self.key.fields),
            "plan": vars(self.plan),
            "timing_cache": vars(self.timing_cache),
            "created": self.created,
            "build": dict(self.build),
            "installation": self.installation,
        }

    def signed_by(self, signer: Signer) -> EngineRecord:
        """The same record under a signer's signature."""
        unsigned = EngineRecord(
            self.key, self.plan, self.timing_cache, self.created, self.build, signer.installation, ""
        )
        signature = signer.sign(write_canonical(unsigned._content()))
        return EngineRecord(
            self.key, self.plan, self.timing_cache, self.created, self.build, signer.installation, signature
        )

    def check_signature(self, signer: Signer, *, path: Path) -> None:
        """Check that this installation signed the record.

        Raises:
            EngineError: field "signature" if there is none or it does not fit, "installation" if another signed it.
        """
        if not self.signature:
            raise EngineError(f"the engine is not signed: {_REBUILD}", field="signature", path=path)
        if self.installation != signer.installation:
            raise EngineError(
                f"the engine was signed by another installation ({self.installation[:16]}, this is "
                f"{signer.installation}): {_REBUILD}, or accept it with `atrous build --trust`",
                field="installation",
                expected=signer.installation,
                found=self.installation,
                path=path,
            )
        if not signer.is_valid(write_canonical(self._content()), self.signature):
            raise EngineError(f"the record was altered after it was signed: {_REBUILD}", field="signature", path=path)

    def to_bytes(self) -> bytes:
        """The file's content."""
        return (json.dumps({**self._content(), "signature": self.signature}, indent=1) + "\n").encode()


def parse_record(text: bytes, *, path: Path) -> EngineRecord:
    """Parse a record and check that it agrees with itself; the signature is another matter.

    Raises:
        EngineError: naming the field that is missing, of another kind, or at odds with the rest.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise EngineError(f"the record is not JSON: {_REBUILD}", field="record", path=path) from error
    if not isinstance(content, dict):
        raise EngineError(f"the record is not a JSON object: {_REBUILD}", field="record", path=path)
    schema = _take(content, "schema_version", int, path)
    if schema != SCHEMA_VERSION:
        raise EngineError(
            f"the record has schema_version {schema}, this atrous reads {SCHEMA_VERSION}: {_REBUILD}",
            field="schema_version",
            expected=SCHEMA_VERSION,
            found=schema,
            path=path,
        )
    key = EngineKey(_take(content, "fields", dict, path))
    stated = _take(content, "key", str, path)
    if stated != key.digest or path.parent.name != key.digest:
        found = stated if stated != key.digest else path.parent.name
        raise EngineError(
            f"the record's fields do not give the key it stands under: it was altered or moved: {_REBUILD}",
            field="key",
            expected=key.digest,
            found=found,
            path=path,
        )
    return EngineRecord(
        key=key,
        plan=_take_piece(content, "plan", path),
        timing_cache=_take_piece(content, "timing_cache", path),
        created=_take(content, "created", str, path),
        build=_take(content, "build", dict, path),
        installation=_take(content, "installation", str, path),
        signature=_take(content, "signature", str, path),
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _take(content: Mapping[str, Any], name: str, kind: type, path: Path, within: str = "") -> Any:
    value = content.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        place = f"{within}{name}"
        what = "is missing" if value is None else f"is no {kind.__name__}"
        raise EngineError(f"the record's {place} {what}: {_REBUILD}", field=place, found=value, path=path)
    return value


def _take_piece(content: Mapping[str, Any], name: str, path: Path) -> Piece:
    part = _take(content, name, dict, path)
    piece = Piece(*(_take(part, field, kind, path, f"{name}.") for field, kind in _PIECE_FIELDS))
    if not FILE_NAME.fullmatch(piece.file):
        raise EngineError(
            f"the record's {name}.file is not a name that a store writes: {_REBUILD}", field=f"{name}.file", path=path
        )
    return piece


_PIECE_FIELDS = (("file", str), ("bytes", int), ("sha256", str))
