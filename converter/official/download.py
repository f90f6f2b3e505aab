"""One address -> one file, in as many requests as it takes.

Rules, numbered as in the code:
1. What an earlier run left is continued by `Range` with `If-Range`, from `OVERLAP_BYTES` before its end: the bytes that
   come twice must be equal, so that a server that answers a range with something else is noticed.
2. An answer that is not the asked continuation (another start, size, date or ETag; the whole file) starts it over.
3. A size that cannot be right is refused before its bytes are read; the first bytes must look like the file.
4. A connection that ends early, stalls or crawls is taken up again, `attempts` times without progress, with pauses
   that double. What refuses at the start (no such host, 404) is not asked again.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .http_request import AddressFailure, Reply, describe_failure, open_url
from .part_file import Origin, PartFile, require_space
from .quantities import describe_size

#: no model is larger, and a caffemodel cannot be (2 GiB)
MAX_BYTES = 4 << 30
OVERLAP_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 18
_START_BYTES = 512
_CONTENT_RANGE = re.compile(r"bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)

Progress = Callable[[int, "int | None"], None]
StartCheck = Callable[[bytes], "str | None"]


@dataclass(frozen=True)
class Limits:
    """How long and how much.

    Attributes:
        timeout_s: for a connection and for each wait for bytes.
        stall_s: over so many seconds ...
        slowest: ... so many bytes a second must come.
        attempts: in a row without progress.
        most_attempts: in all.
        pause_s: before the second attempt; doubles with each.
        least_bytes: a smaller file is not the one.
        most_bytes: a larger file is not the one.
    """

    timeout_s: float = 20.0
    stall_s: float = 60.0
    slowest: int = 1024
    attempts: int = 3
    most_attempts: int = 50
    pause_s: float = 1.0
    least_bytes: int = 1
    most_bytes: int = MAX_BYTES


@dataclass(frozen=True)
class Received:
    """A complete file that still has its `.part` name.

    Attributes:
        part: the file.
        size_bytes: its size.
        url: the address that was asked.
        final_url: where redirects led.
        etag: as the server gave it, or empty.
        last_modified: as the server gave it, or empty.
        notes: what a person should know, each a sentence.
    """

    part: PartFile
    size_bytes: int
    url: str
    final_url: str
    etag: str
    last_modified: str
    notes: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Where the bytes are."""
        return self.part.path


def download(
    url: str,
    folder: Path,
    file: str,
    *,
    limits: Limits | None = None,
    check_start: StartCheck = lambda start: None,
    progress: Progress = lambda done, total: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Received:
    """Fetch one file from one address.

    Args:
        url: http or https.
        folder: where its part file goes.
        file: its name.
        limits: how long and how much.
        check_start: given the first bytes, tells what they are instead of the file, or None.
        progress: called with the bytes that are there and the whole size, None where the server does not say.
        sleep: waits between attempts.

    Raises:
        AddressFailure: the address does not give the file.
        FolderError: the folder cannot be written, or has no room.
    """
    return _Download(url, PartFile(folder, file, url), limits or Limits(), check_start, progress).run(sleep)


class _Restart(Exception):  # noqa: N818 (a message between two methods)
    """Rule 2: what is there is of no use; ask for the whole file."""


class _Download:
    def __init__(self, url: str, part: PartFile, limits: Limits, check_start: StartCheck, progress: Progress) -> None:
        self.url, self.part, self.limits = url, part, limits
        self.check_start, self.progress = check_start, progress
        self.notes: list[str] = []
        self.served = False

    def run(self, sleep: Callable[[float], None]) -> Received:
        in_vain = 0
        for _ in range(self.limits.most_attempts):
            before = self.part.size
            try:
                return self._attempt()
            except _Restart as reason:  # rule 2
                self._note(f"{reason}; started over")
                self.part.discard()
                failure = AddressFailure(str(reason), retry="yes")
            except AddressFailure as error:
                failure = error
            in_vain = 0 if self.part.size > before else in_vain + 1
            worth_it = failure.retry == "yes" or (failure.retry == "if served" and self.served)
            if not worth_it or in_vain >= self.limits.attempts:  # rule 4
                break
            sleep(max(self.limits.pause_s * 2 ** max(in_vain - 1, 0), failure.wait_s))
        if not self._can_continue():
            self.part.discard()
            raise failure
        kept = f"{describe_size(self.part.size)} are kept to continue from"
        raise AddressFailure(f"{failure.reason}; {kept}", status=failure.status)

    def _can_continue(self) -> bool:
        origin = self.part.read_origin()
        return origin is not None and bool(origin.validator) and self.part.size > OVERLAP_BYTES

    def _attempt(self) -> Received:
        origin = self.part.read_origin() if self._can_continue() else None
        start = self.part.size - OVERLAP_BYTES if origin else 0
        headers = {"Range": f"bytes={start}-", "If-Range": origin.validator} if origin else {}  # rule 1
        try:
            with open_url(self.url, headers=headers, timeout_s=self.limits.timeout_s) as reply:
                return self._receive(reply, origin, start)
        except AddressFailure as failure:
            if origin and failure.status == 416:
                raise _Restart("the server's file is no longer what it was") from None
            raise

    def _receive(self, reply: Reply, origin: Origin | None, start: int) -> Received:
        total = reply.number("Content-Length")
        if reply.header("Content-Encoding") not in ("", "identity"):
            raise AddressFailure(f"sends the file as {reply.header('Content-Encoding')}, which was not asked for")
        if reply.status == 206 and origin:
            total = self._check_continuation(reply, origin, start)
        elif reply.status == 200:
            if origin:
                changed = _identify(reply, self.url).validator != origin.validator
                self._note(
                    "the server's file has changed since; started over"
                    if changed
                    else "the server does not continue downloads; started over"
                )
            start, origin = 0, None
            self.part.begin(_identify(reply, self.url))
        else:
            raise AddressFailure(f"answers {reply.status}, which was not asked for")
        self._check_size(total)
        if total is not None:
            require_space(self.part.path.parent, total - self.part.size)
        self._copy(reply, start, total)
        self._describe_way(reply)
        if total is None:
            self._note("the server did not say how large the file is")
        return Received(
            self.part,
            self.part.size,
            self.url,
            reply.url,
            reply.header("ETag"),
            reply.header("Last-Modified"),
            tuple(self.notes),
        )

    def _check_continuation(self, reply: Reply, origin: Origin, start: int) -> int:
        """Rule 2; returns the size of the whole file."""
        found = _CONTENT_RANGE.fullmatch(reply.header("Content-Range"))
        if found is None or int(found[1]) != start:
            raise _Restart("the server answered with another part of the file than was asked for")
        whole = int(found[2]) + 1 if found[3] == "*" else int(found[3])
        now = _identify(reply, self.url)
        same = all(
            not new or new == old for new, old in ((now.etag, origin.etag), (now.last_modified, origin.last_modified))
        )
        if not same or (origin.total is not None and whole != origin.total):
            raise _Restart("the server's file has changed since")
        if int(found[2]) + 1 != whole:
            raise _Restart("the server answered with less than the rest of the file")
        return whole

    def _check_size(self, total: int | None) -> None:
        """Rule 3."""
        if total is None:
            return
        if total > self.limits.most_bytes:
            raise AddressFailure(f"offers {describe_size(total)}, more than the file can have")
        if total < self.limits.least_bytes:
            raise AddressFailure(f"offers {describe_size(total)}, less than the file has")

    def _copy(self, reply: Reply, start: int, total: int | None) -> None:
        """Append the body to the part file, whose bytes from `start` on must come again first."""
        repeated = self.part.read_tail(self.part.size - start) if start else b""
        beginning = b""
        done = self.part.size
        pace = _Pace(self.limits)
        with self.part.append() as writer:
            while chunk := self._read(reply, pace):
                self.served = True
                if repeated:  # rule 1
                    share = min(len(repeated), len(chunk))
                    if chunk[:share] != repeated[:share]:
                        raise _Restart("the server's answer does not continue the file")
                    repeated, chunk = repeated[share:], chunk[share:]
                writer.write(chunk)
                done += len(chunk)
                if not start and len(beginning) < _START_BYTES:
                    beginning += chunk[:_START_BYTES]
                    if len(beginning) >= _START_BYTES:
                        self._check_beginning(beginning)
                if done > self.limits.most_bytes:
                    self.part.discard()
                    raise AddressFailure(f"sends more than {describe_size(self.limits.most_bytes)} without end")
                self.progress(done, total)
        if repeated or (total is not None and done < total):  # rule 4
            raise AddressFailure(f"the connection ended after {done} of {total} bytes", retry="yes")
        if not start and len(beginning) < _START_BYTES:
            self._check_beginning(beginning)
        if done < self.limits.least_bytes:
            self.part.discard()
            raise AddressFailure(f"sent {describe_size(done)}, less than the file has")

    def _read(self, reply: Reply, pace: _Pace) -> bytes:
        try:
            chunk = reply.stream.read1(_CHUNK_BYTES)
        except TimeoutError:
            raise AddressFailure("the connection stalled", retry="yes") from None
        except (OSError, http.client.HTTPException) as error:
            raise describe_failure(error) from None
        pace.count(len(chunk))
        return chunk

    def _check_beginning(self, beginning: bytes) -> None:
        """Rule 3."""
        problem = self.check_start(beginning[:_START_BYTES])
        if problem is not None:
            self.part.discard()
            raise AddressFailure(f"what it sends {problem}")

    def _describe_way(self, reply: Reply) -> None:
        asked, final = urlsplit(self.url), urlsplit(reply.url)
        if final.hostname != asked.hostname:
            self._note(f"redirected to {final.hostname}")
        if final.scheme != "https":
            fell = "redirected from https to" if asked.scheme == "https" else "came over"
            self._note(f"{fell} http: nobody vouches that it is the authors' file")

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


class _Pace:
    """Tells a download that crawls from one that runs."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._since_s, self._bytes = time.monotonic(), 0

    def count(self, arrived: int) -> None:
        """Take note of bytes that arrived; raises AddressFailure where too few did."""
        self._bytes += arrived
        passed_s = time.monotonic() - self._since_s
        if passed_s < self._limits.stall_s:
            return
        if self._bytes < self._limits.slowest * passed_s and arrived:
            raise AddressFailure(f"sends only {self._bytes / passed_s:.0f} bytes a second", retry="yes")
        self._since_s, self._bytes = time.monotonic(), 0


def _identify(reply: Reply, url: str) -> Origin:
    etag = reply.header("ETag")
    return Origin(
        url, "" if etag.startswith("W/") else etag, reply.header("Last-Modified"), reply.number("Content-Length")
    )
