"""A bundle whose CRF runs on the (emulated) GPU, and what is said where there is none."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous import runtime
from atrous.errors import InputError, MissingDependencyError
from atrous.runtime.crf import gpu
from atrous.runtime.crf.gpu import engine
from atrous.scripts.main import main
from tools.cuda_on_cpu.driver import EmulatedDriver

from .bundles import CRF, make_image, write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path, "lowres", crf=CRF)


def test_labels_are_the_cpus(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler (set CXX)")
    emulation = EmulatedDriver()
    for module in (gpu, engine):
        monkeypatch.setattr(module, "open_driver", lambda: emulation)
    image = make_image(33, 41)
    with runtime.load(bundle) as on_cpu, runtime.load(bundle, crf_device="cuda") as on_gpu:
        expected, found = (segmenter.probabilities(image) for segmenter in (on_cpu, on_gpu))
        np.testing.assert_array_equal(found, expected)
        assert emulation.launches
        assert on_gpu.derive(crf=None, sizing=on_gpu.sizing).crf_device == "cpu"


def test_wrong_choices(bundle: Path) -> None:
    with pytest.raises(InputError, match="no shortcuts on a GPU"):
        runtime.load(bundle, crf_device="cuda", crf_shortcuts={"settle": 0.9})
    with pytest.raises(InputError, match="leave the device out"):
        runtime.load(bundle, crf_device="cuda", crf=False)
    with pytest.raises(InputError, match='"cpu" or "cuda"'):
        runtime.load(bundle, crf_device="gpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["cuda", "cuda.bindings"])
def test_without_cuda_bindings(bundle: Path, missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (missing, "cuda.bindings"):  # the latter may have been imported
        monkeypatch.setitem(sys.modules, name, None)
    gpu.open_driver.cache_clear()
    with pytest.raises(MissingDependencyError, match=r'pip install "atrous\[gpu\]"'):
        runtime.load(bundle, crf_device="cuda")


def test_the_command_without_cuda_bindings(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    gpu.open_driver.cache_clear()
    Image.fromarray(make_image(33, 41)).save(tmp_path / "photo.png")
    out = tmp_path / "out"
    code = main(["segment", str(bundle), str(tmp_path / "photo.png"), "-o", str(out), "--crf-device", "cuda"])
    assert code == 3
    assert 'pip install "atrous[gpu]"' in capsys.readouterr().err
    assert not (out / "photo.png").exists()
