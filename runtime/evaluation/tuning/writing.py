"""The search's result into the bundle: its manifest replaced in one rename, everything else untouched."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ....bundle.files import write_file
from ....bundle.folder import read_bundle
from ....bundle.manifest import MANIFEST_NAME, parse_manifest
from ....errors import BundleError
from ...crf import CrfParameters


def write_crf(path: Path, parameters: CrfParameters, record: Mapping[str, Any]) -> None:
    """Give a bundle other CRF parameters.

    Args:
        path: the bundle's folder.
        parameters: the new ones.
        record: how they were found, for the manifest's `verification`; an older record of a search is replaced.

    Raises:
        BundleError: if the bundle is missing, or not what its manifest says.
        OutputError: if the manifest cannot be written; the old one then stays.
    """
    with _lock(path):
        read_bundle(path)  # refuses what is broken already
        file = path / MANIFEST_NAME
        manifest = json.loads(file.read_bytes())
        manifest["crf"] = parameters.to_dict()
        kept = [entry for entry in manifest["verification"] if entry.get("stage") != record["stage"]]
        manifest["verification"] = [*kept, dict(record)]
        text = (json.dumps(manifest, indent=1, allow_nan=False) + "\n").encode()
        parse_manifest(text, path=file)
        write_file(file, text)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Exclusive use of the bundle among those who change its manifest; the system frees it when a process dies."""
    try:
        import fcntl
    except ImportError:  # no such locks on Windows; the rename is atomic there too
        yield
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise BundleError(f"cannot be opened: {error.strerror}", path=folder) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
