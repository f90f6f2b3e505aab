"""Adding a variant to a bundle in one step.

1. The graph is written under a name that no manifest lists: `deploy.fp16.onnx`, or with the first digits of its sha256
   if that name is taken. Unlisted files are never read.
2. The manifest that lists it replaces the old one in a single rename. Before, the old bundle is valid, after it the new
   one; a process killed in between leaves an unlisted file and nothing else.
3. The file of a replaced variant is removed last.

A lock on the folder serializes writers; they refuse if the float32 graph is not the one the variant was made from.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import BundleWriteError, PrecisionError
from ..files import write_atomically

MANIFEST = "manifest.json"


def require_writable(folder: Path) -> None:
    """Raise an error if no file can be created in a folder; call this before long work.

    Raises:
        BundleWriteError: no file can be created.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".atrous-"):
            pass
    except OSError as error:
        raise BundleWriteError(f"{folder}: cannot be written to ({error.strerror}); change its permissions") from error


def read_deploy(bundle: Path) -> tuple[dict[str, Any], bytes]:
    """Read the manifest and the float32 deployment graph of a bundle, and check its digest.

    Raises:
        PrecisionError: the folder is not a bundle, or its deployment graph is missing or was altered.
    """
    manifest = _read_manifest(bundle)
    deploy = manifest.get("deploy")
    if deploy is None:
        raise PrecisionError(f"{bundle}: has no deploy.onnx to make a variant from; convert a segmentation net")
    return manifest, read_listed(bundle, manifest, deploy["file"], "convert the net again")


def read_listed(bundle: Path, manifest: dict[str, Any], name: str, remedy: str) -> bytes:
    """Read a file of a bundle and check it against its sha256 in the manifest.

    Raises:
        PrecisionError: the file cannot be read or was altered; the message ends with the remedy.
    """
    path = bundle / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PrecisionError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    if hashlib.sha256(content).hexdigest() != manifest["files"].get(name, {}).get("sha256"):
        raise PrecisionError(f"{path}: is not the file the manifest lists; {remedy}")
    return content


def _read_manifest(bundle: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
        _ = manifest["files"], manifest["inputs"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PrecisionError(f"{bundle}: is not a readable bundle ({error}); make one with `atrous convert`") from error
    return manifest


def commit_variant(bundle: Path, entry: dict[str, Any], model: bytes, source_sha256: str) -> dict[str, Any]:
    """Write a variant's graph and list it in the manifest; returns the entry as listed.

    Args:
        bundle: the folder.
        entry: the manifest's entry of the variant, without its file.
        model: the ONNX file.
        source_sha256: digest of the float32 graph it was made from.

    Raises:
        PrecisionError: the bundle is no longer the one the variant was made from.
        BundleWriteError: the folder cannot be written.
    """
    with _lock(bundle):
        manifest = _read_manifest(bundle)
        deploy = manifest["deploy"]["file"]
        if manifest["files"][deploy]["sha256"] != source_sha256:
            raise PrecisionError(f"{bundle}: was converted again while the variant was made; make the variant again")
        precision = entry["precision"]
        digest = hashlib.sha256(model).hexdigest()
        variants = manifest.setdefault("variants", {})
        old = variants.get(precision, {}).get("file")
        name = _choose_name(Path(deploy).stem, precision, digest, manifest["files"])
        write_atomically(bundle / name, lambda stream: stream.write(model))
        listed = {"file": name, **entry}
        variants[precision] = listed
        manifest["files"][name] = {"sha256": digest, "bytes": len(model)}
        if old is not None and old != name:
            manifest["files"].pop(old, None)
        text = json.dumps(manifest, indent=1, allow_nan=False) + "\n"
        write_atomically(bundle / MANIFEST, lambda stream: stream.write(text.encode()))
        if old is not None and old != name:
            with contextlib.suppress(OSError):
                (bundle / old).unlink()
    return listed


def _choose_name(stem: str, precision: str, digest: str, files: dict[str, Any]) -> str:
    """Choose a name that is not listed, or is listed for this very content."""
    plain = f"{stem}.{precision}.onnx"
    if plain not in files or files[plain]["sha256"] == digest:
        return plain
    return f"{stem}.{precision}.{digest[:12]}.onnx"


@contextlib.contextmanager
def _lock(bundle: Path) -> Iterator[None]:
    """Lock the folder against other writers of variants; the system releases the lock when a process dies."""
    try:
        handle = os.open(bundle, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise BundleWriteError(f"{bundle}: cannot be opened ({error.strerror})") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
