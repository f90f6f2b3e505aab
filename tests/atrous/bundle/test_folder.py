"""Bundles on disk: incomplete, altered and hostile ones are refused."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from atrous.bundle.folder import read_bundle
from atrous.errors import BundleError

from ...runtime.bundles import make_manifest, write_bundle


@pytest.fixture
def bundle_dir(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def test_reads(bundle_dir: Path) -> None:
    bundle = read_bundle(bundle_dir)
    content = bundle.read_file("deploy.onnx")
    assert hashlib.sha256(content).hexdigest() == bundle.manifest.files["deploy.onnx"].sha256
    bundle.verify_files()


def test_reads_through_a_link_to_the_folder(bundle_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle_dir)
    read_bundle(str(tmp_path / "link")).verify_files()


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        read_bundle(tmp_path / "nothing")
    with pytest.raises(BundleError, match=r"holds no manifest\.json"):
        read_bundle(tmp_path)
    write_bundle(tmp_path / "made")
    with pytest.raises(BundleError, match=r"not a bundle: give .*made$"):
        read_bundle(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="a bundle is a folder"):
        read_bundle(tmp_path / "file")
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(BundleError, match="cannot be read"):
        read_bundle(tmp_path)


def test_file_missing(bundle_dir: Path) -> None:
    (bundle_dir / "deploy.onnx").unlink()
    with pytest.raises(BundleError, match="cannot be opened"):
        read_bundle(bundle_dir)


def test_file_of_another_size(bundle_dir: Path) -> None:
    with (bundle_dir / "deploy.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match="the manifest says"):
        read_bundle(bundle_dir)


def test_file_altered(bundle_dir: Path) -> None:
    path = bundle_dir / "deploy.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    bundle = read_bundle(bundle_dir)  # sizes agree
    with pytest.raises(BundleError, match="was altered"):
        bundle.read_file("deploy.onnx")
    with pytest.raises(BundleError, match="was altered"):
        bundle.verify_files()


def test_unlisted_file_is_never_read(bundle_dir: Path) -> None:
    (bundle_dir / "model.py").write_text("raise SystemExit")
    with pytest.raises(BundleError, match=r'has no file "model\.py"'):
        read_bundle(bundle_dir).read_file("model.py")


@pytest.mark.parametrize("is_folder", [False, True])
def test_link_out(tmp_path: Path, is_folder: bool) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "deploy.onnx").write_bytes(b"secret")
    bundle_dir = tmp_path / "bundle"
    bundle_dir.mkdir()
    name = "sub/deploy.onnx" if is_folder else "deploy.onnx"
    if is_folder:
        (bundle_dir / "sub").symlink_to(secret)
    else:
        (bundle_dir / name).symlink_to(secret / "deploy.onnx")
    manifest = make_manifest({name: b"secret"})
    manifest["deploy"]["file"] = name
    (bundle_dir / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="leaves the bundle"):
        read_bundle(bundle_dir)


def test_link_loop_and_folder(bundle_dir: Path) -> None:
    path = bundle_dir / "deploy.onnx"
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(BundleError, match="cannot be opened"):
        read_bundle(bundle_dir)
    path.unlink()
    path.mkdir()
    with pytest.raises(BundleError, match="not a regular file"):
        read_bundle(bundle_dir)


def test_a_sparse_file_larger_than_any_model_is_not_read(bundle_dir: Path) -> None:
    """A file of 40 GB that takes no room on the disk ended in a MemoryError."""
    path = bundle_dir / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["deploy.onnx"]["bytes"] = 40 << 30
    path.write_text(json.dumps(manifest))
    os.truncate(bundle_dir / "deploy.onnx", 40 << 30)
    with pytest.raises(BundleError, match="more than an ONNX file can have"):
        read_bundle(bundle_dir).read_file("deploy.onnx")
