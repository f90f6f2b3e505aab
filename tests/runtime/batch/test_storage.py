"""Object stores for images and results, in fsspec's memory: names, resuming, records, shards; errors of the store."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from atrous.errors import InputError, OutputError
from atrous.runtime.batch import label_files, lines, merge_runs
from atrous.runtime.batch.storage import is_store, open_place
from atrous.scripts.main import main

from ..bundles import make_image, write_bundle

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
pytest.importorskip("upath", reason="universal-pathlib is not installed")

IMAGES = 8
ROOT = "memory://bucket"


@pytest.fixture
def store() -> Iterator[Any]:
    """The memory store with images below bucket/photos, one of them broken and one in a subfolder."""
    fs = fsspec.filesystem("memory")
    for number in range(IMAGES):
        buffer = io.BytesIO()
        Image.fromarray(make_image(9, 12, number)).save(buffer, "png")
        fs.pipe_file(f"/bucket/photos/{'sub/' if number == 0 else ''}{number}.png", buffer.getvalue())
    fs.pipe_file("/bucket/photos/broken.png", b"hello")
    fs.pipe_file("/bucket/photos/notes.txt", b"hello")
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "b")


def read_all(fs: Any, folder: str = "/bucket/out") -> dict[str, bytes]:
    return {path.removeprefix(f"{folder}/"): fs.cat_file(path) for path in fs.find(folder)}


def read_records(fs: Any, name: str) -> list[dict[str, Any]]:
    found = [path for path in fs.find("/bucket/out") if path.rpartition("/")[2].startswith(name)]
    return [json.loads(line) for path in found for line in fs.cat_file(path).splitlines()[1:]]


def test_the_results_are_those_of_files(store: Any, bundle: Path, tmp_path: Path) -> None:
    kinds = ["labels", "masks"]
    summary = label_files(bundle, f"{ROOT}/photos", f"{ROOT}/out", recursive=True, kinds=kinds)
    assert (summary.labeled, summary.failed) == (IMAGES, 1)
    for path in store.find("/bucket/photos"):
        target = tmp_path / path.removeprefix("/bucket/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.cat_file(path))
    label_files(bundle, tmp_path / "photos", tmp_path / "out", recursive=True, kinds=kinds)
    local = {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*.png")}
    assert {name: content for name, content in read_all(store).items() if name.endswith(".png")} == local
    assert len(read_records(store, "done")) == IMAGES
    assert [Path(entry["image"]).name for entry in read_records(store, "failures")] == ["broken.png"]
    # files in, objects out, and the other way round
    label_files(bundle, tmp_path / "photos", f"{ROOT}/more", recursive=True)
    label_files(bundle, f"{ROOT}/photos", tmp_path / "back", recursive=True)
    assert store.cat_file("/bucket/more/sub/0.png") == (tmp_path / "back/sub/0.png").read_bytes() == local["sub/0.png"]


def test_resuming(store: Any, bundle: Path) -> None:
    store.rm("/bucket/photos/broken.png")
    first = label_files(bundle, f"{ROOT}/photos/[1-4].png", f"{ROOT}/out")
    assert (first.labeled, first.skipped) == (4, 0)
    second = label_files(bundle, f"{ROOT}/photos", f"{ROOT}/out")
    assert (second.labeled, second.skipped) == (IMAGES - 5, 4)  # without subfolders
    store.pipe_file("/bucket/photos/1.png", store.cat_file("/bucket/photos/2.png"))  # another image
    store.rm("/bucket/out/3.png")  # a lost result
    third = label_files(bundle, f"{ROOT}/photos", f"{ROOT}/out")
    assert (third.labeled, third.skipped) == (2, IMAGES - 3)
    assert label_files(bundle, f"{ROOT}/photos", f"{ROOT}/out", resume=False).labeled == IMAGES - 1


def test_lists_and_names(store: Any, bundle: Path) -> None:
    names = [f"{ROOT}/photos/1.png\n", f"{ROOT}/photos/nowhere.png\n"]
    summary = label_files(bundle, names, f"{ROOT}/out", is_list=True)
    assert (summary.labeled, summary.failed) == (1, 1)
    assert label_files(bundle, names, f"{ROOT}/out", is_list=True).skipped == 1
    label_files(bundle, f"{ROOT}/photos/2.png", f"{ROOT}/out", naming="path")
    assert {"bucket/photos/1.png.png", "bucket/photos/2.png.png"} <= set(read_all(store))
    with pytest.raises(InputError, match="inside the output folder"):
        label_files(bundle, [f"{ROOT}/out/x.png"], f"{ROOT}/out", is_list=True)
    with pytest.raises(InputError, match="would overwrite an input image"):
        label_files(bundle, f"{ROOT}/photos/1.png", f"{ROOT}/photos")
    with pytest.raises(InputError, match="there are no images at memory://bucket/empty"):
        label_files(bundle, f"{ROOT}/empty", f"{ROOT}/out")


def test_shards_and_their_merge(store: Any, bundle: Path) -> None:
    for index in range(3):
        label_files(bundle, f"{ROOT}/photos", f"{ROOT}/out", shard=(index, 3), recursive=True)
    summary = merge_runs([f"{ROOT}/out"])
    assert (summary.shards, summary.finished, summary.failed) == (3, IMAGES, 1)
    assert {name for name in read_all(store) if name.endswith(".jsonl")} == {"done.jsonl", "failures.jsonl"}
    assert label_files(bundle, f"{ROOT}/photos", f"{ROOT}/out", recursive=True).skipped == IMAGES
    store.rm("/bucket/out/1.png")
    for index in range(2):
        label_files(bundle, f"{ROOT}/photos", f"{ROOT}/out", shard=(index, 2), recursive=True)
    assert merge_runs([f"{ROOT}/out"]).finished == IMAGES


def test_a_kill_loses_only_lines_that_were_not_written(
    store: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends without `close` has written the lines of whole objects; the other images are done again."""
    monkeypatch.setattr(lines, "_FLUSHED_LINES", 3)
    monkeypatch.setattr(lines.LineObjects, "close", lambda self: None)
    store.rm("/bucket/photos/broken.png")
    assert label_files(bundle, f"{ROOT}/photos", f"{ROOT}/out", recursive=True).labeled == IMAGES
    monkeypatch.undo()
    assert len(read_records(store, "done")) == 6
    assert label_files(bundle, f"{ROOT}/photos", f"{ROOT}/out", recursive=True).skipped == 6
    assert label_files(bundle, f"{ROOT}/photos", f"{ROOT}/out", recursive=True).skipped == IMAGES


def test_a_store_that_refuses(store: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = type(store).pipe_file

    def refuse(self: Any, path: str, *arguments: Any, **options: Any) -> None:
        if path.endswith("3.png"):
            raise PermissionError("AccessDenied")
        put(self, path, *arguments, **options)

    monkeypatch.setattr(type(store), "pipe_file", refuse)
    with pytest.raises(OutputError, match=r"memory://bucket/out/3.png: cannot be written: AccessDenied"):
        label_files(bundle, f"{ROOT}/photos", f"{ROOT}/out")
    assert len(read_records(store, "done")) == len([name for name in read_all(store) if name.endswith(".png")])


def test_a_foreign_record_is_refused(store: Any, bundle: Path) -> None:
    store.pipe_file("/bucket/out/done.jsonl", b"mine\n")
    with pytest.raises(OutputError, match="not a record of atrous"):
        label_files(bundle, f"{ROOT}/photos", f"{ROOT}/out")


def test_addresses() -> None:
    assert [is_store(name) for name in ("s3://b/x", "gs://b", "memory://x")] == [True] * 3
    assert [is_store(name) for name in ("https://x/y", "a/b", "file:///x", "C:\\x", Path("s3:/b"))] == [False] * 5
    with pytest.raises(InputError, match="results go to a folder"):
        open_place("https://example.com/out")
    with pytest.raises(InputError, match="nosuchstore"):
        open_place("nosuchstore://bucket/out")


def test_the_command(store: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", str(bundle), f"{ROOT}/photos", "-o", f"{ROOT}/out"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("atrous segment: memory://bucket/photos/broken.png")
    assert f"{IMAGES - 1} labeled" in captured.out
    assert f"-> {ROOT}/out" in captured.out
