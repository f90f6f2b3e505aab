"""The installation's key (private, never replaced) and its signatures."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from atrous.errors import EngineError, OutputError
from atrous.runtime.backends.tensorrt.signing import Signer, find_key_file, open_signer


def test_a_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "data" / "atrous" / "signing.key"
    first = open_signer(path)
    assert open_signer(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["signing.key"]
    assert open_signer(tmp_path / "other.key") != first


def test_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert find_key_file() == tmp_path / "atrous" / "signing.key"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert find_key_file() == Path.home() / ".local" / "share" / "atrous" / "signing.key"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_open_to_others(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "signing.key"
    open_signer(path)
    path.chmod(mode)
    with pytest.raises(EngineError, match="chmod 600") as caught:
        open_signer(path)
    assert caught.value.field == "signature.key"


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
def test_a_folder_open_to_others(tmp_path: Path, mode: int) -> None:
    """Anyone who can write to the folder can replace the key."""
    path = tmp_path / "atrous" / "signing.key"
    open_signer(path)
    path.parent.chmod(mode)
    with pytest.raises(EngineError, match="chmod go-w") as caught:
        open_signer(path)
    assert caught.value.field == "signature.key"


def test_a_fifo(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    os.mkfifo(path, 0o600)
    with pytest.raises(OutputError, match="cannot be read: not a regular file"):
        open_signer(path)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_no_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "signing.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(EngineError, match="not 32 bytes"):
        open_signer(path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    open_signer(tmp_path / "real.key")
    (tmp_path / "signing.key").symlink_to(tmp_path / "real.key")
    with pytest.raises(OutputError):
        open_signer(tmp_path / "signing.key")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        open_signer(tmp_path / "file" / "atrous" / "signing.key")


def test_signatures() -> None:
    signer, other = Signer(b"a" * 32), Signer(b"b" * 32)
    signature = signer.sign(b"message")
    assert signer.is_valid(b"message", signature)
    assert not signer.is_valid(b"messagf", signature)
    assert not other.is_valid(b"message", signature)
    assert not signer.is_valid(b"message", "\udcff")
    assert signer.installation != other.installation
    assert signer.key.hex() not in signer.installation


def test_two_that_make_a_key_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, link = tmp_path / "signing.key", os.link

    def link_too_late(source: Path, target: Path) -> None:
        if not path.exists():
            path.write_bytes(b"k" * 32)
            path.chmod(0o600)
        link(source, target)

    monkeypatch.setattr(os, "link", link_too_late)
    assert open_signer(path).key == b"k" * 32
    assert [entry.name for entry in tmp_path.iterdir()] == ["signing.key"]
