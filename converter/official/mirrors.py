"""A file that several addresses are said to have: the first that gives the right one counts.

Whatever an address does wrong (silence, 404, an HTML page, another file under the same name) costs one line, and the
next address is tried. Only when all have been tried is there an error, with all the lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from ...errors import ConverterError, FolderError
from ..files.magic import name_wrong_kind
from .archive import SIGNATURE
from .catalogue import RemoteFile
from .download import MAX_BYTES, Limits, Received, download
from .http_request import AddressFailure
from .quantities import describe_size, hash_file

#: a file is refused that has less than a third or more than three times of the stated size
SIZE_TOLERANCE = 3
MAX_PROTOTXT_BYTES = 4 << 20

Accepted = TypeVar("Accepted")
#: (what is done, bytes done, bytes in all or None)
Progress = Callable[[str, int, "int | None"], None]


class UnsuitableError(Exception):
    """An address gave something whole that is not what is wanted; never leaves this package."""


@dataclass(frozen=True)
class Fetched(Generic[Accepted]):
    """A file that an address gave and that was accepted.

    Attributes:
        received: the file, still under its `.part` name.
        sha256: of it.
        accepted: what the check made of it.
        failures: (address, what happened) of those tried before.
    """

    received: Received
    sha256: str
    accepted: Accepted
    failures: tuple[tuple[str, str], ...]


class NoAddressError(Exception):
    """No address gave the file; never leaves this package."""

    def __init__(self, failures: Sequence[tuple[str, str]]) -> None:
        self.failures = tuple(failures)
        super().__init__(str(failures))


def fetch_file(
    remote: RemoteFile,
    folder: Path,
    accept: Callable[[Path, str], Accepted],
    *,
    limits: Limits,
    progress: Progress,
) -> Fetched[Accepted]:
    """Fetch a file from the first address that gives the right one.

    Args:
        remote: the file and its addresses.
        folder: where its part files go.
        accept: given the file and its sha256, checks it; raises UnsuitableError or a ConverterError where it is wrong.
        limits: how long and how much; sizes are narrowed by what the catalogue states.
        progress: see `Progress`; called for each address as it is tried.

    Raises:
        NoAddressError: none did.
        FolderError: the folder cannot be written.
    """
    failures: list[tuple[str, str]] = []
    for address in remote.addresses:
        progress(address.url, 0, None)
        try:
            received = download(
                address.url,
                folder,
                remote.file,
                limits=_narrow(limits, remote),
                check_start=_start_check(remote),
                progress=partial(progress, address.url),
            )
        except AddressFailure as failure:
            failures.append((address.url, failure.reason))
        else:
            try:
                digest = hash_file(received.path)
                if remote.sha256 is not None and digest != remote.sha256:
                    raise UnsuitableError(f"its sha256 is {digest}, and must be {remote.sha256}")
                return Fetched(received, digest, accept(received.path, digest), tuple(failures))
            except FolderError:
                raise
            except (UnsuitableError, ConverterError) as error:
                received.part.discard()
                text = str(error).replace(f"{received.path}: ", "")
                failures.append((address.url, f"sent a file that is refused: {text}"))
    raise NoAddressError(failures)


def _narrow(limits: Limits, remote: RemoteFile) -> Limits:
    if remote.size_bytes is None:
        most = MAX_PROTOTXT_BYTES if remote.file.endswith(".prototxt") else MAX_BYTES
        return replace(limits, most_bytes=min(limits.most_bytes, most))
    return replace(
        limits,
        least_bytes=max(limits.least_bytes, remote.size_bytes // SIZE_TOLERANCE),
        most_bytes=min(limits.most_bytes, remote.size_bytes * SIZE_TOLERANCE),
    )


def _start_check(remote: RemoteFile) -> Callable[[bytes], str | None]:
    """Tells by the first bytes what is not the file."""

    def check(start: bytes) -> str | None:
        if remote.file.endswith(".prototxt"):
            is_text = b"\0" not in start and start.lstrip()[:1] != b"<"
            return None if is_text else "is no prototxt (an HTML page, or binary)"
        if remote.member is None:
            return name_wrong_kind(start) if start else "is empty"
        if start.startswith(SIGNATURE):
            return None
        return (name_wrong_kind(start) if start else None) or "is no zip file"

    return check


def describe_wanted(remote: RemoteFile) -> str:
    """The file and its size, for messages."""
    size = f" ({describe_size(remote.size_bytes)})" if remote.size_bytes is not None else ""
    return f"{remote.file}{size}"
