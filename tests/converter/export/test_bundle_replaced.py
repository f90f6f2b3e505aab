"""Bundles are complete or absent, and replace nothing but bundles."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from atrous.converter import BundleOptions, write_bundle
from atrous.errors import ConverterError, OutputError, VerificationError

from ..nets import DEEPLAB, read_seeded
from .bundles import FILES, read_manifest, write


def test_crash_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise RuntimeError("power cut")

    steps = ("write_model_source", "export_part", "export_deploy", "verify_model")
    for step in (*(f"converter.export.bundle.{name}" for name in steps), "bundle.writing._put_in_place"):
        monkeypatch.setattr(f"atrous.{step}", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            write_bundle(read_seeded(DEEPLAB), tmp_path / "b")
        monkeypatch.undo()
        assert list(tmp_path.iterdir()) == [], step


def test_interruption_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "b", name="old")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == tmp_path / "b" and not self.name.endswith(".old"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(read_seeded(DEEPLAB), tmp_path / "b", BundleOptions(name="new"), replace=True)
    monkeypatch.undo()
    assert read_manifest(tmp_path / "b").name == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_stages_that_disagree_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def corrupt(stage: Any, inputs: Any) -> Any:
        blobs = run(stage, inputs)
        blobs["conv3:conv3"] = blobs["conv3:conv3"] + 1
        return blobs

    from atrous.converter.check.stages import OnnxStage

    run = OnnxStage.run
    monkeypatch.setattr(OnnxStage, "run", corrupt)
    with pytest.raises(
        VerificationError, match=r"differs from torch first at conv3:conv3 .*it reads pool2:pool2"
    ) as caught:
        write_bundle(read_seeded(DEEPLAB), tmp_path / "b")
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_existing_bundle_is_replaced_only_when_asked(tmp_path: Path) -> None:
    write(tmp_path / "b", name="first")
    with pytest.raises(OutputError, match="a bundle is there already; give --force"):
        write(tmp_path / "b", name="second")
    assert read_manifest(tmp_path / "b").name == "first"
    write_bundle(read_seeded(DEEPLAB), tmp_path / "b", BundleOptions(name="second"), replace=True)
    assert read_manifest(tmp_path / "b").name == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("replace", [False, True])
def test_nothing_but_a_bundle_is_ever_overwritten(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("years")
    (tmp_path / "file").write_text("more years")
    for name in ("folder", "file"):
        with pytest.raises(OutputError, match="exists and is not a bundle; choose another folder"):
            write_bundle(read_seeded(DEEPLAB), tmp_path / name, replace=replace)
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "years"


OTHER_MANIFESTS = [
    '{"name": "a web extension", "manifest_version": 3}',
    '{"schema_version": 99}',
    "[]",
    "[" * 9999,
    "{",
]


@pytest.mark.parametrize("manifest", OTHER_MANIFESTS, ids=range(len(OTHER_MANIFESTS)))
def test_folder_with_the_manifest_of_something_else_is_kept(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    (tmp_path / "main.js").write_text("years")
    with pytest.raises(OutputError, match="exists and is not a bundle; choose another folder"):
        write_bundle(read_seeded(DEEPLAB), tmp_path, replace=True)
    assert (tmp_path / "main.js").read_text() == "years"


ENGINE = f"engines/{'0a' * 32}"


@pytest.mark.parametrize(
    "name",
    ["notes.txt", ".git/HEAD", "src/main.js", "deploy.fp32.onnx", "engines/thesis.txt", f"{ENGINE}/thesis.plan",
     f"{ENGINE}/more/engine.json", f"{ENGINE[:-1]}/engine.json", "engines.old/x", "__pycache__/other.pyc", "Model.py"],
)  # fmt: skip
def test_bundle_with_other_files_is_kept(tmp_path: Path, deeplab: Path, name: str) -> None:
    folder = shutil.copytree(deeplab, tmp_path / "b")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("years")
    with pytest.raises(OutputError, match=rf"b: contains .*{name.split('/')[-1]}.*; move them away"):
        write_bundle(read_seeded(DEEPLAB), folder, replace=True)
    assert (folder / name).read_text() == "years"


def test_bundle_with_a_linked_folder_is_kept(tmp_path: Path, deeplab: Path) -> None:
    folder = shutil.copytree(deeplab, tmp_path / "b")
    (tmp_path / "home").mkdir()
    (folder / "engines").symlink_to(tmp_path / "home")
    with pytest.raises(OutputError, match="b: contains engines, which"):
        write_bundle(read_seeded(DEEPLAB), folder, replace=True)


def test_bundle_with_variants_and_engines_is_replaced(tmp_path: Path, deeplab: Path) -> None:
    folder = shutil.copytree(deeplab, tmp_path / "b")
    for name in (
        "deploy.fp16.onnx", f"deploy.int8.{'0a' * 6}.onnx", ".deploy.fp16.onnx.abcd_123", f"{ENGINE}/engine.json",
        f"{ENGINE}/{'0a' * 16}.plan", f"{ENGINE}/{'0a' * 16}.timing", f"{ENGINE}/.engine.json.0a0a.part",
        "__pycache__/model.cpython-311.pyc",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    write_bundle(read_seeded(DEEPLAB), folder, replace=True)
    assert {path.name for path in folder.iterdir()} == FILES


def test_file_added_while_converting_is_kept(tmp_path: Path, deeplab: Path) -> None:
    folder = shutil.copytree(deeplab, tmp_path / "b")

    def add_file(step: str) -> None:
        (folder / "thesis.txt").write_text("years")

    with pytest.raises(OutputError, match=r"contains thesis\.txt"):
        write_bundle(read_seeded(DEEPLAB), folder, replace=True, progress=add_file)
    assert (folder / "thesis.txt").read_text() == "years"


def test_two_writers_of_one_folder(tmp_path: Path, deeplab: Path) -> None:
    def finish_other(step: str) -> None:
        if step.startswith("moving"):
            shutil.copytree(deeplab, tmp_path / "b")

    with pytest.raises(OutputError, match="a bundle is there already; give --force"):
        write_bundle(read_seeded(DEEPLAB), tmp_path / "b", progress=finish_other)


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert write(tmp_path / "b").name == "mini-deeplab"


def test_current_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    write_bundle(read_seeded(DEEPLAB), ".")
    assert read_manifest(tmp_path / "b").name == "mini-deeplab"


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    assert write(tmp_path / "a" / "b" / "c").name == "mini-deeplab"


@pytest.mark.parametrize("below", ["b", "deeper/b"])
def test_folder_that_cannot_be_written(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/.*: cannot be written \(.*\); choose a folder you may write"):
        write(tmp_path / "file" / below)


def test_a_source_file_that_is_gone_is_named_as_such(tmp_path: Path) -> None:
    gone = tmp_path / "gone.prototxt"
    sources = (("prototxt", gone, "V1", "deeplab_v1"),)
    with pytest.raises(ConverterError, match=r"gone\.prototxt: cannot be read \(No such file or directory\)") as caught:
        write_bundle(read_seeded(DEEPLAB), tmp_path / "b", BundleOptions(sources=sources, verify=False))
    assert not isinstance(caught.value, OutputError)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", [OSError, SafetensorError])
def test_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device") if kind is OSError else SafetensorError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_model", fail)
    with pytest.raises(OutputError, match=r"/b: cannot be written \(No space left on device\)"):
        write(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        write(tmp_path / "b", verify=False)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o777 & ~mask
    for path in (tmp_path / "b").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask, path.name


def test_steps_are_reported_in_order(tmp_path: Path) -> None:
    steps: list[str] = []
    write_bundle(read_seeded(DEEPLAB), tmp_path / "b", progress=steps.append)
    assert steps == [
        "building the torch module",
        "writing model.py and model.safetensors",
        "writing model.onnx",
        "writing deploy.onnx",
        "comparing torch and ONNX Runtime",
        "moving the bundle into place",
    ]
