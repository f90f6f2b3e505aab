"""Taking a few files out of a zip archive that nobody vouches for.

No name inside an archive is ever used as a path: what is wanted is found by the last part of a member's name and
written to a name of ours. The archive as a whole is refused where

1. it has more than `MAX_MEMBERS` members,
2. a member's name leaves the folder (absolute, `..`, a drive, a backslash) or the member is a link or a device,
3. a member is encrypted, or packed in a way that is not known,
4. what is wanted is not there, or there more than once,
5. what is wanted unpacks to more than `MAX_MEMBER_BYTES`, to more than `MAX_RATIO` times its packed size, or to another
   size than the archive states, or its checksum does not hold.
"""

from __future__ import annotations

import contextlib
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

from ...errors import ArchiveError, FolderError
from .part_file import require_space
from .quantities import describe_size

MAX_MEMBERS = 10_000
MAX_MEMBER_BYTES = 2 << 30
#: float weights hardly shrink, and a prototxt of repeated layers shrinks by 30
MAX_RATIO = 200
_CHUNK_BYTES = 1 << 20
_PACKINGS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1
_SMALL_BYTES = 1 << 20
SIGNATURE = b"PK\x03\x04"

Progress = Callable[[int, "int | None"], None]


def find_member(archive: zipfile.ZipFile, pattern: str, path: Path) -> zipfile.ZipInfo:
    """The one member whose file name is `pattern`, in which `*` stands for anything.

    Raises:
        ArchiveError: there is none, or more than one.
    """
    files = [info for info in archive.infolist() if not info.is_dir() and not _is_shadow(info.filename)]
    found = [info for info in files if fnmatchcase(_base_name(info), pattern)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(sorted(info.filename for info in files)[:10]) or "nothing"
    if not found:
        raise ArchiveError(f"holds no {pattern}; it holds {names}", path=path)
    raise ArchiveError(f"holds {len(found)} files {pattern}: {names}", path=path)  # rule 4


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive and look it over (rules 1 to 3).

    Raises:
        ArchiveError: it is broken or not to be trusted.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ArchiveError(f"is no whole zip file ({error})", path=path) from None
    with archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise ArchiveError(f"holds {len(members)} files, more than {MAX_MEMBERS}", path=path)
        for info in members:
            problem = _find_fault(info)
            if problem is not None:
                raise ArchiveError(f'refused: "{info.filename[:100]}" {problem}', path=path)
        yield archive


def extract_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, *, path: Path, progress: Progress | None = None
) -> None:
    """Unpack one member to a file (rule 5).

    Args:
        archive: from :func:`open_archive`.
        info: from :func:`find_member`.
        target: the file to write.
        path: the archive's, for messages.
        progress: called with the bytes written and the size.

    Raises:
        ArchiveError: the member is larger than it may be, or broken.
        FolderError: the target cannot be written.
    """
    if info.file_size > MAX_MEMBER_BYTES:
        raise ArchiveError(f'"{info.filename}" unpacks to {describe_size(info.file_size)}: too much', path=path)
    if info.file_size > max(_SMALL_BYTES, MAX_RATIO * info.compress_size):
        raise ArchiveError(f'"{info.filename}" unpacks to over {MAX_RATIO} times its size: a bomb?', path=path)
    require_space(target.parent, info.file_size)
    done = 0
    try:
        with archive.open(info) as source, _open_target(target) as file:
            while chunk := source.read(_CHUNK_BYTES):
                done += len(chunk)
                if done > info.file_size:
                    raise ArchiveError(f'"{info.filename}" is larger than the archive states', path=path)
                _write(file, chunk, target)
                if progress is not None:
                    progress(done, info.file_size)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise ArchiveError(f'"{info.filename}" is broken ({error}); fetch it again', path=path) from None
    if done != info.file_size:
        raise ArchiveError(f'"{info.filename}" is shorter than the archive states', path=path)


def _find_fault(info: zipfile.ZipInfo) -> str | None:
    name = info.filename
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or (len(name) > 1 and name[1] == ":"):
        return "would be written outside of the folder"  # rule 2
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"  # rule 3
    if info.compress_type not in _PACKINGS:
        return f"is packed by method {info.compress_type}, which is not read here"
    return None


def _base_name(info: zipfile.ZipInfo) -> str:
    return PurePosixPath(info.filename).name


def _is_shadow(name: str) -> bool:
    """What macOS adds beside each file."""
    return name.startswith("__MACOSX/") or PurePosixPath(name).name.startswith("._")


@contextlib.contextmanager
def _open_target(target: Path) -> Iterator[IO[bytes]]:
    try:
        file = target.open("wb")
    except OSError as error:
        raise FolderError(f"{target}: cannot be written ({error.strerror})") from error
    with file:
        yield file


def _write(file: IO[bytes], chunk: bytes, target: Path) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise FolderError(f"{target}: cannot be written ({error.strerror})") from error
