"""Downloads from servers that are honest, forgetful, slow, broken and lying."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from atrous.converter.official import part_file
from atrous.converter.official.download import OVERLAP_BYTES, Limits, Received, download
from atrous.converter.official.http_request import AddressFailure
from atrous.errors import FolderError

from . import serving
from .serving import LATER, Route, Site

CONTENT = random.Random(1).randbytes(700_000)
OTHER = random.Random(2).randbytes(700_000)
QUICK = Limits(timeout_s=0.4, stall_s=0.3, pause_s=0.01)
CUT = 300_000


def fetch(url: str, folder: Path, limits: Limits = QUICK, **options: object) -> Received:
    return download(url, folder, "w.caffemodel", limits=limits, sleep=lambda seconds: None, **options)  # type: ignore[arg-type]


def failure(url: str, folder: Path, limits: Limits = QUICK, **options: object) -> AddressFailure:
    with pytest.raises(AddressFailure) as caught:
        fetch(url, folder, limits, **options)
    return caught.value


def leave_part(site: Site, folder: Path, url: str) -> None:
    """What an interrupted download leaves: `CUT` bytes."""
    path = url.rpartition("/")[2]
    site.serve(path, serving.whole(CONTENT, send=CUT))
    failure(url, folder, Limits(timeout_s=0.4, attempts=1, most_attempts=1))
    site.seen.clear()


def test_an_honest_server(site: Site, tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    url = site.serve("w", serving.whole(CONTENT))
    got = fetch(url, tmp_path, progress=lambda done, total: steps.append((done, total)))
    assert hashlib.sha256(got.path.read_bytes()).digest() == hashlib.sha256(CONTENT).digest()
    assert (got.size_bytes, got.etag, got.url, got.final_url) == (len(CONTENT), '"v1"', url, url)
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert steps == sorted(steps)
    assert site.seen[0][2]["Accept-Encoding"] == "identity"
    assert any("nobody vouches" in note for note in got.notes)


@pytest.mark.parametrize("size", [1, 511, 512, 513, OVERLAP_BYTES, OVERLAP_BYTES + 1])
def test_small_sizes(site: Site, tmp_path: Path, size: int) -> None:
    got = fetch(site.serve("w", serving.whole(CONTENT[:size])), tmp_path)
    assert got.path.read_bytes() == CONTENT[:size]


def test_a_broken_connection_is_continued_in_the_same_run(site: Site, tmp_path: Path) -> None:
    url = site.serve("w", serving.in_turn(serving.whole(CONTENT, send=CUT), serving.whole(CONTENT)))
    assert fetch(url, tmp_path).path.read_bytes() == CONTENT
    assert site.ranges() == ["", f"bytes={CUT - OVERLAP_BYTES}-"]
    assert site.seen[1][2]["If-Range"] == '"v1"'


def test_a_connection_that_breaks_again_and_again_still_arrives(site: Site, tmp_path: Path) -> None:
    url = site.serve("w", serving.whole(CONTENT, send=OVERLAP_BYTES + 60_000))
    assert fetch(url, tmp_path).path.read_bytes() == CONTENT
    assert len(site.seen) > QUICK.attempts


def test_an_interrupted_download_is_continued_by_the_next_run(site: Site, tmp_path: Path) -> None:
    url = site.url("w")
    leave_part(site, tmp_path, url)
    site.serve("w", serving.whole(CONTENT))
    steps: list[int] = []
    assert fetch(url, tmp_path, progress=lambda done, total: steps.append(done)).path.read_bytes() == CONTENT
    assert site.ranges() == [f"bytes={CUT - OVERLAP_BYTES}-"]
    assert min(steps) >= CUT


def test_the_date_stands_in_for_a_weak_or_missing_etag(site: Site, tmp_path: Path) -> None:
    for etag in ("", 'W/"v1"'):
        broken, good = serving.whole(CONTENT, etag=etag, send=CUT), serving.whole(CONTENT, etag=etag)
        site.seen.clear()
        assert fetch(site.serve("w", serving.in_turn(broken, good)), tmp_path).path.read_bytes() == CONTENT
        assert site.seen[1][2]["If-Range"] == serving.DATE
        (tmp_path / fetch(site.url("w"), tmp_path).path.name).unlink()


def test_without_anything_to_tell_the_file_by_it_is_started_over(site: Site, tmp_path: Path) -> None:
    broken, good = serving.whole(CONTENT, etag="", date="", send=CUT), serving.whole(CONTENT, etag="", date="")
    assert fetch(site.serve("w", serving.in_turn(broken, good)), tmp_path).path.read_bytes() == CONTENT
    assert site.ranges() == ["", ""]


REST = CONTENT[CUT - OVERLAP_BYTES :]
START = CUT - OVERLAP_BYTES
LAST = len(CONTENT) - 1
LIES = {
    "ignores the range": (serving.whole(CONTENT, ranges=False), "does not continue downloads"),
    "has a changed file, and says so": (serving.whole(OTHER, etag='"v2"', date=LATER), "has changed since"),
    "sends the whole file as the rest": (serving.partial(CONTENT, START, LAST, str(len(CONTENT))), "does not continue"),
    "sends the rest of another file": (
        serving.partial(OTHER[START:], START, LAST, str(len(CONTENT))),
        "does not continue",
    ),
    "sends another part": (serving.partial(CONTENT, 0, LAST, str(len(CONTENT))), "another part of the file"),
    "sends a part without saying which": (serving.status(206, REST), "another part of the file"),
    "sends a part of a larger file": (serving.partial(REST, START, LAST, str(len(CONTENT) + 1)), "has changed since"),
    "sends less than the rest": (
        serving.partial(REST[:-10], START, LAST - 10, str(len(CONTENT))),
        "less than the rest of the file",
    ),
    "sends a part of another version": (
        serving.partial(REST, START, LAST, str(len(CONTENT)), etag='"v2"'),
        "has changed since",
    ),
    "no longer has so many bytes": (serving.status(416, Content_Range="bytes */5"), "no longer what it was"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_about_the_rest_is_noticed(site: Site, tmp_path: Path, lie: str) -> None:
    route, words = LIES[lie]
    url = site.url("w")
    leave_part(site, tmp_path, url)
    truth = OTHER if "changed file" in lie else CONTENT

    def honest_without_range(handler: serving.Handler) -> None:
        (route if handler.headers.get("Range") else serving.whole(truth))(handler)

    site.serve("w", honest_without_range)
    got = fetch(url, tmp_path)
    assert got.path.read_bytes() == truth
    assert any(words in note for note in got.notes), got.notes


def test_a_server_that_never_continues_and_always_breaks_is_given_up(site: Site, tmp_path: Path) -> None:
    error = failure(site.serve("w", serving.whole(CONTENT, ranges=False, send=CUT)), tmp_path)
    assert "ended after 300000 of 700000 bytes; 300.0 kB are kept" in error.reason
    assert len(site.seen) == 1 + QUICK.attempts


def test_a_server_that_never_gets_further_is_given_up(site: Site, tmp_path: Path) -> None:
    error = failure(site.serve("w", serving.whole(CONTENT, send=OVERLAP_BYTES)), tmp_path)
    assert "ended after" in error.reason
    assert len(site.seen) <= 1 + QUICK.attempts


REFUSALS: dict[str, tuple[Route, str, int]] = {
    "404": (serving.status(404), "404 Not Found", 1),
    "403": (serving.status(403), "403 Forbidden", 1),
    "410": (serving.status(410), "410 Gone", 1),
    "599": (serving.status(599), "599 an answer of no known meaning", 1),
    "503": (serving.status(503, Retry_After="0"), "503 Service Unavailable", 3),
    "429": (serving.status(429, Retry_After="nonsense"), "429 Too Many Requests", 3),
    "204": (serving.status(204), "answers 204", 1),
    "206 unasked": (serving.partial(CONTENT, 0, LAST, str(len(CONTENT))), "answers 206", 1),
    "silence": (serving.silence(1.0), "no answer in time", 1),
    "not HTTP": (serving.nonsense, "not HTTP", 1),
    "hangs up": (serving.hang_up, "hung up", 3),
    "circle": (
        lambda handler: handler.answer(302, {"Location": handler.path, "Content-Length": "0"}, b""),
        "circles",
        0,
    ),
    "to a file": (serving.redirect("file:///etc/passwd"), "no web address", 1),
    "to ftp": (serving.redirect("ftp://127.0.0.1/w"), "no web address", 1),
    "to nowhere": (serving.status(302), "no web address", 1),
    "packed": (serving.status(200, CONTENT, Content_Encoding="gzip"), "as gzip", 1),
    "empty": (serving.status(200), "less than the file has", 1),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_no_file_costs_a_line(site: Site, tmp_path: Path, name: str) -> None:
    route, words, requests = REFUSALS[name]
    error = failure(site.serve("w", route), tmp_path)
    assert words in error.reason
    assert "\n" not in error.reason
    assert not list(tmp_path.iterdir())
    assert len(site.seen) == requests or not requests


def test_hosts_that_are_not_there(tmp_path: Path, site: Site) -> None:
    closed = site.port
    site_gone = f"http://127.0.0.1:{closed}/w"
    assert "no such host" in failure("http://no-such-host.invalid/w", tmp_path).reason
    assert failure("http://[::1/w", tmp_path).reason
    assert failure("http://127.0.0.1:99999/w", tmp_path).reason
    assert "404" in failure(site_gone, tmp_path).reason


def test_a_port_that_nobody_listens_at(tmp_path: Path) -> None:
    with serving.running_site() as gone:
        url = gone.url("w")
    assert "refuses the connection" in failure(url, tmp_path).reason


def test_https_to_a_plain_server(site: Site, tmp_path: Path) -> None:
    error = failure(site.serve("w", serving.whole(CONTENT)).replace("http:", "https:"), tmp_path)
    assert "no secure connection" in error.reason


def test_redirects_are_followed_and_reported(site: Site, tmp_path: Path) -> None:
    site.serve("new", serving.whole(CONTENT))
    got = fetch(site.serve("old", serving.redirect(site.url("new", host="localhost"), 301)), tmp_path)
    assert got.path.read_bytes() == CONTENT
    assert got.final_url == site.url("new", host="localhost")
    assert "redirected to localhost" in got.notes


def test_a_long_chain_of_redirects_is_refused(site: Site, tmp_path: Path) -> None:
    for step in range(12):
        site.serve(f"r{step}", serving.redirect(site.url(f"r{step + 1}")))
    assert "circles" in failure(site.url("r0"), tmp_path).reason
    assert len(site.seen) <= 7


@pytest.mark.parametrize("complete", [True, False])
def test_chunks(site: Site, tmp_path: Path, complete: bool) -> None:
    url = site.serve("w", serving.chunked(CONTENT, complete=complete))
    if complete:
        got = fetch(url, tmp_path)
        assert got.path.read_bytes() == CONTENT
        assert "the server did not say how large the file is" in got.notes
    else:
        assert "ended too soon" in failure(url, tmp_path).reason


def test_a_body_that_ends_with_the_connection(site: Site, tmp_path: Path) -> None:
    got = fetch(site.serve("w", serving.until_close(CONTENT)), tmp_path)
    assert got.path.read_bytes() == CONTENT
    assert "the server did not say how large the file is" in got.notes


def test_a_stalled_body_is_taken_up_again(site: Site, tmp_path: Path) -> None:
    url = site.serve("w", serving.in_turn(serving.stall(CONTENT, CUT, 1.0), serving.whole(CONTENT, date="")))
    assert fetch(url, tmp_path).path.read_bytes() == CONTENT
    assert site.ranges() == ["", f"bytes={CUT - OVERLAP_BYTES}-"]


def test_a_crawling_body_is_given_up(site: Site, tmp_path: Path) -> None:
    limits = Limits(timeout_s=0.4, stall_s=0.15, pause_s=0.01, slowest=10_000, attempts=1, most_attempts=2)
    error = failure(site.serve("w", serving.trickle(CONTENT, 0.01)), tmp_path, limits)
    assert "bytes a second" in error.reason


def test_sizes_that_cannot_be_right_are_refused_unread(site: Site, tmp_path: Path) -> None:
    steps: list[int] = []
    for limits, words in (
        (Limits(most_bytes=600_000), "offers 700.0 kB, more than"),
        (Limits(least_bytes=800_000), "offers 700.0 kB, less than"),
    ):
        error = failure(
            site.serve("w", serving.whole(CONTENT)), tmp_path, limits, progress=lambda done, total: steps.append(done)
        )
        assert words in error.reason
    assert not steps


def test_a_body_without_end_is_cut_off(site: Site, tmp_path: Path) -> None:
    limits = Limits(timeout_s=0.4, most_bytes=400_000)
    assert "without end" in failure(site.serve("w", serving.chunked(CONTENT)), tmp_path, limits).reason
    limits = Limits(timeout_s=0.4, least_bytes=800_000)
    assert "sent 700.0 kB, less" in failure(site.serve("w", serving.chunked(CONTENT)), tmp_path, limits).reason
    assert not list(tmp_path.iterdir())


def test_the_first_bytes_are_looked_at_before_the_rest_is_read(site: Site, tmp_path: Path) -> None:
    starts: list[bytes] = []

    def check(start: bytes) -> str | None:
        starts.append(start)
        return "is a page"

    error = failure(site.serve("w", serving.page(size=10_000_000)), tmp_path, check_start=check)
    assert error.reason == "what it sends is a page"
    assert [len(start) for start in starts] == [512]
    assert not list(tmp_path.iterdir())


def test_parts_of_two_addresses_do_not_mix(site: Site, tmp_path: Path) -> None:
    leave_part(site, tmp_path, site.url("w"))
    got = fetch(site.serve("mirror", serving.whole(OTHER)), tmp_path)
    assert got.path.read_bytes() == OTHER
    assert site.ranges() == [""]
    site.serve("w", serving.whole(CONTENT))
    assert fetch(site.url("w"), tmp_path).path.read_bytes() == CONTENT
    assert site.ranges()[-1]


@pytest.mark.parametrize(
    "note",
    ["", "{", "[]", '{"url": 1}', '{"url": "http://other/", "etag": "", "last_modified": "", "total": 1}'],
)
def test_a_note_that_cannot_be_used_starts_over(site: Site, tmp_path: Path, note: str) -> None:
    url = site.url("w")
    leave_part(site, tmp_path, url)
    (sidecar,) = tmp_path.glob("*.json")
    sidecar.write_text(note)
    site.serve("w", serving.whole(CONTENT))
    assert fetch(url, tmp_path).path.read_bytes() == CONTENT
    assert site.ranges() == [""]


def test_a_header_cannot_be_smuggled_in_by_the_note(site: Site, tmp_path: Path) -> None:
    url = site.url("w")
    leave_part(site, tmp_path, url)
    (sidecar,) = tmp_path.glob("*.json")
    sidecar.write_text(sidecar.read_text().replace('\\"v1\\"', "x\\r\\nEvil: 1"))
    site.serve("w", serving.whole(CONTENT))
    assert fetch(url, tmp_path).path.read_bytes() == CONTENT
    assert "Evil" not in site.seen[0][2]


def test_a_tampered_part_is_not_continued(site: Site, tmp_path: Path) -> None:
    url = site.url("w")
    leave_part(site, tmp_path, url)
    (part,) = tmp_path.glob("*.part")
    part.write_bytes(part.read_bytes()[:-1] + b"!")
    site.serve("w", serving.whole(CONTENT))
    assert fetch(url, tmp_path).path.read_bytes() == CONTENT


def test_a_full_disk_is_not_the_servers_fault(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(part_file.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(FolderError, match=r"700\.0 kB are needed and 1\.0 kB are free"):
        fetch(site.serve("w", serving.whole(CONTENT)), tmp_path)


def test_a_folder_that_cannot_be_written(site: Site, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="cannot be written"):
        fetch(site.serve("w", serving.whole(CONTENT)), tmp_path / "missing")


def test_a_folder_is_used_by_one_at_a_time(tmp_path: Path) -> None:
    with (
        part_file.lock_folder(tmp_path),
        pytest.raises(FolderError, match="another atrous fetch"),
        part_file.lock_folder(tmp_path),
    ):
        pass
    with part_file.lock_folder(tmp_path):
        pass
