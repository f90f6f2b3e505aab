"""Bundles are replaced in one step; writers exclude each other; what a killed one left is removed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atrous.bundle import files, writing
from atrous.bundle.folder import Bundle, read_bundle
from atrous.bundle.manifest import GraphFacts, Variant
from atrous.bundle.writing import add_variant, new_bundle
from atrous.errors import BundleError, OutputError

from ...processes import child_env
from ...runtime.bundles import write_bundle

FP16 = Variant(file="deploy.fp16.onnx", precision="fp16", verification={"passed": True})
FACTS = GraphFacts(
    opset=17, inputs={}, outputs={}, types=(), subgraphs=(), quantized=False,
    node_precisions={}, wide_nodes={}, patterns={},
)  # fmt: skip


@pytest.fixture
def versions(tmp_path: Path) -> dict[str, Path]:
    """Two bundles with other files, "scores" and "labels"."""
    return {head: write_bundle(tmp_path / "versions" / head, head=head) for head in ("scores", "labels")}


@pytest.fixture
def target(tmp_path: Path, versions: dict[str, Path]) -> Path:
    """A bundle in a folder of its own; the version "scores"."""
    return shutil.copytree(versions["scores"], tmp_path / "home" / "b")


def replace(target: Path, source: Path) -> None:
    with new_bundle(target, replace=True) as place:
        shutil.copytree(source, place, dirs_exist_ok=True)


def read_head(target: Path) -> str:
    """The version of a bundle, after a check of its files; there must be nothing beside it."""
    bundle = read_bundle(target)
    bundle.verify_files()
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    return bundle.deploy.head


def do_meanwhile(work: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    """Start work in another thread and give it time to end or to wait for a lock; its errors are collected."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(0.1)
    return thread, errors


def test_readers_find_a_whole_bundle_at_every_moment(target: Path, versions: dict[str, Path]) -> None:
    heads, errors, is_over = set[str](), list[BaseException](), threading.Event()

    def read() -> None:
        while not is_over.is_set():
            try:
                heads.add(read_bundle(target).deploy.head)
            except BaseException as error:
                errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(30):
        replace(target, versions["labels" if number % 2 else "scores"])
    is_over.set()
    reader.join()
    assert errors == []
    assert heads == {"scores", "labels"}


def test_a_bundle_replaced_while_it_is_read_is_read_again(
    target: Path, versions: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    locate = Bundle.locate_file

    def replace_first(self: Bundle, name: str) -> Path:
        monkeypatch.setattr(Bundle, "locate_file", locate)
        replace(target, versions["labels"])
        return locate(self, name)

    monkeypatch.setattr(Bundle, "locate_file", replace_first)
    assert read_bundle(target).deploy.head == "labels"


@pytest.mark.parametrize("swaps", [True, False])
def test_a_variant_and_a_replacement_wait_for_each_other(
    target: Path, versions: dict[str, Path], monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    """The second of the two finds a whole bundle, and the new one is never mixed with parts of the old one."""
    if not swaps:
        monkeypatch.setattr(writing, "_exchange", lambda *_: False)
    digest = read_bundle(target).manifest.files["deploy.onnx"].sha256
    started: list[tuple[threading.Thread, list[BaseException]]] = []
    write_file, check_target = writing.write_file, writing.check_target

    def add() -> None:
        add_variant(target, FP16, b"model", FACTS, digest)

    def write_while_it_is_replaced(path: Path, *arguments: Any, **options: Any) -> None:
        if not started:
            started.append(do_meanwhile(lambda: replace(target, versions["labels"])))
        write_file(path, *arguments, **options)

    monkeypatch.setattr(writing, "write_file", write_while_it_is_replaced)
    add()
    started[0][0].join()
    assert started.pop()[1] == []
    monkeypatch.setattr(writing, "write_file", write_file)
    assert read_head(target) == "labels"
    assert not read_bundle(target).manifest.variants

    calls = 0

    def add_before_the_swap(*arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        check_target(*arguments, **options)
        if calls == 2:  # the first is at the beginning, the second under the lock
            started.append(do_meanwhile(add))

    digest = read_bundle(target).manifest.files["deploy.onnx"].sha256
    monkeypatch.setattr(writing, "check_target", add_before_the_swap)
    replace(target, versions["scores"])
    started[0][0].join()
    (error,) = started[0][1]
    assert isinstance(error, BundleError)
    assert "converted anew in the meantime" in str(error)
    assert read_head(target) == "scores"


def test_without_a_swap_a_failed_rename_keeps_the_old_bundle(
    target: Path, versions: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_exchange", lambda *_: False)
    replace(target, versions["labels"])
    assert read_head(target) == "labels"
    rename, calls = Path.rename, 0

    def fail_third(self: Path, other: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == 3:  # to the target, to the old bundle's new place, to the target
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", fail_third)
    with pytest.raises(OutputError, match="Input/output error"):
        replace(target, versions["scores"])
    assert read_head(target) == "labels"


# Replaces a bundle and is killed: when its files are written, between the two renames, or after the swap.
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from atrous.bundle import writing
target, source, moment = sys.argv[1:]

def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)

def rename(self, other, whole=Path.rename):
    whole(self, other)
    if str(other).endswith(".old"): die()

if moment == "filled": writing._put_in_place = die
if moment == "renamed": writing._exchange, Path.rename = (lambda *_: False), rename
if moment == "swapped": writing.flush_folder = lambda folder: folder == Path(target).parent and die()
with writing.new_bundle(Path(target), replace=True) as place:
    shutil.copytree(source, place, dirs_exist_ok=True)
"""


@pytest.mark.parametrize(("moment", "found"), [("filled", "scores"), ("renamed", "scores"), ("swapped", "labels")])
def test_killed_writers_lose_nothing_and_are_swept(
    target: Path, versions: dict[str, Path], moment: str, found: str
) -> None:
    line = [sys.executable, "-c", KILLED, str(target), str(versions["labels"]), moment]
    assert subprocess.run(line, env=child_env(), check=False, timeout=60).returncode == -signal.SIGKILL
    assert len(os.listdir(target.parent)) == 2
    with pytest.raises(OutputError, match="a bundle is there already"), new_bundle(target):
        pass
    assert read_head(target) == found


def test_a_living_writer_is_not_swept(target: Path, versions: dict[str, Path]) -> None:
    with new_bundle(target, replace=True) as place:
        shutil.copytree(versions["labels"], place, dirs_exist_ok=True)
        replace(target, versions["scores"])
        assert place.exists()
    assert read_head(target) == "labels"


def test_a_folder_swept_before_it_was_locked_is_made_again(
    target: Path, versions: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sweep_first(path: Path, **options: Any) -> contextlib.AbstractContextManager[bool]:
        monkeypatch.setattr(writing, "locked_folder", files.locked_folder)
        path.rmdir()
        return files.locked_folder(path, **options)

    monkeypatch.setattr(writing, "locked_folder", sweep_first)
    replace(target, versions["labels"])
    assert read_head(target) == "labels"


@pytest.mark.parametrize("code", [errno.EBADF, errno.ENOLCK])
def test_a_file_system_without_locks(
    target: Path, versions: dict[str, Path], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Bundles are written there too, but a folder that may belong to a living writer is left alone."""
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    other = target.parent / ".b.0123456789ab.part"
    other.mkdir()
    replace(target, versions["labels"])
    other.rmdir()
    assert read_head(target) == "labels"
    digest = read_bundle(target).manifest.files["deploy.onnx"].sha256
    add_variant(target, FP16, b"model", FACTS, digest)
    assert "fp16" in read_bundle(target).manifest.variants


def test_files_are_on_the_disk_before_the_bundle_is_in_place(
    target: Path, versions: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    put, fsync = writing._put_in_place, os.fsync

    def note(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def check_first(place: Path, *arguments: Any) -> None:
        assert {path.stat().st_ino for path in (place, *place.iterdir())} == set(flushed)
        put(place, *arguments)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(writing, "_put_in_place", check_first)
    replace(target, versions["labels"])
    assert flushed[-1] == target.parent.stat().st_ino


def test_a_disk_that_is_full_when_it_is_flushed(
    target: Path, versions: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputError, match="No space left on device"):
        replace(target, versions["labels"])
    assert read_head(target) == "scores"
