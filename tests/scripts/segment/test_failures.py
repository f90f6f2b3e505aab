"""`atrous segment`: how it fails, and what it refuses."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ...runtime.bundles import make_image, write_bundle
from .results import listing, read_lines


@pytest.mark.parametrize("size", ["none", "-3G", "9"])
def test_a_memory_that_is_none(run: Any, size: str) -> None:
    code, _, err = run("photos", "-o", "out", "--memory", size)
    assert code == 2
    assert "is not a size from 1M up" in err


def test_sizes_exclude_each_other(run: Any) -> None:
    for words in (("--size", "9x9", "--native"), ("--max-side", "9", "--native"), ("--size", "9")):
        code, _, err = run("photos", "-o", "out", *words)
        assert code == 2
        assert "exclude each other" in err or "is not HEIGHTxWIDTH" in err


def test_a_broken_image_costs_one_line(run: Any) -> None:
    whole = Path("photos/one.png").read_bytes()
    Path("photos/cut.png").write_bytes(whole[: len(whole) // 2])
    code, out, err = run("photos", "nothing.jpg", "-o", "out")
    assert code == 1
    assert "2 labeled" in out
    assert "2 failed" in out
    assert listing() == ["one.png", "two.png"]
    first, second = err.splitlines()
    assert first.startswith("atrous segment: photos/cut.png: is damaged")
    assert second == "atrous segment: nothing.jpg: there is no such file"


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("text.jpg", b"hello", "is text, not an image"),
        ("empty.jpg", b"", "is empty"),
        ("lfs.jpg", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_the_only_image_is_broken(run: Any, name: str, content: bytes, part: str) -> None:
    Path(name).write_bytes(content)
    code, out, err = run(name, "-o", "out")
    assert code == 2
    assert out == ""
    assert err.startswith(f"atrous segment: {name}: ")
    assert part in err
    assert err.count("\n") == 1
    assert listing() == []


@pytest.mark.parametrize("out", ["file", "file/below", "photos/one.png/below"])
def test_output_folder_that_cannot_be_written(run: Any, out: str) -> None:
    Path("file").write_text("x")
    code, stdout, err = run("photos", "-o", out)
    assert (code, stdout) == (2, "")
    assert err.startswith(f"atrous: {out}: ")
    assert err.count("\n") == 1


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_output_folder_without_permission(run: Any) -> None:
    Path("locked").mkdir(mode=0o555)
    code, _, err = run("photos", "-o", "locked")
    assert code == 2
    assert "Permission denied" in err


def test_disk_full_ends_the_work(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    code, out, err = run("photos", "-o", "out")
    assert (code, out) == (2, "")
    assert err in {f"atrous: out/{name}.png: cannot be written: No space left on device\n" for name in ("one", "two")}
    assert listing() == []


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["*.bmp", "-o", "out"], "nothing matches"),
        (["b", "-o", "out"], "no images in the folder b"),
        (["photos", "-o", "photos"], "would overwrite"),
        (["photos", "-o", "out.png"], "results go to a folder"),
        (
            ["photos", "-o", "out", "--save", "colors"],
            '"colors" is not a kind of result: use labels, overlay,',
        ),
        (["photos", "-o", "out", "--save", ""], "is not a kind of result"),
        (["photos", "-o", "out", "--threads", "0"], "--threads"),
        (["photos", "-o", "out", "--backend", "caffe"], '"caffe" is not a backend: use one of onnxruntime'),
        (["photos", "-o", "out", "--workers", "crf"], '"crf" is not STAGE=COUNT'),
        (["photos", "-o", "out", "--workers", "crf=0"], '"crf=0" is not STAGE=COUNT'),
        (["photos", "-o", "out", "--precision", "int8"], "has no int8 network"),
        (["photos", "-o", "out", "--crf"], "no CRF parameters"),
        (["photos", "-o", "out", "--fast-crf"], "--fast-crf needs a CRF"),
        (["photos", "-o", "out", "--crf-device", "cuda"], "the bundle has none: leave the device out"),
        (["-o", "out"], "IMAGES"),
        (["photos", "--list", "list.txt", "-o", "out"], "--list"),
    ],
)
def test_bad_usage(run: Any, arguments: list[str], part: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert part in err
    assert err.count("\n") == 1
    assert not Path("out").exists()


def test_bad_bundle(run: Any, workplace: Path) -> None:
    code, _, err = run("photos", "-o", "out", bundle="nothing")
    assert (code, err) == (2, "atrous: nothing: there is no such bundle: make one with `atrous convert`\n")
    (workplace / "b" / "deploy.onnx").write_bytes(b"short")
    code, _, err = run("photos", "-o", "out")
    assert code == 2
    assert "b/deploy.onnx: has 5 bytes" in err


def test_same_stem(run: Any) -> None:
    Image.fromarray(make_image(6, 6)).save("photos/one.jpg", quality=100, subsampling=0)
    code, _, err = run("photos", "-o", "out")
    assert code == 2
    assert "photos/one.jpg and photos/one.png would both be written to out/one.png" in err
    assert run("photos", "-o", "out", "--name", "path")[0] == 0
    assert listing() == ["photos/one.jpg.png", "photos/one.png.png", "photos/two.png.png"]
    with Image.open("out/photos/one.jpg.png") as small, Image.open("out/photos/one.png.png") as large:
        assert (small.size, large.size) == ((6, 6), (30, 20))


def test_a_fault_of_atrous_costs_one_image(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from atrous.runtime.segmenter import Segmenter

    prepare = Segmenter.prepare

    def fail(self: Segmenter, image: np.ndarray) -> Any:
        if image.shape[1] == 31:
            raise ZeroDivisionError("a bug")
        return prepare(self, image)

    monkeypatch.setattr(Segmenter, "prepare", fail)
    code, _, err = run("photos", "-o", "out")
    assert (code, listing()) == (1, ["one.png"])
    assert err.startswith("atrous segment: photos/two.png: ZeroDivisionError: a bug")
    (failure,) = read_lines("failures.jsonl")
    assert "in fail" in failure["traceback"]


@pytest.mark.parametrize("name", ["done.jsonl", "failures.jsonl"])
def test_a_foreign_file_is_not_overwritten(run: Any, name: str) -> None:
    Path("out").mkdir()
    Path("out", name).write_text('{"mine": 1}\n')
    code, _, err = run("photos", "-o", "out")
    assert code == 2
    assert err == f"atrous: out/{name}: is not a record of atrous: move it away, or choose another folder\n"
    assert Path("out", name).read_text() == '{"mine": 1}\n'


def test_an_output_folder_removed_during_the_run(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from atrous.runtime.batch import results as batch

    write_content = batch.write_content

    def remove_then_write(path: Path, content: bytes) -> None:
        shutil.rmtree("out", ignore_errors=True)
        write_content(path, content)

    monkeypatch.setattr(batch, "write_content", remove_then_write)
    code, out, err = run("photos", "-o", "out")
    assert (code, out) == (2, "")
    assert err == "atrous: out/done.jsonl: was removed or replaced during the run: run the command again\n"


def test_hostile_names_of_files_and_classes(run: Any, workplace: Path) -> None:
    names = ["a\x1b]0;owned\x07", "b\natrous: all passed", "c\u202e", "d"]
    write_bundle(workplace / "h", classes=names)
    Path("photos/one.png").rename("photos/one\x1b[2K.png")
    Path("photos/bad\natrous: fine\x1b[2K.png").write_text("text")
    code, out, err = run("photos", "-o", "out", bundle="h")
    assert code == 1
    assert "\\x1b" in out
    assert "\\x1b" in err
    for text in (out, err):
        assert text.replace("\n", "").isprintable()
        assert not any(line.startswith(("atrous: all passed", "atrous: fine")) for line in text.splitlines())
