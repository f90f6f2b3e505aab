"""Signatures of this installation: HMAC-SHA256 with a key in the user's own data folder.

A plan is native code that a GPU library loads. The signature states one thing: this installation built the plan, or
its user chose to trust it. The key is $XDG_DATA_HOME/atrous/signing.key (by default under ~/.local/share), readable by
its owner only; another installation has another key, so its engines are refused until they are built again.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ....bundle.files import open_regular
from ....errors import EngineError, OutputError

KEY_NAME = "signing.key"
_KEY_BYTES = 32
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Signer:
    """Signs and checks records with one key."""

    key: bytes

    @property
    def installation(self) -> str:
        """A public name of the key: 16 hexadecimal digits."""
        return hashlib.sha256(b"atrous installation\0" + self.key).hexdigest()[:16]

    def sign(self, message: bytes) -> str:
        """Return the signature of a message: 64 hexadecimal digits."""
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()

    def is_valid(self, message: bytes, signature: str) -> bool:
        """Whether a signature was made with this key; compared in constant time."""
        return hmac.compare_digest(self.sign(message).encode(), signature.encode("utf-8", "replace"))


def find_key_file() -> Path:
    """Return the path of this user's key, which may not exist yet."""
    home = os.environ.get("XDG_DATA_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "share"
    return base / "atrous" / KEY_NAME


def open_signer(path: Path | None = None) -> Signer:
    """Return this installation's signer, with a new key at the first use; EngineError if the key file is unsafe."""
    path = path or find_key_file()
    try:
        return Signer(_read_key(path))
    except FileNotFoundError:
        _create_key(path)
        return Signer(_read_key(path))
    except OSError as error:
        raise OutputError(f"the signing key cannot be read: {error.strerror}", path=path) from error


def _create_key(path: Path) -> None:
    """Write a new key completely or not at all; of two created at once, the first stays."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            with suppress(FileExistsError):
                os.link(temporary, path)  # unlike a rename, never replaces a key that is in use
        finally:
            temporary.unlink()
    except OSError as error:
        raise OutputError(f"the signing key cannot be created: {error.strerror}", path=path) from error


def _read_key(path: Path) -> bytes:
    def fail(problem: str) -> EngineError:
        return EngineError(f"the signing key {problem}", field="signature.key", path=path)

    with open_regular(path, follow_links=False) as file:
        state = os.fstat(file.fileno())
        key = file.read(_KEY_BYTES + 1)
    if hasattr(os, "getuid") and state.st_uid != os.getuid():
        raise fail("belongs to another user: remove it")
    if state.st_mode & _OTHERS:
        raise fail(f"can be read or written by others: chmod 600 {path}")
    if path.parent.stat().st_mode & _OTHERS_WRITE:
        raise fail(f"is in a folder that others can write to: chmod go-w {path.parent}")
    if len(key) != _KEY_BYTES:
        raise fail("is not 32 bytes: remove it, and build the engines again")
    return key
