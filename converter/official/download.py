"""Download one file from one address with httpx, under deadlines, in as many requests as it takes.

1. The response headers must arrive within `timeout_s`, including the connection, redirects and `100 Continue`.
2. Every `WINDOW_S` must bring `WINDOW_BYTES` of the body, or its end.
3. An attempt that ends early is continued by `Range` and `If-Range`, in the same run and in a later one: the part file
   stays. A response that does not continue the part file starts the download over.
4. A size outside of the given range is rejected. Redirects lead to http and https only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import httpx
from anyio import current_time, fail_after
from anyio import run as run_async
from rich.filesize import decimal

from ... import __version__
from ...printable import clean

WINDOW_S, WINDOW_BYTES = 60.0, 60_000
MAX_ATTEMPTS, PAUSE_S = 20, 1.0
MAX_REDIRECTS = 5
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)


class AddressError(Exception):
    """An address does not give the file; the message does not repeat the address. Never leaves this package."""


@dataclass(frozen=True)
class Download:
    """A file at an address."""

    url: str
    part: Path  # receives the file; a note beside it holds the ETag or date of the server's file
    size_range: tuple[int, int]  # least and largest size in bytes
    timeout_s: float
    progress: Callable[[int, int | None], None] = lambda done, total: None  # bytes received, and in all if known

    def run(self) -> str:
        """Complete the part file; returns the address that redirects led to.

        Raises AddressError for the address, and OSError for the part file.
        """
        for _ in range(MAX_ATTEMPTS):
            before = self._size()
            try:
                return run_async(self._attempt)
            except AddressError as error:
                failure = error
            if self._size() == before:
                break
            time.sleep(PAUSE_S)
        if size := self._size():
            raise AddressError(f"{failure}; {decimal(size)} are kept for the next run")
        self.discard()
        raise failure

    def discard(self) -> None:
        """Remove the part file."""
        self.part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    @property
    def _note(self) -> Path:
        return self.part.with_name(f"{self.part.name}.note")

    def _validator(self) -> str:
        """The value of `If-Range`; empty if the server's file could not be identified."""
        text = self._note.read_text("latin-1") if self._note.is_file() else ""
        return text if text.isascii() and text.isprintable() else ""

    def _size(self) -> int:
        """Bytes that can be continued."""
        return self.part.stat().st_size if self._validator() and self.part.is_file() else 0

    async def _attempt(self) -> str:
        try:
            unopened = httpx.AsyncClient(timeout=None)  # the deadlines here cover more than httpx's
        except (ImportError, OSError, ValueError) as error:
            raise AddressError(f"invalid proxy or certificate in the environment ({clean(str(error))})") from None
        late = f"no response within {self.timeout_s:g} s"
        try:
            async with unopened as client:
                with fail_after(self.timeout_s):
                    response = await self._open(client)
                late = f"less than {decimal(WINDOW_BYTES)} within {WINDOW_S:g} s"
                async with aclosing(response):
                    await self._receive(response)
                return clean(str(response.url))
        except TimeoutError:
            raise AddressError(late) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise AddressError(clean(str(error)) or type(error).__name__) from None

    async def _open(self, client: httpx.AsyncClient) -> httpx.Response:
        """Send the request and follow redirects; no body is read."""
        headers = {"User-Agent": f"atrous/{__version__}", "Accept-Encoding": "identity"}
        if size := self._size():  # the last byte comes twice, so that a complete file has a continuation too
            headers |= {"Range": f"bytes={size - 1}-", "If-Range": self._validator()}
        request = client.build_request("GET", self.url, headers=headers)
        for _ in range(MAX_REDIRECTS + 1):
            if request.url.scheme not in ("http", "https") or (request.url.port or 0) > 0xFFFF:
                raise AddressError(f"leads to {clean(str(request.url))}, which is not a web address")
            response = await client.send(request, stream=True)
            if response.next_request is None:
                return response
            await response.aclose()
            request = response.next_request
        raise AddressError(f"more than {MAX_REDIRECTS} redirects, the last to {clean(str(request.url))}")

    async def _receive(self, response: httpx.Response) -> None:
        """Write the body to the part file, or append it."""
        status, headers, size = response.status_code, response.headers, self._size()
        if status not in (200, 206, 416) or (status != 200 and not size):
            raise AddressError(f"HTTP status {status} {httpx.codes.get_reason_phrase(status)}".strip())
        if (encoding := headers.get("Content-Encoding", "identity")).lower() != "identity":
            raise AddressError(f"the response is compressed ({clean(encoding, 40)}), which was not requested")
        if status == 200:
            done, total = 0, int(headers["Content-Length"]) if "Content-Length" in headers else None
            self.part.write_bytes(b"")
            self._note.write_text(_identify(response), "ascii", "replace")
        else:
            found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
            done, last, total = (int(number) for number in found.groups()) if found else (-1, -1, -1)
            if (done, last + 1) != (size - 1, total) or _identify(response) not in ("", self._validator()):
                self.discard()
                raise AddressError("the response does not continue the interrupted download")
        least, most = self.size_range
        expected = f"expected {decimal(least)} to {decimal(most)}"
        if total is not None and not least <= total <= most:
            self.discard()
            raise AddressError(f"offers {decimal(total)}; {expected}")
        with self.part.open("r+b") as file, fail_after(WINDOW_S) as window:
            file.truncate(file.seek(done))
            arrived = 0
            async for chunk in response.aiter_raw():
                done += file.write(chunk)
                arrived += len(chunk)
                if done > most:
                    break
                if arrived >= WINDOW_BYTES:
                    window.deadline, arrived = current_time() + WINDOW_S, 0
                self.progress(done, total)
        if not least <= done <= most or done != (total or done):
            self.discard()
            raise AddressError(f"sends {decimal(done)}; {expected if total is None else f'announced {decimal(total)}'}")


def _identify(response: httpx.Response) -> str:
    """The strong ETag of a response, or its date; empty if it has neither."""
    etag = str(response.headers.get("ETag", ""))
    return etag if etag and not etag.startswith("W/") else str(response.headers.get("Last-Modified", ""))
