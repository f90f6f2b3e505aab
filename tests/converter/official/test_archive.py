"""Zip archives that are valid, odd, corrupt and hostile."""

from __future__ import annotations

import io
import random
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from atrous.converter.official import archive as archive_module
from atrous.converter.official.archive import extract_member
from atrous.errors import ArchiveError

from .tiny import make_zip

WANTED = "train2_iter_20000.caffemodel"
CONTENT = random.Random(0).randbytes(300_000)


def take(path: Path, pattern: str = WANTED) -> bytes:
    target = path.with_suffix(".out")
    extract_member(path, pattern, target)
    return target.read_bytes()


def written(folder: Path, content: bytes) -> Path:
    path = folder / "models.zip"
    path.write_bytes(content)
    return path


def refusal(path: Path, pattern: str = WANTED) -> str:
    with pytest.raises(ArchiveError) as caught:
        take(path, pattern)
    assert caught.value.path == path
    return str(caught.value)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", [WANTED, f"vgg16/{WANTED}", f"a/b/c/{WANTED}"])
def test_a_member_is_found_by_its_file_name(tmp_path: Path, name: str, compression: int) -> None:
    others = {"test.prototxt": b"x", "init.caffemodel": b"y", f"__MACOSX/._{WANTED}": b"z", "vgg16/._x": b""}
    assert take(written(tmp_path, make_zip({**others, name: CONTENT}, compression))) == CONTENT


def test_progress_ends_at_the_size(tmp_path: Path) -> None:
    path = written(tmp_path, make_zip({WANTED: CONTENT}))
    steps: list[tuple[int, int]] = []
    assert extract_member(path, WANTED, tmp_path / "out", lambda *step: steps.append(step)) == WANTED
    assert steps[-1] == (len(CONTENT), len(CONTENT))


def test_a_missing_member_is_reported_with_those_that_exist(tmp_path: Path) -> None:
    path = written(tmp_path, make_zip({"a/init.caffemodel": b"x", "test.prototxt": b""}))
    assert refusal(path) == f"{path}: holds no files named {WANTED}; it holds a/init.caffemodel, test.prototxt"
    assert "it holds no files" in refusal(written(tmp_path, make_zip({})))


def test_an_ambiguous_member_is_rejected(tmp_path: Path) -> None:
    path = written(tmp_path, make_zip({f"a/{WANTED}": b"x", f"b/{WANTED}": b"y"}))
    assert "holds 2 files" in refusal(path)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(WANTED, b"x")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(WANTED, b"y")
    assert "holds 2 files" in refusal(written(tmp_path, content.getvalue()))


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/evil", "C:/evil", "C:evil", "..\\evil", "a\\b", "\\\\host\\evil", ".."]
)
def test_an_archive_that_leaves_the_folder_is_rejected_as_a_whole(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, make_zip({WANTED: CONTENT, name: b"evil"}))
    assert "outside of the folder" in refusal(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["models.zip"]


@pytest.mark.parametrize("name", ["\0xxxxxxx", "////////", "././././"])
def test_a_member_without_a_name(tmp_path: Path, name: str) -> None:
    """zipfile cuts a name at NUL, so the first one is empty."""
    content = make_zip({WANTED: b"x", "@@@@@@@@": b""}).replace(b"@@@@@@@@", name.encode())
    assert 'member "' in (message := refusal(written(tmp_path, content)))
    assert "has no name" in message


def test_names_are_shown_without_control_characters(tmp_path: Path) -> None:
    path = written(tmp_path, make_zip({"a\n\x1b]52;c;x\x07\u202e.zip": b""}))
    assert refusal(path).endswith("it holds a \\x1b]52;c;x\\x07\\u202e.zip")
    path = written(tmp_path, make_zip({"../\x1b[31m": b""}))
    assert 'member "../\\x1b[31m" would be written' in refusal(path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_rejected(tmp_path: Path, kind: int) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        info = zipfile.ZipInfo(WANTED)
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, b"/etc/passwd")
    assert "is a link or a device" in refusal(written(tmp_path, content.getvalue()))


def test_a_bomb_is_rejected_before_it_is_unpacked(tmp_path: Path) -> None:
    path = written(tmp_path, make_zip({WANTED: bytes(50_000_000)}))
    assert path.stat().st_size < 100_000
    assert "a zip bomb?" in refusal(path)
    assert not path.with_suffix(".out").exists()


def test_a_member_of_impossible_size_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MAX_MEMBER_BYTES", 1000)
    assert "too large" in refusal(written(tmp_path, make_zip({WANTED: CONTENT})))


def test_too_many_members_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MAX_MEMBERS", 3)
    assert "holds 4 files" in refusal(written(tmp_path, make_zip(dict.fromkeys("abcd", b""))))


def _patch_sizes(content: bytes, size: int) -> bytes:
    """State another unpacked size, in the central directory and in the member's own header."""
    data = bytearray(content)
    struct.pack_into("<I", data, data.index(b"PK\x03\x04") + 22, size)
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 24, size)
    return bytes(data)


@pytest.mark.parametrize("size", [100, len(CONTENT) - 1, len(CONTENT) + 1, len(CONTENT) * 2])
def test_a_wrong_stated_size(tmp_path: Path, size: int) -> None:
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = written(tmp_path, _patch_sizes(make_zip({WANTED: CONTENT}, compression), size))
        message = refusal(path)
        assert any(words in message for words in ("is corrupt", "the size that the archive states", "corrupt zip"))


def test_a_wrong_checksum(tmp_path: Path) -> None:
    data = bytearray(make_zip({WANTED: CONTENT}, zipfile.ZIP_STORED))
    data[len(WANTED) + 30 + 1000] ^= 1
    assert "is corrupt (Bad CRC-32" in refusal(written(tmp_path, bytes(data)))


def test_encrypted_members_and_unsupported_compression(tmp_path: Path) -> None:
    content = make_zip({WANTED: CONTENT})
    data = bytearray(content)
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    assert "is encrypted" in refusal(written(tmp_path, bytes(data)))
    data = bytearray(content)
    struct.pack_into("<H", data, data.rindex(b"PK\x01\x02") + 10, 97)
    assert "method 97" in refusal(written(tmp_path, bytes(data)))


@pytest.mark.parametrize("keep", [0, 10, 100, -30, -1])
def test_a_truncated_archive(tmp_path: Path, keep: int) -> None:
    assert "truncated or corrupt zip file" in refusal(written(tmp_path, make_zip({WANTED: CONTENT})[:keep]))


def test_a_missing_archive(tmp_path: Path) -> None:
    assert "truncated or corrupt zip file" in refusal(tmp_path / "none.zip")


def test_a_target_that_cannot_be_written(tmp_path: Path) -> None:
    path = written(tmp_path, make_zip({WANTED: CONTENT}))
    (tmp_path / "models.out").mkdir()
    with pytest.raises(IsADirectoryError):
        take(path)
