"""Extract one file from an untrusted zip archive.

No name inside the archive is used as a path: the member is found by the last part of its name. The archive is rejected

1. if it has more than `MAX_MEMBERS` members,
2. if a member has no name, leaves the folder (absolute, `..`, a drive, a backslash), or is a link or a device,
3. if a member is encrypted or compressed by an unsupported method,
4. if the wanted file is missing or there more than once,
5. if the wanted file unpacks to more than `MAX_MEMBER_BYTES`, to more than `MAX_RATIO` times its compressed size, or to
   another size or checksum than the archive states.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from rich.filesize import decimal

from ...errors import ArchiveError
from ...printable import clean

SIGNATURE = b"PK\x03\x04"
MAX_MEMBERS = 10_000
MAX_MEMBER_BYTES = 2 << 30
MAX_RATIO = 200  # for members above _SMALL_BYTES; float weights hardly shrink
_SMALL_BYTES = 1 << 20
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError)


def extract_member(
    path: Path, pattern: str, target: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> str:
    """Extract the only member whose file name matches `pattern`, where `*` stands for any text; returns its full name.

    Raises ArchiveError for the archive, and OSError for the target.
    """
    try:
        archive = zipfile.ZipFile(path)
    except _BROKEN as error:
        raise ArchiveError(f"truncated or corrupt zip file ({clean(str(error))})", path=path) from None
    with archive:
        info = _find_member(archive.infolist(), pattern, path)
        name, size, done = clean(info.filename, 100), info.file_size, 0
        if size > MAX_MEMBER_BYTES:
            raise ArchiveError(f'"{name}" unpacks to {decimal(size)}, which is too large', path=path)
        if size > max(_SMALL_BYTES, MAX_RATIO * info.compress_size):
            raise ArchiveError(f'"{name}" unpacks to over {MAX_RATIO} times its size: a zip bomb?', path=path)
        with target.open("wb") as file:
            for chunk in _read_member(archive, info, path):
                done += file.write(chunk)
                progress(done, size)
    if done != size:
        raise ArchiveError(f'"{name}" does not have the size that the archive states', path=path)
    return name


def _find_member(members: list[zipfile.ZipInfo], pattern: str, path: Path) -> zipfile.ZipInfo:
    """Check all members (rules 1 to 3) and find the wanted one (rule 4)."""
    if len(members) > MAX_MEMBERS:
        raise ArchiveError(f"holds {len(members)} files, more than {MAX_MEMBERS}", path=path)
    for info in members:
        if fault := _find_fault(info):
            raise ArchiveError(f'rejected: member "{clean(info.filename, 100)}" {fault}', path=path)
    files = [(PurePosixPath(info.filename), info) for info in members if not info.is_dir()]
    files = [(name, info) for name, info in files if name.parts[0] != "__MACOSX" and not name.name.startswith("._")]
    found = [info for name, info in files if fnmatchcase(name.name, pattern)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(sorted(clean(str(name), 60) for name, _ in files)[:10]) or "no files"
    raise ArchiveError(f"holds {len(found) or 'no'} files named {pattern}; it holds {listed}", path=path)


def _find_fault(info: zipfile.ZipInfo) -> str | None:
    name = PurePosixPath(info.filename)
    if not name.name:
        return "has no name"
    if name.is_absolute() or ".." in name.parts or "\\" in info.filename or info.filename[1:2] == ":":
        return "would be written outside of the folder"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed by method {info.compress_type}, which is not supported"
    return None


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Iterator[bytes]:
    """The content of a member in pieces; zipfile stops at the stated size and checks the checksum there."""
    try:
        with archive.open(info) as source:
            while chunk := source.read(1 << 20):
                yield chunk
    except _BROKEN as error:
        raise ArchiveError(f'"{clean(info.filename, 100)}" is corrupt ({clean(str(error))})', path=path) from None
