"""Object stores: where images come from and results go to besides files, through fsspec (extra `storage`).

An address such as `s3://bucket/folder` or `gs://bucket/folder` names a store; `http(s)` addresses are images only, see
`remote`. A place is a `pathlib.Path` for files, or an `upath.UPath`, its counterpart for stores; everything that
differs between the two is here:

* A file is written beside its target and renamed. An object is put whole, in one request (or one multipart upload,
  which the store completes at once): stores have no half objects and need no rename.
* A store has no locks, no empty folders and no temporary files.
* The version of an image is its size and time of change, or what the store says about it (its ETag and so on).

Credentials and endpoints are those that the store's own library finds: AWS_PROFILE, AWS_ENDPOINT_URL and so on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...bundle.files import prepare_folder, write_file
from ...dependencies import import_optional
from ...errors import ImageError, InputError, OutputError
from ..images import SUFFIXES

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://")
_NOT_STORES = ("http", "https", "file")
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")
_GLOB = re.compile(r"[*?\[]")


def is_store(name: object) -> bool:
    """Whether text is an address in an object store, or a place is in one."""
    if isinstance(name, Path):
        return False
    found = _SCHEME.match(str(name))
    return found is not None and found["scheme"].lower() not in _NOT_STORES


def open_place(name: str | os.PathLike[str]) -> Path:
    """The place of an address or a path; MissingDependencyError or InputError if its library is missing."""
    if isinstance(name, Path):
        return name
    if not is_store(name):
        if _SCHEME.match(str(name)):
            raise InputError(f"{name}: results go to a folder or an object store such as s3://bucket/folder")
        return Path(name)
    upath = import_optional("upath")
    try:
        place = upath.UPath(name)
        place.fs  # noqa: B018 (opens the store's library)
    except (ImportError, ValueError) as error:
        raise InputError(f"{name}: {error}") from error
    found: Path = place  # its interface, not its type
    return found


def prepare_place(place: Path) -> None:
    """Create a folder for results, or check that a store takes them; OutputError if not."""
    if not is_store(place):
        prepare_folder(place)
        return
    probe = place / ".atrous-probe"
    write_content(probe, b"atrous")
    remove(probe)


def write_content(path: Path, content: bytes) -> None:
    """Write a file or an object, whole or not at all; OutputError if that fails."""
    if not is_store(path):
        write_file(path, content)
        return
    store: Any = path
    try:
        store.fs.pipe_file(store.path, content)
    except Exception as error:  # every store has its own
        raise OutputError(f"cannot be written: {_describe(error)}", path=str(path)) from error


def remove(path: Path) -> None:
    """Remove a file or an object, if it is there; OutputError if that fails."""
    try:
        path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass
    except Exception as error:  # every store has its own
        raise OutputError(f"cannot be removed: {_describe(error)}", path=str(path)) from error


def list_names(folder: Path) -> list[str]:
    """The sorted names of what is in a folder; none if there is no such folder. OutputError if that fails."""
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except Exception as error:
        raise OutputError(f"cannot be listed: {_describe(error)}", path=str(folder)) from error


def measure_bytes(path: Path) -> int:
    """The size of a file or an object, or of what is in a folder; OSError if it is missing."""
    if is_store(path):
        store: Any = path
        store.fs.invalidate_cache()
        found = store.fs.find(store.path, detail=True)  # an object, or all below a prefix
        if not found:
            raise FileNotFoundError(str(path))
        return sum(int(entry["size"]) for entry in found.values())
    if os.path.isdir(path):
        return sum(entry.stat().st_size for entry in os.scandir(path))
    return os.stat(path).st_size


def locate(path: Path | str) -> str:
    """A text that is equal for two names of one file or object."""
    return str(path) if is_store(path) else os.path.realpath(path)


def name_below(path: Path, folder: Path) -> str:
    """The relative path of a file or object in a folder, with slashes."""
    if is_store(path):
        return str(path).removeprefix(str(folder)).lstrip("/")
    return path.relative_to(folder).as_posix()


def list_store(address: str, *, recursive: bool) -> Iterator[tuple[str, str]]:
    """Find images: an object, those below a prefix, or a glob pattern, as (address, path below the prefix).

    Raises InputError if nothing is found.
    """
    fs, root = _open(address)
    scheme = address.partition("://")[0]
    try:
        if _GLOB.search(address):
            found = sorted(path for path in fs.glob(root) if not fs.isdir(path))
        elif fs.isfile(root):
            yield address, root.rpartition("/")[2]
            return
        else:
            found = sorted(fs.find(root, maxdepth=None if recursive else 1))
            found = [path for path in found if Path(path).suffix.lower() in SUFFIXES]
    except Exception as error:  # every store has its own
        raise InputError(f"{address} cannot be listed: {_describe(error)}") from error
    if not found:
        raise InputError(f"there are no images at {address}")
    for path in found:
        below = path.rpartition("/")[2] if _GLOB.search(address) else path.removeprefix(root).lstrip("/")
        yield f"{scheme}://{path.lstrip('/')}", below


def read_object(address: str, max_bytes: int) -> bytes:
    """The bytes of an object; ImageError if it cannot be read or has more than `max_bytes`."""
    fs, path = _open(address)
    try:
        content: bytes = fs.cat_file(path, start=0, end=max_bytes + 1)
    except Exception as error:  # every store has its own
        raise ImageError(f"cannot be read: {_describe(error)}", path=address) from error
    if len(content) > max_bytes:
        raise ImageError(f"has more than {max_bytes >> 20} MiB", path=address)
    return content


def find_version(address: str) -> str | None:
    """A text that changes with the object; None if there is no such object."""
    fs, path = _open(address)
    try:
        info = fs.info(path)
    except Exception:  # reading it reports the reason
        return None
    # not all of it: a listing says more of an object than a request for it
    version = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
    return f"{info.get('size')} {version}"


def _open(address: str) -> tuple[Any, str]:
    fsspec = import_optional("fsspec")
    try:
        fs, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise InputError(f"{address}: {error}") from error
    return fs, path


def _describe(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
