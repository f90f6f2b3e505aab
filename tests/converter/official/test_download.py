"""Downloads from servers that are correct, slow, broken and lying."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest

from atrous.converter.official import download as module
from atrous.converter.official.download import AddressError, Download

from . import serving
from .serving import LATER, Route, Site

CONTENT = random.Random(1).randbytes(700_000)
OTHER = random.Random(2).randbytes(700_000)
CUT = 300_000
LAST = len(CONTENT) - 1


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / ".w.part"


def fetch(url: str, part: Path, size_range: tuple[int, int] = (1, 10_000_000), timeout_s: float = 0.6) -> bytes:
    Download(url, part, size_range, timeout_s).run()
    return part.read_bytes()


def failure(url: str, part: Path, size_range: tuple[int, int] = (1, 10_000_000), timeout_s: float = 0.6) -> str:
    with pytest.raises(AddressError) as caught:
        fetch(url, part, size_range, timeout_s)
    text = str(caught.value)
    assert text.isprintable()
    return text


def interrupt(site: Site, part: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Leave the first `CUT` bytes of a file, as an interrupted run does; returns the address."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "MAX_ATTEMPTS", 1)
        url = site.serve("w", serving.whole(CONTENT, send=CUT))
        assert "300.0 kB are kept for the next run" in failure(url, part)
    site.seen.clear()
    return url


@pytest.mark.parametrize("size", [1, 2, len(CONTENT)])
def test_a_correct_server(site: Site, part: Path, size: int) -> None:
    steps: list[tuple[int, int | None]] = []
    url = site.serve("w", serving.whole(CONTENT[:size]))
    final = Download(url, part, (1, size), 1.0, lambda done, total: steps.append((done, total))).run()
    assert (final, part.read_bytes()) == (url, CONTENT[:size])
    assert steps[-1] == (size, size)
    assert steps == sorted(steps)
    assert site.seen[0][2]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("etag", ['"v1"', "", 'W/"v1"'])
def test_a_broken_connection_is_resumed_in_the_same_run(site: Site, part: Path, etag: str) -> None:
    """By the ETag, or by the date if there is none or only a weak one."""
    broken, good = serving.whole(CONTENT, etag=etag, send=CUT), serving.whole(CONTENT, etag=etag)
    assert fetch(site.serve("w", serving.in_turn(broken, good)), part) == CONTENT
    assert site.ranges() == ["", f"bytes={CUT - 1}-"]
    assert site.seen[1][2]["If-Range"] == ('"v1"' if etag == '"v1"' else serving.DATE)


def test_a_connection_that_breaks_repeatedly(site: Site, part: Path) -> None:
    assert fetch(site.serve("w", serving.whole(CONTENT, send=100_000)), part) == CONTENT
    assert len(site.seen) == 8


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_without_progress_is_left(site: Site, part: Path, ranges: bool) -> None:
    """It sends the repeated byte alone, or the same beginning every time."""
    url = site.serve("w", serving.whole(CONTENT, send=1 if ranges else CUT, ranges=ranges))
    assert "are kept for the next run" in failure(url, part) or ranges
    assert len(site.seen) == 2


def test_the_number_of_attempts_is_limited(site: Site, part: Path) -> None:
    failure(site.serve("w", serving.whole(CONTENT, send=2)), part)
    assert len(site.seen) == module.MAX_ATTEMPTS


def test_an_interrupted_download_is_resumed_by_the_next_run(
    site: Site, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = interrupt(site, part, monkeypatch)
    site.serve("w", serving.whole(CONTENT))
    assert fetch(url, part) == CONTENT
    assert site.ranges() == [f"bytes={CUT - 1}-"]


def test_a_complete_part_file_costs_one_byte(site: Site, part: Path) -> None:
    url = site.serve("w", serving.whole(CONTENT))
    assert fetch(url, part) == fetch(url, part) == CONTENT
    assert site.ranges() == ["", f"bytes={LAST}-"]


def test_a_file_that_cannot_be_identified_starts_over(site: Site, part: Path) -> None:
    broken = serving.whole(CONTENT, etag="", date="", send=CUT)
    failure(site.serve("w", broken), part)
    assert not part.exists()
    assert fetch(site.serve("w", serving.whole(CONTENT, etag="", date="")), part) == CONTENT
    assert site.ranges() == ["", ""]


REST = CONTENT[CUT - 1 :]
LIES = {
    "ignores the range": serving.whole(CONTENT, ranges=False),
    "has a changed file": serving.whole(OTHER, etag='"v2"', date=LATER),
    "sends the whole file as another part": serving.partial(CONTENT, 0, LAST, str(len(CONTENT))),
    "does not state the part": serving.status(206, REST),
    "does not state the size": serving.partial(REST, CUT - 1, LAST, "*"),
    "sends less than the rest": serving.partial(REST[:-10], CUT - 1, LAST - 10, str(len(CONTENT))),
    "sends more than it states": serving.partial(REST + b"!", CUT - 1, LAST, str(len(CONTENT))),
    "sends a part of another version": serving.partial(REST, CUT - 1, LAST, str(len(CONTENT)), etag='"v2"'),
    "has a shorter file": serving.status(416, Content_Range="bytes */5"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_response_that_does_not_continue_the_file_starts_it_over(
    site: Site, part: Path, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    url, truth = interrupt(site, part, monkeypatch), OTHER if "changed" in lie else CONTENT

    def route(handler: serving.Handler) -> None:
        (LIES[lie] if handler.headers.get("Range") else serving.whole(truth))(handler)

    site.serve("w", route)
    assert fetch(url, part) == truth
    assert site.seen[0][2]["If-Range"] == '"v1"'


@pytest.mark.parametrize("note", ["", "x\r\nEvil: 1", "\x1b[31m", "ÿ", '"v0"'])
def test_a_damaged_note_starts_over(site: Site, part: Path, monkeypatch: pytest.MonkeyPatch, note: str) -> None:
    url = interrupt(site, part, monkeypatch)
    part.with_name(".w.part.note").write_text(note, "latin-1")
    site.serve("w", serving.whole(CONTENT))
    assert fetch(url, part) == CONTENT
    assert "Evil" not in site.seen[0][2]


def _answer(*lines: str) -> Route:
    return serving.raw("\r\n".join(("HTTP/1.1 200 OK", *lines, "", "")).encode("latin-1"))


REFUSALS: dict[str, tuple[Route, str]] = {
    "404": (serving.status(404), "HTTP status 404 Not Found"),
    "503": (serving.status(503, Retry_After="9999"), "HTTP status 503 Service Unavailable"),
    "unknown status": (serving.status(599), "HTTP status 599"),
    "204": (serving.status(204), "HTTP status 204 No Content"),
    "206 without a request for it": (serving.partial(CONTENT, 0, LAST, str(len(CONTENT))), "HTTP status 206"),
    "not HTTP": (serving.raw(b"220 ftp.example ready\r\n\r\n"), "illegal status line"),
    "no response": (serving.raw(b""), "without sending a response"),
    "redirect to itself": (lambda handler: serving.redirect(handler.path)(handler), "more than 5 redirects"),
    "redirect to a file": (serving.redirect("file:///etc/passwd"), "leads to file://"),
    "redirect to ftp": (serving.redirect("ftp://127.0.0.1/w"), "leads to ftp://127.0.0.1/w"),
    "redirect to an invalid address": (serving.redirect("http://[::1/w"), "Invalid URL"),
    "redirect with an escape sequence": (serving.redirect("http://127.0.0.1/\x1b[31m"), "Invalid URL"),
    "redirect to a port out of range": (
        serving.redirect("http://127.0.0.1:99999/"),
        "leads to http://127.0.0.1:99999/",
    ),
    "redirect to a long host name": (serving.redirect(f"http://{'a' * 70}/"), ""),
    "redirect to nowhere": (serving.status(302), "HTTP status 302 Found"),
    "compressed": (serving.status(200, CONTENT, Content_Encoding="gzip\x1b[31m"), "compressed (gzip\\x1b[31m)"),
    "invalid length": (_answer("Content-Length: -5"), "Content-Length"),
    "empty": (serving.status(200), "expected 1 byte to 10.0 MB"),
    "too many headers": (_answer(*(f"X-{i}: {'x' * 1000}" for i in range(200))), "too"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_an_address_that_does_not_give_the_file(site: Site, part: Path, name: str) -> None:
    route, words = REFUSALS[name]
    text = failure(site.serve("w", route), part)
    assert words in text
    assert not list(part.parent.iterdir())


def test_a_strange_etag_is_not_sent_back(site: Site, part: Path) -> None:
    head = 'HTTP/1.1 200 OK\r\nContent-Length: 9\r\nETag: "\u2603\x1b"\r\n\r\n12345'.encode()
    url = site.serve("w", serving.in_turn(serving.raw(head), serving.whole(b"123456789")))
    failure(url, part)
    assert not part.exists()
    assert fetch(url, part) == b"123456789"
    assert site.ranges() == ["", ""]


def test_hosts_that_are_missing(part: Path) -> None:
    with serving.running_site() as gone:
        closed = gone.url("w")
    for url in (closed, "http://no-such-host.invalid/w", "http://[::1/w", "http://127.0.0.1:99999/w"):
        assert failure(url, part)


@pytest.mark.parametrize(
    ("name", "value"), [("ALL_PROXY", "socks5://127.0.0.1:9"), ("HTTP_PROXY", "ftp://x"), ("SSL_CERT_FILE", "/missing")]
)
def test_invalid_settings_in_the_environment(
    part: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "socksio", None)
    assert "invalid proxy or certificate in the environment" in failure("http://127.0.0.1:9/", part)


def test_https_to_a_plain_server(site: Site, part: Path) -> None:
    assert "SSL" in failure(site.serve("w", serving.whole(CONTENT)).replace("http:", "https:"), part)


def test_a_redirect_is_followed_and_its_body_is_not_read(site: Site, part: Path) -> None:
    url = site.serve("new", serving.whole(CONTENT))
    location = site.url("new", host="localhost")
    head = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\n\r\n"
    old = site.serve("old", serving.drip(head.encode(), b"x" * 1000))
    assert Download(old, part, (1, 10_000_000), 1.0).run() == location != url
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("route", [serving.chunked(CONTENT), serving.until_close(CONTENT)])
def test_a_body_without_a_stated_length(site: Site, part: Path, route: Route) -> None:
    assert fetch(site.serve("w", route), part) == CONTENT


def test_truncated_chunks(site: Site, part: Path) -> None:
    assert "incomplete chunked read" in failure(site.serve("w", serving.chunked(CONTENT, complete=False)), part)


LATE_HEADERS = {
    "no response": serving.silence,
    "endless 100 Continue": serving.drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "slow status line": serving.drip(b"HTTP/1.1 2", b"0"),
    "slow headers": serving.drip(b"HTTP/1.1 200 OK\r\n", b"X: 1\r\n"),
    "slow redirects": lambda handler: (time.sleep(0.2), serving.redirect(handler.path)(handler))[1],
}
SLOW_BODIES = {
    "stall": serving.stall(CONTENT, CUT),
    "byte by byte": serving.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 700000\r\n\r\n", b"x"),
    "slow chunk size": serving.drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    "slow chunk extension": serving.drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x", b"x"),
    "tiny chunks": serving.drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "slow end": serving.drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: 1\r\n"),
}


@pytest.mark.parametrize("name", [*LATE_HEADERS, *SLOW_BODIES])
def test_every_wait_has_a_deadline(site: Site, part: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ATTEMPTS", 1)
    started = time.monotonic()
    text = failure(site.serve("w", {**LATE_HEADERS, **SLOW_BODIES}[name]), part, timeout_s=0.5)
    assert time.monotonic() - started < 2.0
    headers_late, body_slow = "no response within 0.5 s", "less than 60.0 kB within 0.4 s"
    assert text.startswith(headers_late if name in LATE_HEADERS else body_slow)


def test_a_stalled_body_is_resumed(site: Site, part: Path) -> None:
    url = site.serve("w", serving.in_turn(serving.stall(CONTENT, CUT), serving.whole(CONTENT, date="")))
    assert fetch(url, part) == CONTENT
    assert site.ranges() == ["", f"bytes={CUT - 1}-"]


def test_a_steady_body_may_take_longer_than_the_window(site: Site, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_BYTES", 5)
    with monkeypatch.context() as patch:
        patch.setattr(serving, "_LONG_S", 1.2)
        started = time.monotonic()
        fetch(site.serve("w", serving.drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x")), part)
    assert time.monotonic() - started > 1.0


@pytest.mark.parametrize("size_range", [(1, 600_000), (800_000, 900_000)])
@pytest.mark.parametrize("route", [serving.whole(CONTENT), serving.chunked(CONTENT)])
def test_implausible_sizes_are_rejected(site: Site, part: Path, route: Route, size_range: tuple[int, int]) -> None:
    text = failure(site.serve("w", route), part, size_range)
    assert text.startswith(("offers 700.0 kB; expected", "sends "))
    assert not list(part.parent.iterdir())


def test_a_folder_that_cannot_be_written(site: Site, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        fetch(site.serve("w", serving.whole(CONTENT)), tmp_path / "missing" / "part")


def test_an_exception_of_the_progress_function_keeps_the_part_file(site: Site, part: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    url = site.serve("w", serving.whole(CONTENT))
    with pytest.raises(KeyboardInterrupt):
        Download(url, part, (1, 10_000_000), 1.0, stop).run()
    assert 0 < part.stat().st_size < len(CONTENT) or sys.platform == "darwin"
    assert fetch(url, part) == CONTENT
    assert site.ranges()[-1].startswith("bytes=")
