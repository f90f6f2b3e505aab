"""bench_presets: published sizes and figures, the net's shape, bundles made once, the command that measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from atrous.converter import read_net
from atrous.runtime import read_bundle
from tools import bench_presets
from tools.large_fov import write_prototxt

from ..runtime.bundles import write_bundle


def test_a_preset_is_largefov_of_its_classes_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def make(preset: bench_presets.Preset, path: Path) -> None:
        made.append(preset.classes)
        write_bundle(path)

    monkeypatch.setattr(bench_presets, "make_preset_bundle", make)
    path = bench_presets.open_preset_bundle(bench_presets.PRESETS["camvid"], tmp_path)
    bench_presets.open_preset_bundle(bench_presets.PRESETS["camvid"], tmp_path)
    assert made == [11]
    (path / "deploy.onnx").write_bytes(b"x" * (path / "deploy.onnx").stat().st_size)  # damaged: made again
    bench_presets.open_preset_bundle(bench_presets.PRESETS["camvid"], tmp_path)
    assert made == [11, 11]
    read_bundle(path).verify_files()


def test_the_presets_net_has_the_published_shape() -> None:
    net = read_net(write_prototxt(19))
    shapes = {layer.name: [tuple(shape) for shape in layer.operator.weight_shapes()] for layer in net.layers}
    assert shapes["fc6"][0] == (1024, 512, 3, 3)
    assert shapes["fc8"][0] == (19, 1024, 1, 1)
    count = sum(int(np.prod(shape)) for layer in shapes.values() for shape in layer)
    assert 20.4e6 < count < 20.6e6  # the paper's "20.5M parameters" of LargeFOV


def test_published_sizes_and_figures() -> None:
    assert {name: (*preset[:3], *preset[4:6]) for name, preset in bench_presets.PRESETS.items()} == {
        "voc": (513, 513, 21, None, 8.0),
        "cityscapes": (1024, 2048, 19, 4000.0, 0.25),
        "camvid": (360, 480, 11, 203.0, 4.9),
        "sun-rgbd": (530, 730, 37, None, None),
    }


def test_it_prints_the_figures_and_runs_the_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(bench_presets, "open_preset_bundle", lambda preset: tmp_path)
    monkeypatch.setattr(bench_presets, "run_atrous", lambda command: commands.append(command) or 0)
    assert bench_presets.main(["camvid", "--threads", "2"]) == 0
    assert "203 ms, 4.9 images/s, network on a GPU" in capsys.readouterr().out
    assert commands[0][:4] == ["bench", str(tmp_path), "--size", "360x480"]
    assert commands[0][-2:] == ["--threads", "2"]
