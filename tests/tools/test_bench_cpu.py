"""bench_cpu: every library's numbers agree, and one that differs is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tools import bench_cpu
from tools.bench_cpu import Contender, DisagreementError, compare, measure, summarize
from tools.large_fov import read_large_fov

pytest.importorskip("torch", reason="torch is not installed")


def test_the_miniature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cv2", reason="opencv is not installed")
    arguments = ["--net", "miniature", "--size", "41", "49", "--threads", "1", "--rounds", "2"]
    names = "onnxruntime;openvino;torch eager;torch channels_last;opencv;onnxruntime, no spinning"
    code = bench_cpu.main([*arguments, "--only", names, "--plot", str(tmp_path / "p.png")])
    printed = capsys.readouterr().out
    assert code == 0, printed
    report = json.loads(printed.splitlines()[-1])
    assert [row["name"] for row in report["contenders"]] == names.split(";")
    for row in report["contenders"]:
        assert row["max_difference"] < bench_cpu.TOLERANCE
        assert len(row["times_ms"]) == 2
        assert row["gflops_per_s"] > 0
    assert report["contenders"][0]["ratio"] == 1
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_cpu.main(["--net", "miniature", "--size", "41", "49", "--only", "caffe"]) == 2
    assert 'no "caffe"' in capsys.readouterr().out


def make_contender(name: str, precision: str = "fp32", off: float = 0.0) -> Contender:
    scores = np.linspace(0, 10, 4 * 6, dtype=np.float32).reshape(4, 2, 3)
    return Contender(name, precision, run=lambda image: scores + np.float32(off))


def test_disagreement_is_found() -> None:
    images = [np.zeros((1, 2, 3, 3), np.uint8)]
    measure([make_contender("a"), make_contender("b", off=1e-4)], images, 2, 10)
    with pytest.raises(DisagreementError, match="b differs"):
        measure([make_contender("a"), make_contender("b", off=1e-2)], images, 2, 10)
    variant = make_contender("b int8", "int8", off=1e-2)
    measure([make_contender("a"), variant], images, 2, 10)
    assert variant.max_difference == pytest.approx(1e-3, rel=1e-3)
    with pytest.raises(DisagreementError):  # whatever the precision
        compare(variant, np.full((4, 2, 3), np.nan, np.float32), np.ones((4, 2, 3), np.float32))


def test_ratios_are_of_the_same_round() -> None:
    one, other = make_contender("a"), make_contender("b")
    one.times_ms, other.times_ms = [10.0, 100.0, 10.0], [20.0, 150.0, 30.0]
    found = summarize(other, one, 2.0)
    assert (found["ratio"], found["ratio_low"], found["ratio_high"]) == (2.0, 1.5, 3.0)
    assert found["median_ms"] == 30.0
    assert found["gflops_per_s"] == pytest.approx(2 / 0.030)


def test_large_fov_is_the_published_net() -> None:
    """Chen et al. 2015, table 4: 20.5 million parameters with a 3x3 fc6 of 1024 channels at dilation 12; 65x65 maps."""
    net = read_large_fov()
    weights = sum(int(np.prod(shape)) for layer in net.layers for shape in layer.operator.weight_shapes())
    assert round(weights / 1e6, 1) == 20.5
    shapes = {top.name: tuple(top.shape) for layer in net.layers for top in layer.tops}
    assert shapes["fc8"] == (1, 21, 65, 65)
    assert shapes["fc8_interp"] == (1, 21, 513, 513)
    (fc6,) = [layer for layer in net.layers if layer.name == "fc6"]
    values = net.parameters[fc6.parameters[0]]
    assert float(values.std()) == pytest.approx(np.sqrt(2 / (512 * 9)), rel=0.01)
