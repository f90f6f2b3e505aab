"""One HTTP request, and every way it fails in words.

The standard library is enough for what is asked here, and it is always there. Redirects are followed to http and https
only, at most `MAX_REDIRECTS`, and remembered, so that the caller can say where a file really came from.
"""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from typing import IO, Any, Literal
from urllib.parse import urlsplit

from ... import __version__

MAX_REDIRECTS = 5
#: answers of a server that may think otherwise in a moment
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_WAIT_S = 30.0

Retry = Literal["yes", "if served", "no"]


class AddressFailure(Exception):  # noqa: N818 (it never leaves this package: the errors are in converter.errors)
    """An address did not give the file.

    Attributes:
        reason: for people, without the address.
        retry: whether another try is worth it: `yes`, `if served` (the address has sent something in this run, so that
            it is the connection that went away), or `no`.
        status: of the answer, or 0.
        wait_s: how long the server asks to wait.
    """

    def __init__(self, reason: str, *, retry: Retry = "no", status: int = 0, wait_s: float = 0.0) -> None:
        self.reason, self.retry, self.status, self.wait_s = reason, retry, status, wait_s
        super().__init__(reason)


@dataclass(frozen=True)
class Reply:
    """An answer of a server.

    Attributes:
        status: 200, 206, ...
        url: where it came from in the end.
        headers: of the answer.
        stream: its body; `read1` gives what is there.
    """

    status: int
    url: str
    headers: Message
    stream: http.client.HTTPResponse

    def header(self, name: str) -> str:
        """A header, or the empty text."""
        return str(self.headers.get(name, "")).strip()

    def number(self, name: str) -> int | None:
        """A header that is a count, or None."""
        text = self.header(name)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


@contextmanager
def open_url(
    url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float, method: str = "GET"
) -> Iterator[Reply]:
    """Ask a server for something.

    Args:
        url: http or https.
        headers: beside `User-Agent`, and `Accept-Encoding: identity`, since bytes are counted.
        timeout_s: for the connection and for each wait for bytes.
        method: GET or HEAD.

    Raises:
        AddressFailure: no answer, or one that is no success.
    """
    own = {"User-Agent": f"atrous/{__version__}", "Accept-Encoding": "identity", **(headers or {})}
    try:
        request = urllib.request.Request(url, headers=own, method=method)
        reply = urllib.request.build_opener(_Redirects).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(error.code, error.headers) from None
    except urllib.error.URLError as error:
        raise describe_failure(error.reason) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise describe_failure(error) from None
    with reply:
        yield Reply(reply.status, reply.geturl(), reply.headers, reply)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https, never to a file or another scheme."""

    max_redirections = MAX_REDIRECTS
    inf_msg = ""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The request that follows."""
        if urlsplit(newurl).scheme not in ("http", "https"):
            fp.close()
            raise AddressFailure(f"redirects to {newurl}, which is no web address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refusal(status: int, headers: Any) -> AddressFailure:
    if 300 <= status < 400:
        location = headers.get("Location") if headers is not None else None
        where = f" (last to {location})" if location else ""
        return AddressFailure(f"redirects in circles, or to no web address{where}", status=status)
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "an answer of no known meaning"
    wait = headers.get("Retry-After", "") if headers is not None else ""
    wait_s = min(float(wait), _MAX_WAIT_S) if wait.isascii() and wait.isdigit() and len(wait) < 9 else 0.0
    return AddressFailure(
        f"{status} {phrase}", retry="yes" if status in _PASSING else "no", status=status, wait_s=wait_s
    )


def describe_failure(error: object) -> AddressFailure:
    """A failure of the connection, in words."""
    if isinstance(error, socket.gaierror):
        return AddressFailure("no such host, or no network", retry="if served")
    if isinstance(error, ssl.SSLCertVerificationError):
        return AddressFailure(f"the server's certificate is not to be trusted ({error.verify_message})")
    if isinstance(error, ssl.SSLError):
        return AddressFailure(f"no secure connection ({error.reason or error})")
    if isinstance(error, TimeoutError):
        return AddressFailure("no answer in time", retry="if served")
    if isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError):
        return AddressFailure("the server hung up", retry="yes")
    if isinstance(error, http.client.IncompleteRead):
        return AddressFailure("the answer ended too soon", retry="yes")
    if isinstance(error, http.client.HTTPException):
        return AddressFailure(f"the answer is not HTTP ({type(error).__name__})")
    if isinstance(error, ConnectionRefusedError):
        return AddressFailure("the host refuses the connection", retry="if served")
    if isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return AddressFailure("the host cannot be reached", retry="if served")
    return AddressFailure(str(error) or type(error).__name__, retry="if served")
