"""`atrous verify` as a user types it: what passes, what is named, and one clear line for what cannot be compared."""

from __future__ import annotations

import importlib.util
import json
import py_compile
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous.converter import read_net, run_blobs, to_torch
from atrous.errors import OutputError
from atrous.scripts.main import main

from ..converter.test_read import write_net
from .running import run_with


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundle "b" and a recording of it."""
    folder = tmp_path_factory.mktemp("verify")
    write_net(folder)
    files = [str(folder / name) for name in ("net.prototxt", "net.caffemodel", "b")]
    assert main(["convert", *files[:2], "-o", files[2], "--mean", "104,117,123"]) == 0
    net = read_net(folder / "net.prototxt", folder / "net.caffemodel")
    (blob,) = net.inputs
    inputs = {blob.name: np.random.default_rng(0).normal(0, 50, blob.shape).astype(np.float32)}
    recorded = {f"input:{blob.name}": inputs[blob.name], **run_blobs(to_torch(net), inputs)}
    np.savez(folder / "same.npz", **recorded)
    return folder


@pytest.fixture
def run(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `atrous verify b ...`: (exit code, stdout, stderr)."""
    monkeypatch.chdir(made)

    def run_verify(*arguments: str) -> tuple[int, str, str]:
        return run_with(capsys, "verify", "b", *arguments)

    return run_verify


def test_odd_even_and_least_sizes(run: Any) -> None:
    code, out, err = run("--size", "57x49", "--size", "64x40", "--size", "1x1", "--json")
    reports = json.loads(out)["reports"]
    assert (code, err) == (0, "")
    assert [next(iter(report["input_shapes"].values()))[2:] for report in reports] == [[57, 49], [64, 40], [1, 1]]
    assert all(report["passed"] for report in reports)


def test_recorded_blobs_that_agree(run: Any) -> None:
    code, out, _ = run("--against", "same.npz")
    assert code == 0
    assert "torch equals Caffe" in out
    assert "model.onnx equals Caffe" in out


def test_the_first_changed_blob_is_named_with_what_feeds_it(run: Any) -> None:
    with np.load("same.npz") as stored:
        arrays = dict(stored)
    keys = [key for key in arrays if not key.startswith("input:")]
    arrays[keys[2]] += np.abs(arrays[keys[2]]).max()
    arrays[keys[3]] += 1000
    np.savez("changed.npz", **arrays)
    code, out, err = run("--against", "changed.npz")
    assert code == 1
    assert f"differs from Caffe first at {keys[2]}" in out + err
    assert f"it reads {keys[1]}" in out + err


def test_a_plot_that_cannot_be_written_is_noticed_before_the_work(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atrous.converter.verify_bundle", None)  # the work must not begin
    for place in ("net.prototxt/plot.png", "b"):
        code, out, err = run("--plot", place)
        assert (code, out, err.count("\n")) == (2, "", 1)


def test_the_tables_are_printed_even_if_the_plot_cannot_be_written(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr("atrous.scripts.verify_picture.draw_errors", fail)
    code, out, err = run("--plot", "plot.png")
    assert code == 2
    assert "model.onnx against torch" in out
    assert err.endswith("the disk is full\n")
    code, out, err = run("--plot", "plot.png", "--json")
    assert code == 2
    assert json.loads(out)["error"]["message"] == "the disk is full"
    assert json.loads(out)["reports"]


@pytest.mark.parametrize("size", ["0x5", "-1x5", "20000x8", "5", "axb"])
def test_sizes_that_are_none(run: Any, size: str) -> None:
    code, _, err = run("--size", size)
    assert (code, err.count("\n")) == (2, 1)
    assert size in err


def write_bad_recording(path: Path) -> None:
    kind = path.stem
    if kind == "cut":
        path.write_bytes(Path("same.npz").read_bytes()[:400])
    elif kind == "text":
        path.write_text("layer { }")
    elif kind == "single":
        with path.open("wb") as stream:
            np.save(stream, np.zeros(3))
    elif kind == "pickled":
        np.savez(path, **{"input:data": np.array([{}], object)})
    elif kind == "blind":
        np.savez(path, **{"conv1:conv1": np.zeros(3)})
    elif kind == "claims":
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1048576, 1048576), }".ljust(117) + b"\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("input:data.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
    elif kind == "encrypted":
        np.savez(path, **{"input:data": np.zeros(3)})
        content = path.read_bytes()
        at = content.index(b"PK\1\2") + 8
        path.write_bytes(content[:at] + b"\1" + content[at + 1 :])
    elif kind == "flat":
        np.savez(path, **{"input:data": np.zeros(3)})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cut.npz", "is not an .npz of plain arrays"),
        ("text.npz", "is not an .npz of plain arrays"),
        ("single.npz", "is not an .npz of plain arrays"),
        ("pickled.npz", "is not an .npz of plain arrays"),
        ("claims.npz", "is not an .npz of plain arrays"),
        ("encrypted.npz", "is not an .npz of plain arrays"),
        ("blind.npz", "holds no array input:data"),
        ("flat.npz", "does not run on data of 3"),
    ],
)
def test_recordings_that_are_none(run: Any, name: str, words: str) -> None:
    write_bad_recording(Path(name))
    code, _, err = run("--against", name)
    assert (code, err.count("\n")) == (2, 1), err
    assert words in err
    assert "pickle" not in err.replace(name, "")


def test_runs_the_checked_source_and_no_bytecode_cache(run: Any, tmp_path: Path) -> None:
    trace, cache = tmp_path / "trace", Path(importlib.util.cache_from_source("b/model.py"))
    evil = tmp_path / "evil.py"
    evil.write_text(f"{Path('b/model.py').read_text()}\nopen({str(trace)!r}, 'w')\n")
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH  # valid whatever model.py says
    py_compile.compile(str(evil), str(cache), dfile="model.py", doraise=True, invalidation_mode=unchecked)
    try:
        assert run("--size", "57x49")[0] == 0
        assert not trace.exists()
    finally:
        cache.unlink()
        cache.parent.rmdir()


def test_leaves_the_bundle_as_it_was(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    before = sorted(Path("b").rglob("*"))
    assert run("--size", "57x49")[0] == 0
    assert sorted(Path("b").rglob("*")) == before
