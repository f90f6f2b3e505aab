"""Packed bundles label images as the bundle does, and hold nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atrous.bundle import pack_bundle, read_bundle
from atrous.errors import BundleError, OutputError
from atrous.runtime import load

from ...runtime.bundles import CRF, make_image, write_torch_bundle
from ...scripts.running import run_atrous


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_torch_bundle(tmp_path / "b", crf=CRF)


def test_it_labels_as_the_bundle(source: Path, tmp_path: Path) -> None:
    packed = pack_bundle(source, tmp_path / "packed")
    assert sorted(path.name for path in packed.path.iterdir()) == ["deploy.onnx", "manifest.json"]
    packed.verify_files()
    image = make_image(24, 32)
    with load(source) as before, load(packed.path) as after:
        np.testing.assert_array_equal(after.probabilities(image), before.probabilities(image))
    assert packed.manifest.verification == read_bundle(source).manifest.verification


def test_what_it_lacks_is_named(source: Path, tmp_path: Path) -> None:
    pack_bundle(source, tmp_path / "packed")
    with pytest.raises(BundleError, match=r'has no file "model\.'):
        load(tmp_path / "packed", "torch")
    done = run_atrous("verify", tmp_path / "packed")
    assert done.code == 2
    assert 'has no file "model.' in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_refusals(source: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has no variant in int8: add it with `atrous precision`"):
        pack_bundle(source, tmp_path / "packed", precisions=["fp32", "int8"])
    with pytest.raises(OutputError):
        pack_bundle(source, source)
    (source / "deploy.onnx").write_bytes(bytes((source / "deploy.onnx").stat().st_size))
    with pytest.raises(BundleError, match="sha256"):
        pack_bundle(source, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_the_command(source: Path, tmp_path: Path) -> None:
    done = run_atrous("pack", source, "-o", tmp_path / "packed")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.startswith("deploy.onnx: ")
    assert run_atrous("pack", source, "-o", tmp_path / "packed").code == 2
    found = run_atrous("pack", source, "-o", tmp_path / "packed", "--force", "--json").json
    assert (found["files"], found["bytes"]) == (["deploy.onnx"], (source / "deploy.onnx").stat().st_size)
