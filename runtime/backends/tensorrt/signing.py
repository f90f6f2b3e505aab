"""Signatures of this installation: an HMAC-SHA256 by a key that never leaves the user's own data folder.

A plan is native code that a GPU library loads. The signature says one thing only: this installation built the plan,
or its user chose to trust it. The key lies in $XDG_DATA_HOME/atrous/signing.key (by default ~/.local/share), readable
by its owner alone; another installation has another key, so its engines are refused until they are built anew.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from ....errors import EngineError, OutputError

KEY_NAME = "signing.key"
_KEY_BYTES = 32
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class Signer:
    """Signs and checks records; `installation` is public and tells whose signature one is."""

    key: bytes

    @property
    def installation(self) -> str:
        """16 hexadecimal digits that name the key without giving it away."""
        return hashlib.sha256(b"atrous installation\0" + self.key).hexdigest()[:16]

    def sign(self, message: bytes) -> str:
        """The signature of a message: 64 hexadecimal digits."""
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()

    def is_valid(self, message: bytes, signature: str) -> bool:
        """Whether a signature is this installation's, compared in constant time."""
        return hmac.compare_digest(self.sign(message).encode(), signature.encode("utf-8", "replace"))


def find_key_file() -> Path:
    """Where this user's key lies, there already or not."""
    home = os.environ.get("XDG_DATA_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "share"
    return base / "atrous" / KEY_NAME


def open_signer(path: Path | None = None) -> Signer:
    """This installation's signer; its key is made at the first use.

    Raises:
        EngineError: if the key file is not the user's own, is open to others, or is no key.
        OutputError: if it cannot be made or read.
    """
    path = path or find_key_file()
    try:
        return Signer(_read_key(path))
    except FileNotFoundError:
        _make_key(path)
        return Signer(_read_key(path))
    except OSError as error:
        raise OutputError(f"the signing key cannot be read: {error.strerror}", path=path) from error


def _make_key(path: Path) -> None:
    """Write a new key whole or not at all; of two that are made at once the first stays."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename, never replaces a key that others signed with
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    except OSError as error:
        raise OutputError(f"the signing key cannot be made: {error.strerror}", path=path) from error


def _read_key(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(file.fileno())
        key = file.read(_KEY_BYTES + 1)
    if hasattr(os, "getuid") and state.st_uid != os.getuid():
        raise EngineError("the signing key belongs to another user: remove it", field="signature.key", path=path)
    if state.st_mode & _OTHERS:
        raise EngineError(f"the signing key is open to others: chmod 600 {path}", field="signature.key", path=path)
    if len(key) != _KEY_BYTES:
        raise EngineError(
            "the signing key is not 32 bytes: remove it, and build the engines again", field="signature.key", path=path
        )
    return key
