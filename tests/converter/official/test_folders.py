"""Folders that a fetch finds: of the same model, whole, damaged or outdated; of another; with other files."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from atrous.converter.official import fetch as module
from atrous.converter.official.record import read_record
from atrous.errors import ChangedFileError, DownloadError, FetchError, FolderError

from . import serving
from .serving import Site
from .tiny import MEMBER, WHOLE, fetch, make_catalogue, make_zip, names

pytestmark = pytest.mark.usefixtures("tiny_nets")


def test_a_present_model_is_checked_without_the_network(site: Site, folder: Path, weights: bytes) -> None:
    made = make_catalogue(site.serve("w", serving.whole(weights)))
    _, record = fetch(made, folder)
    site.seen.clear()
    assert fetch(made, folder) == ("present", record)
    assert not site.seen


@pytest.mark.parametrize("file", ["tiny.caffemodel", "tiny.prototxt"])
@pytest.mark.parametrize("how", ["changed", "truncated", "missing"])
def test_damage_is_detected_and_repaired(site: Site, folder: Path, weights: bytes, file: str, how: str) -> None:
    made = make_catalogue(site.serve("w", serving.whole(weights)))
    fetch(made, folder)
    path = folder / file
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + (bytes([content[-1] ^ 1]) if how == "changed" else b""))
    with pytest.raises(ChangedFileError, match=rf"{file}: .*\nRepair it: atrous fetch tiny --again"):
        fetch(made, folder)
    assert ChangedFileError.exit_code == 1
    fetch(made, folder, again=True)
    assert path.read_bytes() == content


def test_a_changed_file_on_the_server_is_rejected_until_it_is_accepted(
    site: Site, folder: Path, weights: bytes, other: bytes
) -> None:
    made = make_catalogue(site.serve("w", serving.whole(weights)))
    _, first = fetch(made, folder)
    site.serve("w", serving.whole(other, etag='"v2"'))
    with pytest.raises(DownloadError, match="add --accept-changed") as caught:
        fetch(made, folder, again=True)
    assert hashlib.sha256(weights).hexdigest()[:16] in str(caught.value)
    assert hashlib.sha256(other).hexdigest()[:16] in str(caught.value)
    assert fetch(made, folder) == ("present", first)
    _, record = fetch(made, folder, again=True, accept_changed=True)
    assert record.weights.sha256 == hashlib.sha256(other).hexdigest()
    assert (folder / "tiny.caffemodel").read_bytes() == other


def test_a_mirror_with_the_recorded_file_is_found(site: Site, folder: Path, weights: bytes, other: bytes) -> None:
    fetch(make_catalogue(site.serve("w", serving.whole(weights))), folder)
    made = make_catalogue(site.serve("w", serving.whole(other)), site.serve("mirror", serving.whole(weights)))
    _, record = fetch(made, folder, again=True)
    assert record.weights.url == site.url("mirror")


def test_a_failed_download_keeps_the_files(site: Site, folder: Path, weights: bytes) -> None:
    made = make_catalogue(site.serve("w", serving.whole(weights)))
    fetch(made, folder)
    site.serve("w", serving.status(500))
    with pytest.raises(DownloadError):
        fetch(made, folder, again=True)
    assert fetch(made, folder)[0] == "present"


# folders


def test_folders_with_other_files_are_left_alone(site: Site, folder: Path, weights: bytes) -> None:
    made = make_catalogue(site.serve("w", serving.whole(weights)))
    folder.write_text("a file")
    with pytest.raises(FolderError, match=r"tiny: cannot be written \(File exists\); give another folder with --out"):
        fetch(made, folder)
    folder.unlink()
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(FolderError, match=r"holds other files \(thesis\.tex\)"):
        fetch(made, folder)
    assert names(folder) == ["thesis.tex"]
    assert not site.seen


def test_a_folder_of_another_model(site: Site, folder: Path, weights: bytes) -> None:
    url = site.serve("w", serving.whole(weights))
    fetch(make_catalogue(url), folder)
    with pytest.raises(FolderError, match="holds tiny; give another folder"):
        fetch(make_catalogue(url, name="tinier"), folder)


def test_two_at_once(site: Site, folder: Path, weights: bytes) -> None:
    """The second is refused, and leaves the temporary file of the first alone."""
    made = make_catalogue(site.serve("w", serving.whole(weights)))

    def start_another(step: str, done: int, total: int | None) -> None:
        if not done:
            (folder / ".caffemodel.new").touch()
            with pytest.raises(FolderError, match="in use by another atrous fetch"):
                fetch(made, folder)
            assert (folder / ".caffemodel.new").exists()

    fetch(made, folder, progress=start_another)
    assert names(folder) == WHOLE


@pytest.mark.parametrize("form", ["caffemodel", "zip"])
def test_a_full_disk(folder: Path, tmp_path: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    source = tmp_path / "w"
    source.write_bytes(weights if form == "caffemodel" else make_zip({MEMBER: weights}))
    monkeypatch.setattr(*((shutil, "copyfile") if form == "caffemodel" else (module, "extract_member")), fail)
    with pytest.raises(FolderError, match=r"tiny: cannot be written \(No space left on device\)"):
        fetch(make_catalogue(), folder, source=source)
    assert not folder.exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: "{}",
        lambda text: text.replace('"schema_version":1', '"schema_version":2'),
        lambda text: text.replace("tiny.caffemodel", "../tiny.caffemodel"),
        lambda text: text.replace("tiny.caffemodel", "/etc/passwd"),
        lambda text: text.replace('"sha256":"', '"sha256":"x'),
        lambda text: text.replace('"scale"', '"skale"'),
        lambda text: text + " " * (2 << 20),
    ],
)
def test_an_altered_record(site: Site, folder: Path, weights: bytes, spoil: Callable[[str], str]) -> None:
    made = make_catalogue(site.serve("w", serving.whole(weights)))
    fetch(made, folder)
    path = folder / "model.json"
    text = json.dumps(json.loads(path.read_text()), separators=(",", ":"))
    assert spoil(text) != text
    path.write_text(spoil(text))
    with pytest.raises(FetchError, match=r"model\.json: "):
        fetch(made, folder)
    assert read_record(folder.with_name("none")) is None
