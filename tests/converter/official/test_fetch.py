"""A model's whole path into its folder: from servers, archives and files."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atrous.converter import read_net
from atrous.converter.official import download
from atrous.converter.official import fetch as module
from atrous.errors import ChangedFileError, DownloadError, FetchError

from . import serving
from .serving import Site
from .tiny import MEMBER, WHOLE, fetch, make_catalogue, make_zip, names, write_weights

pytestmark = pytest.mark.usefixtures("tiny_nets")

ZIPPED = {"file": "prototxt_and_model.zip", "member": MEMBER, "size_bytes": None}


def test_the_folder_and_its_record(site: Site, folder: Path, weights: bytes) -> None:
    url = site.serve("w.caffemodel", serving.whole(weights))
    state, returned = fetch(make_catalogue(url), folder)
    assert (state, names(folder)) == ("fetched", WHOLE)
    assert (folder / "tiny.caffemodel").read_bytes() == weights
    record = json.loads((folder / "model.json").read_text())
    assert record == returned.model_dump(mode="json")
    expected = {"schema_version": 1, "name": "tiny", "title": "Tiny", "role": "segmentation", "scale": 1.0}
    assert {key: record[key] for key in expected} == expected
    assert record["classes"] == ["background", "a", "b", "c", "d"]
    assert record["palette"][1] == [9, 0, 0]
    assert (record["mean"], record["minimum_size"]) == ([104.008, 116.669, 122.675], [33, 33])
    assert record["crf"]["bilateral"] == [{"sxy": 121, "srgb": 5, "weight": 4}]
    file = record["weights"]
    assert file["sha256"] == hashlib.sha256(weights).hexdigest() == file["download_sha256"]
    assert (file["origin"], file["size_bytes"], file["url"]) == ("downloaded", len(weights), url)
    assert record["prototxt"]["origin"] == "written"
    assert record["notes"] == ["downloaded over plain HTTP; authenticity cannot be checked"]
    assert read_net(folder / "tiny.prototxt", folder / "tiny.caffemodel").warnings == ()


WRONG: dict[str, Callable[[bytes], serving.Route]] = {
    "404": lambda weights: serving.status(404),
    "an HTML page": lambda weights: serving.page(size=1000),
    "a login page after a redirect": lambda weights: serving.in_turn(
        serving.redirect("/bad/tiny.caffemodel"), serving.page(size=1000)
    ),
    "an LFS pointer": lambda weights: serving.whole(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 82021716\n".ljust(500)
    ),
    "half of it, as if complete": lambda weights: serving.whole(weights[: len(weights) // 2 + 100]),
    "a zip file without it": lambda weights: serving.whole(make_zip({"w": weights}, zipfile.ZIP_STORED)),
    "random bytes": lambda weights: serving.whole(bytes(range(1, 256)) * 4),
    "zeros": lambda weights: serving.whole(bytes(1000)),
    "something far too small": lambda weights: serving.whole(weights[:20]),
    "something far too large": lambda weights: serving.whole(weights * 100),
    "nothing": lambda weights: serving.silence,
}


@pytest.mark.parametrize("what", WRONG)
def test_an_address_that_gives_something_else_costs_a_line(site: Site, folder: Path, weights: bytes, what: str) -> None:
    bad = site.serve("bad/tiny.caffemodel", WRONG[what](weights))
    good = site.serve("good/tiny.caffemodel", serving.whole(weights))
    with pytest.raises(DownloadError) as caught:
        fetch(make_catalogue(bad), folder)
    assert caught.value.exit_code == 1
    first, line, last = str(caught.value).splitlines()
    assert first == "tiny: no address gave w.caffemodel (1.2 kB)"
    assert line.startswith(f"  {bad}: ")
    assert last == "If you find the file by hand (begin at http://models.invalid/): atrous fetch tiny --from FILE"
    assert not folder.exists()
    _, record = fetch(make_catalogue(bad, good), folder)
    assert (folder / "tiny.caffemodel").read_bytes() == weights
    assert names(folder) == WHOLE
    assert any(note.startswith(bad) for note in record.notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": 6}, "has 6 classes, that of Tiny has 5"),
        ({"outputs": 5}, "it is not Tiny: the file does not hold"),
        ({"value": float("nan")}, "not finite"),
        ({"labels": 0}, "no classifier"),
    ],
)
def test_weights_of_another_model_are_rejected(
    site: Site, tmp_path: Path, folder: Path, changes: dict[str, Any], words: str
) -> None:
    url = site.serve("w", serving.whole(write_weights(tmp_path / "x.caffemodel", **changes)))
    with pytest.raises(DownloadError, match=f"/w: .*{words}"):
        fetch(make_catalogue(url), folder)
    assert not folder.exists()


def test_a_required_checksum(site: Site, folder: Path, weights: bytes, other: bytes) -> None:
    bad, good = site.serve("bad", serving.whole(other)), site.serve("good", serving.whole(weights))
    sha256 = hashlib.sha256(weights).hexdigest()
    fetch(make_catalogue(bad, good, sha256=sha256), folder)
    assert (folder / "tiny.caffemodel").read_bytes() == weights
    with pytest.raises(DownloadError, match=f"must be {sha256}"):
        fetch(make_catalogue(bad, sha256=sha256), folder.with_name("elsewhere"))


def test_all_addresses_are_listed_with_the_models_page(site: Site, folder: Path) -> None:
    urls = [site.url("gone"), "http://no-such-host.invalid/w", site.serve("moody", serving.status(503))]
    with pytest.raises(DownloadError, match="begin at http://elsewhere/") as caught:
        fetch(make_catalogue(*urls, page="http://elsewhere/"), folder)
    assert [url for url, _ in caught.value.failures] == urls
    reasons = [reason for _, reason in caught.value.failures]
    assert (reasons[0], reasons[2]) == ("HTTP status 404 Not Found", "HTTP status 503 Service Unavailable")


def test_an_interrupted_download_is_kept_and_resumed(
    site: Site, folder: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_catalogue(site.serve("w", serving.whole(weights, send=500)))
    with monkeypatch.context() as patch:
        patch.setattr(download, "MAX_ATTEMPTS", 1)
        with pytest.raises(DownloadError, match="500 bytes are kept for the next run"):
            fetch(made, folder)
    assert [name.endswith((".part", ".part.note")) for name in names(folder)] == [True, True]
    site.serve("w", serving.whole(weights))
    fetch(made, folder)
    assert site.ranges()[-1] == "bytes=499-"
    assert (folder / "tiny.caffemodel").read_bytes() == weights
    assert names(folder) == WHOLE


def test_part_files_of_two_addresses_do_not_mix(
    site: Site, folder: Path, weights: bytes, other: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = site.serve("w", serving.whole(other, send=500)), site.serve("mirror", serving.whole(weights))
    monkeypatch.setattr(download, "MAX_ATTEMPTS", 1)
    fetch(make_catalogue(first, second), folder)
    assert (folder / "tiny.caffemodel").read_bytes() == weights
    assert names(folder) == WHOLE


def test_an_interruption_after_the_download_does_not_repeat_it(
    site: Site, folder: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    made = make_catalogue(site.serve("w", serving.whole(weights)))
    with monkeypatch.context() as patch:
        patch.setattr(module, "fit_net", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(made, folder)
    assert all(name.startswith(".") for name in names(folder))
    fetch(made, folder)
    assert site.ranges() == ["", f"bytes={len(weights) - 1}-"]
    assert names(folder) == WHOLE


# archives


@pytest.mark.parametrize("member", [MEMBER, "*.caffemodel", None])
def test_weights_from_an_archive(site: Site, folder: Path, weights: bytes, member: str | None) -> None:
    others = {"a/init.caffemodel": b""} if member == MEMBER else {}
    content = make_zip({**others, f"a/{MEMBER}": weights, "a/test.prototxt": b""})
    steps: list[str] = []
    made = make_catalogue(site.serve("z", serving.whole(content)), **{**ZIPPED, "member": member})
    _, record = fetch(made, folder, progress=lambda step, done, total: steps.append(step))
    assert names(folder) == WHOLE
    assert (folder / "tiny.caffemodel").read_bytes() == weights
    assert (record.weights.member, record.weights.download_sha256) == (
        f"a/{MEMBER}",
        hashlib.sha256(content).hexdigest(),
    )
    assert record.weights.sha256 == hashlib.sha256(weights).hexdigest()
    assert list(dict.fromkeys(steps)) == [site.url("z"), "unpacking"]


def test_a_mirror_may_have_the_member_unpacked(site: Site, folder: Path, weights: bytes) -> None:
    fetch(make_catalogue(site.serve("w", serving.whole(weights)), **ZIPPED), folder)
    assert (folder / "tiny.caffemodel").read_bytes() == weights


@pytest.mark.parametrize("kind", ["truncated", "without it", "page", "bomb", "slip", "escape sequence"])
def test_archives_that_are_rejected(site: Site, folder: Path, weights: bytes, kind: str) -> None:
    content, words = {
        "truncated": (make_zip({MEMBER: weights})[:-20], "corrupt zip file"),
        "without it": (make_zip({"x.caffemodel": weights}), f"no files named {MEMBER}; it holds x.caffemodel"),
        "page": (b"<html>".ljust(1000), "HTML"),
        "bomb": (make_zip({MEMBER: bytes(10_000_000)}), "a zip bomb"),
        "slip": (make_zip({MEMBER: weights, "../x": b""}), "outside of the folder"),
        "escape sequence": (make_zip({"\x1b]52;\n.zip": weights}), "it holds \\x1b]52; .zip"),
    }[kind]
    with pytest.raises(DownloadError) as caught:
        fetch(make_catalogue(site.serve("z", serving.whole(content)), **ZIPPED), folder)
    assert words in str(caught.value)
    assert str(folder) not in str(caught.value)
    assert not folder.exists()


# from a file


@pytest.mark.parametrize("form", ["caffemodel", "zip"])
def test_a_file_of_the_user_is_checked_like_a_download(
    site: Site, folder: Path, tmp_path: Path, weights: bytes, form: str
) -> None:
    source = tmp_path / f"downloads.{form}"
    source.write_bytes(weights if form == "caffemodel" else make_zip({f"x/{MEMBER}": weights, "y": b""}))
    made = make_catalogue(site.url("never"), **(ZIPPED if form == "zip" else {}))
    state, record = fetch(made, folder, source=source)
    assert (state, names(folder)) == ("imported", WHOLE)
    assert not site.seen
    assert source.exists()
    assert (folder / "tiny.caffemodel").read_bytes() == weights
    assert (record.weights.origin, record.weights.imported_from, record.weights.url) == ("imported", str(source), None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<html>", "HTML"),
        (b"\x0a\x03abc", "holds no layers"),
        (make_zip({"readme.txt": b""}), r"holds no files named \*\.caffemodel"),
        (make_zip({"a.caffemodel": b"", "b.caffemodel": b""}), "holds 2 files"),
        (make_zip({"a.caffemodel": b"abc" * 100}), "truncated or corrupt: at byte 297"),
    ],
    ids=["empty", "a page", "no layers", "no weights", "two weights", "cut"],  # a zip file holds the time
)
def test_a_file_that_is_not_the_model_is_rejected(folder: Path, tmp_path: Path, content: bytes, words: str) -> None:
    source = tmp_path / "file"
    source.write_bytes(content)
    with pytest.raises(FetchError, match=words) as caught:
        fetch(make_catalogue(), folder, source=source)
    assert str(caught.value).startswith(f"{source}: ")
    assert str(folder) not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not folder.exists()


def test_a_file_that_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    for source in (tmp_path / "none", tmp_path, Path("/dev/null")):
        with pytest.raises(FetchError, match="is not a readable file"):
            fetch(make_catalogue(), folder, source=source)
    assert not folder.exists()


def test_another_file_than_the_recorded_one(folder: Path, tmp_path: Path, weights: bytes, other: bytes) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(weights)
    second.write_bytes(other)
    fetch(make_catalogue(), folder, source=first)
    with pytest.raises(ChangedFileError, match=f"^{second}: .*; add --accept-changed"):
        fetch(make_catalogue(), folder, source=second)
    assert (folder / "tiny.caffemodel").read_bytes() == weights
    fetch(make_catalogue(), folder, source=second, accept_changed=True)
    assert (folder / "tiny.caffemodel").read_bytes() == other
