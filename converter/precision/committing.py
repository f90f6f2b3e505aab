"""Adding a variant to a bundle so that a reader never sees half of it.

1. The graph is written under a name that no manifest lists: `deploy.fp16.onnx`, or with the beginning of its digest in
   the name where that one is taken. Unlisted files are never read.
2. The manifest that lists it replaces the old one in a single rename. Before this the old bundle holds, after it the
   new one; a process killed in between leaves an unlisted file and nothing else.
3. A replaced variant's file is removed last.

Writers take turns by a lock on the folder, and refuse if the float32 graph is not the one the variant was made of.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...bundle.files import write_file
from ...errors import OutputError, PrecisionError

MANIFEST = "manifest.json"


def read_deploy(bundle: Path) -> tuple[dict[str, Any], bytes]:
    """The manifest and the float32 deployment graph of a bundle, its digest checked.

    Raises:
        PrecisionError: it is no bundle, has no deployment graph, or that was altered.
    """
    manifest = _read_manifest(bundle)
    deploy = manifest.get("deploy")
    if deploy is None:
        raise PrecisionError(f"{bundle}: has no deploy.onnx, so there is nothing to make a variant of")
    path = bundle / deploy["file"]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PrecisionError(f"{path}: cannot be read ({error.strerror}); convert the net again") from error
    if hashlib.sha256(content).hexdigest() != manifest["files"][deploy["file"]]["sha256"]:
        raise PrecisionError(f"{path}: is not the file the manifest lists; convert the net again")
    return manifest, content


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
        entry: the variant in the manifest's form, without its file.
        model: the ONNX file.
        source_sha256: digest of the float32 graph it was made of.

    Raises:
        PrecisionError: the bundle is no longer the one the variant was made of.
        OutputError: the folder cannot be written.
    """
    with _lock(bundle):
        manifest = _read_manifest(bundle)
        deploy = manifest["deploy"]["file"]
        if manifest["files"][deploy]["sha256"] != source_sha256:
            raise PrecisionError(f"{bundle}: was converted anew while the variant was made; make the variant again")
        precision = entry["precision"]
        digest = hashlib.sha256(model).hexdigest()
        variants = manifest.setdefault("variants", {})
        old = variants.get(precision, {}).get("file")
        name = _free_name(Path(deploy).stem, precision, digest, manifest["files"])
        write_file(bundle / name, model, durable=True)
        listed = {"file": name, **entry}
        variants[precision] = listed
        manifest["files"][name] = {"sha256": digest, "bytes": len(model)}
        if old is not None and old != name:
            manifest["files"].pop(old, None)
        text = json.dumps(manifest, indent=1, allow_nan=False) + "\n"
        write_file(bundle / MANIFEST, text.encode(), durable=True)
        if old is not None and old != name:
            with contextlib.suppress(OSError):
                (bundle / old).unlink()
    return listed


def _free_name(stem: str, precision: str, digest: str, files: dict[str, Any]) -> str:
    """A name that is not listed, or is listed for this very content."""
    plain = f"{stem}.{precision}.onnx"
    if plain not in files or files[plain]["sha256"] == digest:
        return plain
    return f"{stem}.{precision}.{digest[:12]}.onnx"


@contextlib.contextmanager
def _lock(bundle: Path) -> Iterator[None]:
    """Exclusive use of the folder among those who add variants; the system frees it when a process dies."""
    try:
        handle = os.open(bundle, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise OutputError(f"{bundle}: cannot be opened ({error.strerror})") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
