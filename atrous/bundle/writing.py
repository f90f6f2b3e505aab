"""Writing a bundle whole, and adding a variant to one.

1. A bundle is written into a temporary folder beside its target, flushed to the disk, and swapped with the target in
   one step: a reader sees the old bundle or the new one.
2. Where the system cannot swap two folders, the old bundle is moved away first. A process killed between the two
   renames leaves no bundle; the next writer puts the old one back.
3. A writer holds a lock on its temporary folder, and on the bundle that it changes or replaces. What the writers that
   were killed have left is not locked, and the next writer removes it.

`engines/` belongs to the machine and is not listed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import BundleError, OutputError
from .crf_parameters import CrfParameters
from .files import flush_file, flush_folder, hash_stream, locked_folder, remove_leftovers, temporary_name, write_file
from .folder import Bundle, read_bundle
from .manifest import MANIFEST_NAME, SCHEMA_VERSION, FileEntry, GraphFacts, Variant, parse_manifest

#: Every name a bundle can have: its own files, its model card, variants, engines, the bytecode cache of an imported
#: model.py, and temporary files of killed writers
_FILES = re.compile(
    r"manifest\.json|README\.md|model\.(py|safetensors|onnx)|deploy(\.(fp16|bf16|int8|fp8)(\.[0-9a-f]{12})?)?\.onnx"
    r"|__pycache__/model\.[\w.-]+\.pyc|engines/[0-9a-f]{64}/(engine\.json|[0-9a-f]{32}\.(plan|timing))"
    r"|\.(manifest\.json|deploy\.[\w.]+\.onnx)\.\w+(\.part)?|engines/[0-9a-f]{64}/\.[\w.]+\.part"
)
_FOLDERS = re.compile(r"engines(/[0-9a-f]{64})?|__pycache__")
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2
_AT_FDCWD = -100


def describe_file(path: Path) -> FileEntry:
    """Size and digest of a file, as the manifest lists it."""
    with path.open("rb") as stream:
        return FileEntry(sha256=hash_stream(stream), bytes=path.stat().st_size)


def check_target(target: Path, *, replace: bool) -> None:
    """Refuse a target that is not an empty folder or, with `replace`, a bundle and nothing else.

    The OutputError names the entries that are not part of a bundle, and the remedy.
    """
    try:
        if not target.exists() or (target.is_dir() and not any(target.iterdir())):
            return
        if not target.is_dir() or not _has_manifest(target):
            raise OutputError("exists and is not a bundle; choose another folder", path=target)
        if not replace:
            raise OutputError("a bundle is there already; give --force to replace it", path=target)
        foreign = _find_foreign(target)
    except OSError as error:
        raise OutputError(f"cannot be read ({error.strerror}); choose another folder", path=target) from error
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise OutputError(
            f"contains {', '.join(foreign[:3])}{more}, which atrous did not write; move them away, or choose another "
            "folder",
            path=target,
        )


def _has_manifest(folder: Path) -> bool:
    path = folder / MANIFEST_NAME
    try:
        return path.is_file() and bool(json.loads(path.read_bytes())["schema_version"] == SCHEMA_VERSION)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _find_foreign(folder: Path) -> list[str]:
    """The entries that a bundle cannot have; folders end in a slash."""
    foreign = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_folder = path.is_dir() and not path.is_symlink()
        if not (_FOLDERS if is_folder else _FILES).fullmatch(name):
            foreign.append(f"{name}/" if is_folder else name)
    return foreign


@contextlib.contextmanager
def new_bundle(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder to fill, which becomes the bundle when the block ends without an error.

    The target must not exist, be empty, or be a bundle with `replace`. OutputError is raised if it is refused or cannot
    be written; nothing is left behind.
    """
    with contextlib.ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _sweep(target)
            check_target(target, replace=replace)
            place = _make_place(target, stack)
        except OSError as error:
            raise OutputError(
                f"cannot be written ({error.strerror}); choose a folder you may write", path=target
            ) from error
        try:
            yield place
            for path in filter(Path.is_file, place.iterdir()):
                flush_file(path)
            flush_folder(place)
            _put_in_place(place, target, replace)
            flush_folder(target.parent)
        except OSError as error:
            raise OutputError(f"cannot be written ({error.strerror})", path=target) from error


def _make_place(target: Path, stack: contextlib.ExitStack) -> Path:
    """Make a temporary folder that `stack` unlocks and removes at its end."""
    while True:
        place = temporary_name(target)
        place.mkdir()
        with contextlib.suppress(FileNotFoundError):  # another writer swept it before it was locked
            stack.enter_context(locked_folder(place))
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            return place


def _put_in_place(place: Path, target: Path, replace: bool) -> None:
    """Rename `place` to `target`; an old bundle ends up at `place`, or is removed."""
    try:
        place.rename(target)  # also onto an empty folder
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    with locked_folder(target):  # no other writer may add to it while it is replaced
        check_target(target, replace=replace)  # again: files may have been added since the beginning
        if _exchange(place, target):
            return
        old = place.with_suffix(".old")
        target.rename(old)
        try:
            place.rename(target)
        except BaseException:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step, where the system can; otherwise change nothing and return False."""
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return bool(swap(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _EXCHANGE) == 0)


def _sweep(target: Path) -> None:
    """Remove the temporary folders that killed writers of this target left; put back a bundle that one moved away."""
    pattern = re.compile(re.escape(f".{target.name[:60]}.") + r"[0-9a-f]{12}\.(part|old)")
    for entry in list(os.scandir(target.parent)):
        if pattern.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            with contextlib.suppress(OSError), locked_folder(entry.path, wait=False) as is_locked:
                if is_locked and entry.name.endswith(".old") and not os.path.lexists(target):
                    os.rename(entry.path, target)
                elif is_locked:
                    shutil.rmtree(entry.path, ignore_errors=True)


def add_variant(folder: str | Path, variant: Variant, model: bytes, graph: GraphFacts, source_sha256: str) -> Variant:
    """Write a variant's graph into a bundle and list it in the manifest; returns the entry as listed.

    The graph is written under a name that no manifest lists; the manifest that lists it then replaces the old one in
    one rename; a replaced variant's file is removed last. A process killed in between leaves an unlisted file. The
    entry's `file` is chosen here. Raises BundleError if the bundle cannot be read, or its float32 graph no longer has
    the digest `source_sha256`, and OutputError if the folder cannot be written.
    """
    place = Path(folder)
    with _lock_bundle(place, source_sha256) as bundle:
        manifest = bundle.manifest
        entry = FileEntry(sha256=hashlib.sha256(model).hexdigest(), bytes=len(model))
        name = f"{Path(bundle.deploy.file).stem}.{variant.precision}.onnx"
        if name in manifest.files and manifest.files[name] != entry:
            name = f"{name.removesuffix('.onnx')}.{entry.sha256[:12]}.onnx"
        listed = variant.model_copy(update={"file": name})
        old = manifest.variants.get(variant.precision)
        files = {key: value for key, value in manifest.files.items() if old is None or key != old.file}
        changes = {
            "variants": {**manifest.variants, variant.precision: listed},
            "files": {**files, name: entry},
            "graphs": {**{key: facts for key, facts in manifest.graphs.items() if key in files}, name: graph},
        }
        write_file(place / name, model, durable=True)
        write_file(place / MANIFEST_NAME, manifest.model_copy(update=changes).to_json(), durable=True)
        if old is not None and old.file != name:
            with contextlib.suppress(OSError):
                (place / old.file).unlink()
        return listed


def replace_crf(folder: str | Path, parameters: CrfParameters, record: Mapping[str, Any], source_sha256: str) -> None:
    """Replace the CRF parameters of a bundle: its manifest in one rename, nothing else.

    `record` is plain JSON data about their choice, and replaces an older record. Raises as `add_variant`; the old
    manifest remains.
    """
    place = Path(folder)
    with _lock_bundle(place, source_sha256) as bundle:
        text = bundle.manifest.model_copy(update={"crf": parameters, "crf_tuning": dict(record)}).to_json()
        parse_manifest(text, path=place / MANIFEST_NAME)
        write_file(place / MANIFEST_NAME, text, durable=True)


@contextlib.contextmanager
def _lock_bundle(folder: Path, source_sha256: str) -> Iterator[Bundle]:
    """Lock a bundle against other writers, remove what a killed one left, and check that it holds the same network."""
    with contextlib.ExitStack() as stack:
        try:
            is_locked = stack.enter_context(locked_folder(folder))
        except FileNotFoundError as error:
            raise BundleError("there is no such bundle: make one with `atrous convert`", path=folder) from error
        except OSError as error:
            raise OutputError(f"cannot be opened ({error.strerror})", path=folder) from error
        if is_locked:
            remove_leftovers(folder)
        bundle = read_bundle(folder)
        if bundle.manifest.files[bundle.deploy.file].sha256 != source_sha256:
            raise BundleError("was converted anew in the meantime: run the command again", path=folder)
        yield bundle
