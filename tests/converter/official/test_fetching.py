"""A model's whole way into its folder: from servers, archives and files; again; and changed."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atrous.converter import read_net
from atrous.converter.official import FetchOptions, FetchResult, Limits, download, fetch_model, read_record
from atrous.converter.official.catalogue import Catalogue, OfficialModel
from atrous.converter.official.part_file import lock_folder
from atrous.errors import ChangedFileError, DownloadError, FetchError, FolderError

from . import serving
from .serving import LATER, Site
from .tiny import PUBLISHED, make_catalogue, make_zip, register, write_weights

MEMBER = "train2_iter_20000.caffemodel"
ZIPPED = {"file": "prototxt_and_model.zip", "member": MEMBER, "prototxt_member": "test.prototxt"}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    return write_weights(tmp_path / "made.caffemodel")


@pytest.fixture
def other(tmp_path: Path) -> bytes:
    """Weights of the same net with other numbers."""
    return write_weights(tmp_path / "other.caffemodel", seed=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tiny"


def fetch(made: tuple[Catalogue, OfficialModel], folder: Path, **options: Any) -> FetchResult:
    limits = Limits(timeout_s=0.5, stall_s=0.3, pause_s=0.0)
    return fetch_model(*made, folder, FetchOptions(limits=limits, **options))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


WHOLE = ["model.json", "tiny.caffemodel", "tiny.prototxt"]


def test_weights_with_a_prototxt_of_ours(site: Site, folder: Path, weights: bytes) -> None:
    url = site.serve("w.caffemodel", serving.whole(weights))
    result = fetch(make_catalogue(url), folder)
    assert (result.state, result.folder, names(folder)) == ("fetched", folder, WHOLE)
    assert (folder / "tiny.caffemodel").read_bytes() == weights
    record = json.loads((folder / "model.json").read_text())
    assert {key: record[key] for key in ("schema_version", "name", "title", "role", "scale", "variables")} == {
        "schema_version": 1,
        "name": "tiny",
        "title": "Tiny",
        "role": "segmentation",
        "scale": 1.0,
        "variables": {},
    }
    assert record["classes"] == ["background", "a", "b", "c", "d"]
    assert record["palette"][1] == [9, 0, 0]
    assert (record["mean"], record["minimum_size"]) == ([104.008, 116.669, 122.675], [33, 33])
    assert record["crf"]["bilateral"] == [{"sxy": 121, "srgb": 5, "weight": 4}]
    file = record["files"]["weights"]
    assert file["sha256"] == hashlib.sha256(weights).hexdigest() == file["server"]["sha256"]
    assert (file["origin"], file["size_bytes"]) == ("downloaded", len(weights))
    assert (file["server"]["url"], file["server"]["etag"]) == (url, '"v1"')
    assert file["server"]["last_modified"] == serving.DATE
    assert record["files"]["prototxt"]["origin"] == "written"
    assert read_net(folder / "tiny.prototxt", folder / "tiny.caffemodel").warnings == ()


def test_the_published_prototxt_is_taken_where_it_fits(site: Site, folder: Path, weights: bytes) -> None:
    made = make_catalogue(
        site.serve("w", serving.whole(weights)), prototxt=[site.serve("p", serving.whole(PUBLISHED.encode()))]
    )
    record = fetch(made, folder).record
    assert (folder / "tiny.prototxt").read_text() == PUBLISHED
    assert record.files.prototxt.origin == "downloaded"
    assert record.variables == {"NET_ID": "Tiny", "EXP": "voc12", "NUM_LABELS": "5"}
    net = read_net(folder / "tiny.prototxt", folder / "tiny.caffemodel", variables=record.variables)
    assert net.outputs[0].shape == (1, 5, 33, 33)


def test_the_host_that_gave_the_weights_is_asked_for_the_prototxt_first(
    site: Site, folder: Path, weights: bytes
) -> None:
    dead = site.url("p", host="localhost")
    made = make_catalogue(
        site.serve("w", serving.whole(weights)),
        prototxt=[dead, site.serve("q", serving.whole(PUBLISHED.encode()))],
    )
    fetch(made, folder)
    assert [path for _, path, _ in site.seen] == ["/w", "/q"]


@pytest.mark.parametrize(
    "route",
    [
        serving.status(404),
        serving.page(),
        serving.whole(b"name: 'x' layers {"),
        serving.whole(PUBLISHED.replace("num_output: 4", "num_output: 9").encode()),
        serving.whole(b"\0" * 100),
        serving.whole(b"#" * (5 << 20)),
    ],
)
def test_a_published_prototxt_that_cannot_be_had_is_replaced_by_ours(
    site: Site, folder: Path, weights: bytes, route: serving.Route
) -> None:
    made = make_catalogue(site.serve("w", serving.whole(weights)), prototxt=[site.serve("p", route)])
    record = fetch(made, folder).record
    assert record.files.prototxt.origin == "written"
    assert any("no address gave a published prototxt" in note for note in record.notes)
    assert any(note.startswith(site.url("p")) for note in record.notes)
    assert names(folder) == WHOLE


WRONG: dict[str, Callable[[bytes, bytes], serving.Route]] = {
    "404": lambda weights, other: serving.status(404),
    "an HTML page": lambda weights, other: serving.page(size=1000),
    "a login page after a redirect": lambda weights, other: serving.in_turn(
        serving.redirect("/bad/tiny.caffemodel"), serving.page(size=1000)
    ),
    "an LFS pointer": lambda weights, other: serving.whole(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 82021716\n".ljust(500)
    ),
    "half of it, as if whole": lambda weights, other: serving.whole(weights[: len(weights) // 2 + 100]),
    "half of it, breaking": lambda weights, other: serving.whole(weights, send=300),
    "a zip file": lambda weights, other: serving.whole(make_zip({"w": weights}, zipfile.ZIP_STORED)),
    "random bytes": lambda weights, other: serving.whole(bytes(range(1, 256)) * 4),
    "zeros": lambda weights, other: serving.whole(bytes(1000)),
    "something far too small": lambda weights, other: serving.whole(weights[:20]),
    "something far too large": lambda weights, other: serving.whole(weights * 100),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_address_that_gives_something_else_costs_a_line(
    site: Site, folder: Path, weights: bytes, other: bytes, what: str
) -> None:
    bad = site.serve("bad/tiny.caffemodel", WRONG[what](weights, other))
    good = site.serve("good/tiny.caffemodel", serving.whole(weights))
    with pytest.raises(DownloadError) as caught:
        fetch(make_catalogue(bad), folder)
    assert caught.value.exit_code == 1
    message = str(caught.value).splitlines()
    assert len(message) == 3
    assert message[0] == "tiny: no address gave w.caffemodel (1.2 kB)"
    assert message[1].startswith(f"  {bad}: ")
    assert message[2].endswith("atrous fetch tiny --from FILE")
    assert "http://models.invalid/" in message[2]
    assert not folder.exists()
    result = fetch(make_catalogue(bad, good), folder)
    assert (folder / "tiny.caffemodel").read_bytes() == weights
    assert names(folder) == WHOLE
    assert any(note.startswith(bad) for note in result.record.notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": 6}, "knows 6 classes, that of Tiny 5"),
        ({"outputs": 5}, "it is not Tiny: the file does not hold"),
        ({"value": float("nan")}, "not finite"),
        ({"labels": 0}, "no classifier"),
    ],
)
def test_weights_of_another_model_are_refused_at_once(
    site: Site, tmp_path: Path, folder: Path, changes: dict[str, Any], words: str
) -> None:
    url = site.serve("w", serving.whole(write_weights(tmp_path / "x.caffemodel", **changes)))
    with pytest.raises(DownloadError, match=f"sent a file that is refused: .*{words}"):
        fetch(make_catalogue(url), folder)
    assert not folder.exists()


def test_a_required_checksum(site: Site, folder: Path, weights: bytes, other: bytes) -> None:
    bad, good = site.serve("bad", serving.whole(other)), site.serve("good", serving.whole(weights))
    sha256 = hashlib.sha256(weights).hexdigest()
    fetch(make_catalogue(bad, good, sha256=sha256), folder)
    assert (folder / "tiny.caffemodel").read_bytes() == weights
    with pytest.raises(DownloadError, match=f"must be {sha256}"):
        fetch(make_catalogue(bad, sha256=sha256), folder.with_name("elsewhere"))


def test_all_addresses_are_told_when_all_are_dead(site: Site, folder: Path) -> None:
    urls = [site.url("gone"), "http://no-such-host.invalid/w", site.serve("moody", serving.status(503))]
    with pytest.raises(DownloadError) as caught:
        fetch(make_catalogue(*urls), folder)
    assert [url for url, _ in caught.value.failures] == urls
    assert [reason for _, reason in caught.value.failures] == [
        "404 Not Found",
        "no such host, or no network",
        "503 Service Unavailable",
    ]
    assert not folder.exists()


def test_an_interrupted_download_is_kept_and_continued(
    site: Site, folder: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "OVERLAP_BYTES", 64)
    made = make_catalogue(site.serve("w", serving.whole(weights, send=500)))
    interrupted = FetchOptions(limits=Limits(timeout_s=0.5, attempts=1, most_attempts=1, pause_s=0.0))
    with pytest.raises(DownloadError, match="500 bytes are kept to continue from"):
        fetch_model(*made, folder, interrupted)
    assert [name.endswith((".part", ".part.json")) for name in names(folder)] == [True, True]
    site.serve("w", serving.whole(weights))
    fetch(made, folder)
    assert site.ranges()[-1] == "bytes=436-"
    assert (folder / "tiny.caffemodel").read_bytes() == weights
    assert names(folder) == WHOLE


class StoppedError(Exception):
    pass


def test_an_exception_from_outside_leaves_only_what_can_be_continued(site: Site, folder: Path, weights: bytes) -> None:
    url = site.serve("w", serving.whole(weights))

    def stop(what: str, done: int, total: int | None) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        fetch(make_catalogue(url), folder, progress=stop)
    assert all(".part" in name for name in names(folder))
    fetch(make_catalogue(url), folder)
    assert names(folder) == WHOLE


# archives


def test_an_archive_gives_weights_and_prototxt(site: Site, folder: Path, weights: bytes, other: bytes) -> None:
    content = make_zip(
        {"a/init.caffemodel": other, f"a/{MEMBER}": weights, "a/test.prototxt": PUBLISHED.encode(), "../x": b""}
    )
    with pytest.raises(DownloadError, match="outside of the folder"):
        fetch(make_catalogue(site.serve("z", serving.whole(content)), size_bytes=None, **ZIPPED), folder)
    content = make_zip({"a/init.caffemodel": other, f"a/{MEMBER}": weights, "a/test.prototxt": PUBLISHED.encode()})
    steps: list[str] = []
    made = make_catalogue(site.serve("z", serving.whole(content)), size_bytes=None, **ZIPPED)
    record = fetch(made, folder, progress=lambda what, done, total: steps.append(what)).record
    assert names(folder) == WHOLE
    assert (folder / "tiny.caffemodel").read_bytes() == weights
    assert (folder / "tiny.prototxt").read_text() == PUBLISHED
    server = record.files.weights.server
    assert server is not None
    assert (server.member, server.sha256) == (f"a/{MEMBER}", hashlib.sha256(content).hexdigest())
    assert record.files.weights.sha256 == hashlib.sha256(weights).hexdigest()
    assert dict.fromkeys(steps) == dict.fromkeys([site.url("z"), f"unpacking a/{MEMBER}"])


@pytest.mark.parametrize("prototxt", [None, b"layers {", PUBLISHED.replace("num_output: 4", "num_output: 9").encode()])
def test_an_archive_without_a_prototxt_that_fits(
    site: Site, folder: Path, weights: bytes, prototxt: bytes | None
) -> None:
    members = {MEMBER: weights} | ({"test.prototxt": prototxt} if prototxt else {})
    made = make_catalogue(site.serve("z", serving.whole(make_zip(members))), size_bytes=None, **ZIPPED)
    record = fetch(made, folder).record
    assert record.files.prototxt.origin == "written"
    assert any("does not fit, and atrous wrote one" in note for note in record.notes) == bool(prototxt)


@pytest.mark.parametrize("kind", ["a caffemodel", "a cut archive", "an archive without it", "a page", "a bomb"])
def test_what_is_no_archive_of_the_model(site: Site, folder: Path, weights: bytes, kind: str) -> None:
    content, words = {
        "a caffemodel": (weights, "is no zip file"),
        "a cut archive": (make_zip({MEMBER: weights})[:-20], "is no whole zip file"),
        "an archive without it": (make_zip({"x.caffemodel": weights}), f"holds no {MEMBER}; it holds x.caffemodel"),
        "a page": (b"<html>".ljust(1000), "HTML"),
        "a bomb": (make_zip({MEMBER: bytes(10_000_000)}), "a bomb"),
    }[kind]
    made = make_catalogue(site.serve("z", serving.whole(content)), size_bytes=None, **ZIPPED)
    with pytest.raises(DownloadError, match=words):
        fetch(made, folder)
    assert not folder.exists()


# once more


def test_what_is_there_is_checked_and_its_server_asked(site: Site, folder: Path, weights: bytes) -> None:
    made = make_catalogue(site.serve("w", serving.whole(weights)))
    fetch(made, folder)
    site.seen.clear()
    result = fetch(made, folder)
    assert result.state == "present"
    assert result.server is not None
    assert result.server.state == "unchanged"
    assert [method for method, _, _ in site.seen] == ["HEAD"]
    assert fetch(made, folder, offline=True).server is None
    assert len(site.seen) == 1


@pytest.mark.parametrize(
    ("route", "state", "words"),
    [
        (lambda w: serving.whole(w + b"x"), "changed", "now"),
        (lambda w: serving.whole(w, etag='"v2"', date=LATER), "changed", "ETag"),
        (lambda w: serving.whole(w, etag='"v2"'), "unchanged", "the same date"),
        (lambda w: serving.whole(w, etag="", date=LATER), "changed", LATER),
        (lambda w: serving.whole(w, etag="", date=""), "unknown", "nothing to tell"),
        (lambda w: serving.status(404), "unknown", "404"),
        (lambda w: serving.silence(1.0), "unknown", "no answer"),
    ],
)
def test_what_a_server_says_of_its_file_later(
    site: Site, folder: Path, weights: bytes, route: Callable[[bytes], serving.Route], state: str, words: str
) -> None:
    made = make_catalogue(site.serve("w", serving.whole(weights)))
    fetch(made, folder)
    site.serve("w", route(weights))
    server = fetch(made, folder).server
    assert server is not None
    assert server.state == state
    assert words in server.detail
    assert (folder / "tiny.caffemodel").read_bytes() == weights


@pytest.mark.parametrize("file", ["tiny.caffemodel", "tiny.prototxt"])
@pytest.mark.parametrize("how", ["changed", "cut", "missing"])
def test_damage_here_is_found(site: Site, folder: Path, weights: bytes, file: str, how: str) -> None:
    made = make_catalogue(site.serve("w", serving.whole(weights)))
    fetch(made, folder)
    path = folder / file
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + (bytes([content[-1] ^ 1]) if how == "changed" else b""))
    with pytest.raises(ChangedFileError, match=rf"{file}: .*\nFetch the model anew: atrous fetch tiny --again"):
        fetch(made, folder)
    assert ChangedFileError.exit_code == 1
    fetch(made, folder, again=True)
    assert path.read_bytes() == content


def test_a_changed_file_on_the_server_is_refused_until_it_is_accepted(
    site: Site, folder: Path, weights: bytes, other: bytes
) -> None:
    made = make_catalogue(site.serve("w", serving.whole(weights)))
    first = fetch(made, folder).record
    site.serve("w", serving.whole(other, etag='"v2"', date=LATER))
    with pytest.raises(ChangedFileError, match="--again --accept-changed") as caught:
        fetch(made, folder, again=True)
    assert hashlib.sha256(weights).hexdigest()[:16] in str(caught.value)
    assert hashlib.sha256(other).hexdigest()[:16] in str(caught.value)
    assert read_record(folder) == first
    assert fetch(made, folder, offline=True).state == "present"
    record = fetch(made, folder, again=True, accept_changed=True).record
    assert record.files.weights.sha256 == hashlib.sha256(other).hexdigest()
    assert (folder / "tiny.caffemodel").read_bytes() == other


def test_a_mirror_with_the_recorded_file_is_found(site: Site, folder: Path, weights: bytes, other: bytes) -> None:
    fetch(make_catalogue(site.serve("w", serving.whole(weights))), folder)
    made = make_catalogue(site.serve("w", serving.whole(other)), site.serve("mirror", serving.whole(weights)))
    server = fetch(made, folder, again=True).record.files.weights.server
    assert server is not None
    assert server.url == site.url("mirror")


def test_a_folder_keeps_its_files_when_nothing_better_comes(site: Site, folder: Path, weights: bytes) -> None:
    made = make_catalogue(site.serve("w", serving.whole(weights)))
    fetch(made, folder)
    site.serve("w", serving.status(500))
    with pytest.raises(DownloadError):
        fetch(made, folder, again=True)
    assert fetch(made, folder, offline=True).state == "present"


# from a file


@pytest.mark.parametrize("form", ["caffemodel", "zip"])
def test_a_file_of_the_users_is_taken_by_the_same_checks(
    site: Site, folder: Path, tmp_path: Path, weights: bytes, form: str
) -> None:
    source = tmp_path / f"downloads.{form}"
    source.write_bytes(weights if form == "caffemodel" else make_zip({f"x/{MEMBER}": weights, "y": b""}))
    changes = ZIPPED if form == "zip" else {}
    made = make_catalogue(site.url("never"), prototxt=[site.url("never")], **changes)
    result = fetch(made, folder, source=source)
    assert (result.state, names(folder)) == ("imported", WHOLE)
    assert not site.seen
    assert source.exists()
    file = result.record.files.weights
    assert (file.origin, file.imported_from, file.server) == ("imported", str(source), None)
    assert fetch(made, folder).server is None


def test_any_zip_with_one_caffemodel_will_do(folder: Path, tmp_path: Path, weights: bytes) -> None:
    source = tmp_path / "x.zip"
    source.write_bytes(make_zip({"some name.caffemodel": weights}))
    fetch(make_catalogue(), folder, source=source)
    assert (folder / "tiny.caffemodel").read_bytes() == weights


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<html>", "HTML"),
        (b"\x0a\x03abc", "holds no layers"),
        (make_zip({"readme.txt": b""}), r"holds no \*\.caffemodel"),
        (make_zip({"a.caffemodel": b"", "b.caffemodel": b""}), "holds 2 files"),
        (make_zip({"a.caffemodel": b"abc" * 100}), "is no whole caffemodel: at byte 297"),
    ],
)
def test_a_file_that_is_not_the_model_is_refused(folder: Path, tmp_path: Path, content: bytes, words: str) -> None:
    source = tmp_path / "file"
    source.write_bytes(content)
    with pytest.raises(FetchError, match=words) as caught:
        fetch(make_catalogue(), folder, source=source)
    assert str(caught.value).startswith(f"{source}: ")
    assert str(folder) not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not folder.exists()


def test_a_file_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    for source in (tmp_path / "none", tmp_path):
        with pytest.raises(FetchError, match="cannot be read"):
            fetch(make_catalogue(), folder, source=source)
    assert not folder.exists()


def test_another_file_than_the_recorded_one(folder: Path, tmp_path: Path, weights: bytes, other: bytes) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(weights)
    second.write_bytes(other)
    fetch(make_catalogue(), folder, source=first)
    with pytest.raises(ChangedFileError, match=f"--from {second} --accept-changed"):
        fetch(make_catalogue(), folder, source=second)
    assert (folder / "tiny.caffemodel").read_bytes() == weights
    fetch(make_catalogue(), folder, source=second, accept_changed=True)
    assert (folder / "tiny.caffemodel").read_bytes() == other


# folders


def test_folders_that_are_not_ours_are_left_alone(site: Site, folder: Path, weights: bytes) -> None:
    made = make_catalogue(site.serve("w", serving.whole(weights)))
    folder.write_text("a file")
    with pytest.raises(FolderError, match="is a file"):
        fetch(made, folder)
    folder.unlink()
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(FolderError, match=r"is no fetched model \(it holds thesis\.tex\)"):
        fetch(made, folder)
    assert names(folder) == ["thesis.tex"]
    assert not site.seen


def test_a_folder_of_another_model(site: Site, folder: Path, weights: bytes) -> None:
    url = site.serve("w", serving.whole(weights))
    fetch(make_catalogue(url), folder)
    with pytest.raises(FolderError, match="holds tiny; give another folder"):
        fetch(make_catalogue(url, name="tinier"), folder)


def test_two_at_once(site: Site, folder: Path, weights: bytes) -> None:
    with lock_folder(folder), pytest.raises(FolderError, match="another atrous fetch is at work"):
        fetch(make_catalogue(site.serve("w", serving.whole(weights))), folder)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: "{}",
        lambda text: text.replace('"schema_version": 1', '"schema_version": 2'),
        lambda text: text.replace("tiny.caffemodel", "../tiny.caffemodel"),
        lambda text: text.replace("tiny.caffemodel", "/etc/passwd"),
        lambda text: text.replace('"sha256": "', '"sha256": "x'),
        lambda text: text.replace('"scale"', '"skale"'),
        lambda text: text + " " * (2 << 20),
    ],
)
def test_a_record_that_was_tampered_with(site: Site, folder: Path, weights: bytes, spoil: Callable[[str], str]) -> None:
    made = make_catalogue(site.serve("w", serving.whole(weights)))
    fetch(made, folder)
    path = folder / "model.json"
    path.write_text(spoil(path.read_text()))
    with pytest.raises(FetchError, match=r"model\.json: "):
        fetch(made, folder)
    assert read_record(folder.with_name("none")) is None
