"""Images that are not files: standard input, web addresses and objects in stores."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath
from typing import TypeGuard
from urllib.parse import quote, urlsplit

from ...errors import ImageError
from .remote import MAX_BYTES, download_image, is_address
from .storage import is_store, read_object

STDIN = "-"


def is_stream(argument: str | Path) -> TypeGuard[str]:
    """Whether an argument is standard input, a web address or an object in a store, and so not a file."""
    return isinstance(argument, str) and (argument == STDIN or is_address(argument) or is_store(argument))


def name_stream(stream: str) -> Path:
    """The relative path that a stream's results are named after: stdin, or the host (bucket) and path of an address."""
    if stream == STDIN:
        return Path("stdin")
    if is_store(stream):
        return Path(*(part for part in stream.partition("://")[2].split("/") if part.strip(".")))
    parts = urlsplit(stream)
    path = PurePosixPath(parts.netloc.replace(":", "_"), *(part for part in parts.path.split("/") if part.strip(".")))
    query = f"_{quote(parts.query, safe='')}" if parts.query else ""
    return Path(path.with_name(path.name + query))


def read_stream(stream: str) -> bytes:
    """Read the bytes of a stream; ImageError if that fails or there are more than `remote.MAX_BYTES`."""
    if is_store(stream):
        return read_object(stream, MAX_BYTES)
    if stream != STDIN:
        return download_image(stream)
    content = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ImageError(f"has more than {MAX_BYTES >> 20} MiB", path="stdin")
    return content
