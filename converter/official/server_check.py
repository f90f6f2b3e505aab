"""Whether a server still has the file that was fetched from it, told without fetching it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from .http_request import AddressFailure, open_url
from .quantities import describe_size
from .record import ServerFile


@dataclass(frozen=True)
class ServerState:
    """What a server says of its file.

    Attributes:
        state: `unchanged` or `changed`, or `unknown` where it does not say.
        detail: what that rests on.
    """

    state: Literal["unchanged", "changed", "unknown"]
    detail: str

    def to_json(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self)


def check_server(recorded: ServerFile, *, timeout_s: float) -> ServerState:
    """Ask by HEAD for size, ETag and date, and compare them with those recorded."""
    try:
        with open_url(recorded.url, timeout_s=timeout_s, method="HEAD") as reply:
            size, etag, date = reply.number("Content-Length"), reply.header("ETag"), reply.header("Last-Modified")
    except AddressFailure as failure:
        return ServerState("unknown", f"{recorded.url}: {failure.reason}")
    if size is not None and size != recorded.size_bytes:
        detail = f"{describe_size(size)} ({size} bytes) now, {describe_size(recorded.size_bytes)} when it was fetched"
        return ServerState("changed", detail)
    if etag and recorded.etag:
        if etag == recorded.etag:
            return ServerState("unchanged", "the same ETag")
        if date != recorded.last_modified or not date:
            return ServerState("changed", f"ETag {etag} now, {recorded.etag} when it was fetched")
    if date and recorded.last_modified:
        if date == recorded.last_modified:
            return ServerState("unchanged", "the same date and size" if size is not None else "the same date")
        return ServerState("changed", f"of {date} now, of {recorded.last_modified} when it was fetched")
    return ServerState("unknown", f"{recorded.url}: the server gives nothing to tell its file by")
