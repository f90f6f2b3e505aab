"""The readable JSON beside a plan: what the engine is, how it was built, and a signature over all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ....errors import EngineError
from .keys import EngineKey, write_canonical
from .signing import Signer

SCHEMA_VERSION = 1
RECORD_NAME = "engine.json"
MAX_RECORD_BYTES = 4 << 20
#: names of the files beside a record: the first half of their sha256
FILE_NAME = re.compile(r"[0-9a-f]{32}\.(?:plan|timing)")
REBUILD = "build it again with `atrous build`"


def refuse(problem: str, field: str, path: Path, expected: object = None, found: object = None) -> EngineError:
    """Return an error that advises to build again."""
    return EngineError(f"{problem}: {REBUILD}", field=field, expected=expected, found=found, path=path)


@dataclass(frozen=True)
class Piece:
    """A file of an engine: its name in the engine's folder, its size in bytes, and its digest."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class EngineRecord:
    """A stored engine: key fields, plan, timing cache, ISO 8601 UTC time, build details, and who signed it."""

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
        """Return the same record with a signer's signature."""
        unsigned = replace(self, installation=signer.installation, signature="")
        return replace(unsigned, signature=signer.sign(write_canonical(unsigned._content())))

    def check_signature(self, signer: Signer, *, path: Path) -> None:
        """Raise EngineError: "signature" if it is missing or wrong, "installation" if another installation signed."""
        if not self.signature:
            raise refuse("the engine is not signed", "signature", path)
        if self.installation != signer.installation:
            raise EngineError(
                f"the engine was signed by another installation ({self.installation[:16]}, this is "
                f"{signer.installation}): {REBUILD}, or accept it with `atrous build --trust`",
                field="installation",
                expected=signer.installation,
                found=self.installation,
                path=path,
            )
        if not signer.is_valid(write_canonical(self._content()), self.signature):
            raise refuse("the record was altered after it was signed", "signature", path)

    def to_bytes(self) -> bytes:
        """Return the content of the record's file."""
        return (json.dumps({**self._content(), "signature": self.signature}, indent=1) + "\n").encode()


def parse_record(text: bytes, *, path: Path) -> EngineRecord:
    """Parse a record without its signature check; raises EngineError naming a missing, malformed or wrong field."""
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise refuse("the record is not JSON", "record", path) from error
    if not isinstance(content, dict):
        raise refuse("the record is not a JSON object", "record", path)
    schema = _take(content, "schema_version", int, path)
    if schema != SCHEMA_VERSION:
        problem = f"the record has schema_version {schema}, this atrous reads {SCHEMA_VERSION}"
        raise refuse(problem, "schema_version", path, SCHEMA_VERSION, schema)
    key = EngineKey(_take(content, "fields", dict, path))
    stated = _take(content, "key", str, path)
    if stated != key.digest or path.parent.name != key.digest:
        found = stated if stated != key.digest else path.parent.name
        raise refuse("the record's fields do not match its key: altered or moved", "key", path, key.digest, found)
    plan, timing_cache = (_take_piece(content, name, path) for name in ("plan", "timing_cache"))
    created, installation, signature = (_take(content, n, str, path) for n in ("created", "installation", "signature"))
    return EngineRecord(key, plan, timing_cache, created, _take(content, "build", dict, path), installation, signature)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _take(content: Mapping[str, Any], name: str, kind: type, path: Path, within: str = "") -> Any:
    value, place = content.get(name), f"{within}{name}"
    if not isinstance(value, kind) or isinstance(value, bool):
        problem = "is missing" if value is None else f"is not of type {kind.__name__}"
        raise refuse(f"the record's {place} {problem}", place, path, found=value)
    return value


def _take_piece(content: Mapping[str, Any], name: str, path: Path) -> Piece:
    part, within = _take(content, name, dict, path), f"{name}."
    file = _take(part, "file", str, path, within)
    if not FILE_NAME.fullmatch(file):
        raise refuse(f"the record's {name}.file is not a name that a store writes", f"{name}.file", path)
    return Piece(file, _take(part, "bytes", int, path, within), _take(part, "sha256", str, path, within))
