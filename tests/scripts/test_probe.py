"""`atrous probe`, and `segment` with another preprocessing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atrous.converter import BundleOptions, PreprocessingOptions, write_bundle

from ..converter.nets import DEEPLAB, read_seeded
from .running import run_with


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two bundles of one net, `b` and `other`, which has another preprocessing, and `photo.png`."""
    net = read_seeded(DEEPLAB)
    for name, pixels in (
        ("b", PreprocessingOptions(mean=(104.0, 117.0, 123.0))),
        ("other", PreprocessingOptions(mean=(0.0, 0.0, 0.0), scale=1 / 64, color_order="RGB")),
    ):
        write_bundle(net, tmp_path / name, BundleOptions(preprocessing=pixels, verify=False))
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((80, 60)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], workplace: Path) -> Any:
    def run_atrous(*words: str) -> tuple[int, str, str]:
        return run_with(capsys, *words)

    return run_atrous


def test_contact_sheet(run: Any) -> None:
    code, out, _ = run("probe", "b", "photo.png", "-o", "sheets/probe.png", "--threads", "1")
    assert code == 0
    assert "20 trials -> sheets/probe.png" in out
    assert "(the bundle's)" in out
    with Image.open("sheets/probe.png") as sheet:
        assert sheet.width == 4 * 370 + 10
        assert sheet.height > 5 * 270


def test_json_and_one_size(run: Any) -> None:
    code, out, _ = run("probe", "b", "photo.png", "--size", "41x49", "--json", "--threads", "1")
    assert code == 0
    trials = json.loads(out)["trials"]
    assert len(trials) == 10
    assert {tuple(trial["network_size"]) for trial in trials} == {(41, 49)}
    assert [trial["is_present"] for trial in trials].count(True) == 1
    bits = [trial["information_bits"] for trial in trials]
    assert bits == sorted(bits, reverse=True)


def test_segment_with_another_preprocessing(run: Any) -> None:
    """The labels are those of a bundle converted with it, and are done anew."""
    assert run("segment", "other", "photo.png", "-o", "expected")[0] == 0
    assert run("segment", "b", "photo.png", "-o", "out")[0] == 0
    code, out, _ = run(
        "segment", "b", "photo.png", "-o", "out", "--mean", "0", "--scale", "0.015625", "--color-order", "RGB"
    )
    assert code == 0
    assert "tried --mean 0,0,0 --scale 0.015625 --color-order RGB: convert the net again" in out
    assert Path("out/photo.png").read_bytes() == Path("expected/photo.png").read_bytes()
    code, out, _ = run("segment", "b", "photo.png", "-o", "more", "--color-order", "RGB", "--json")
    assert json.loads(out)["preprocessing"] == {"color_order": "RGB", "mean": [123.0, 117.0, 104.0], "scale": 1.0}


def test_mistakes(run: Any) -> None:
    for words, part in (
        (("--mean", "1,2"), "is not one number or three"),
        (("--mean", "a"), "is not one number or three"),
        (("--scale", "0"), "not 0"),
        (("--scale", "2", "--precision", "fp16"), "fp16 network has its preprocessing built in"),
    ):
        code, _, err = run("segment", "b", "photo.png", "-o", "out", *words)
        assert code == 2
        assert part in err
    assert run("probe", "b", "nothing.png")[0] == 2
    assert not Path("probe.png").exists()
