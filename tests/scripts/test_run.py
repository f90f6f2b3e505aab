"""`atrous run` as a user runs it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atrous.converter import BundleOptions, read_net, write_bundle

from ..converter.nets import conv, data, layer
from ..runtime.bundles import write_bundle as write_colors
from .running import run_with

POINTS = data(1, 3, 4, 4) + layer("InnerProduct", "ip", "data", "ip", "inner_product_param { num_output: 2 }")
CLASSES = (
    data(1, 1, 2, 2)
    + layer("InnerProduct", "ip", "data", "ip", "inner_product_param { num_output: 2 }")
    + layer("Softmax", "prob", "ip", "prob")
)
DEPTH = data(1, 4, 4, 4) + conv("score", "data", "score", 2)


def write(text: str, weights: dict[str, list[Any]], **options: Any) -> None:
    write_bundle(read_net(text, weights), "b", BundleOptions(verify=False, **options))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command in a folder with two photos; (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for index, name in enumerate(("one", "two")):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{name}.png")

    def call(*arguments: object) -> tuple[int, str, str]:
        return run_with(capsys, "run", "b", *map(str, arguments), "--threads", "1")

    return call


def test_classes(run: Any) -> None:
    write(CLASSES, {"ip": [np.zeros((2, 4), np.float32), np.array([0, np.log(3)], np.float32)]}, classes=("cat", "dog"))
    code, out, err = run("photos")
    assert (code, err) == (0, "")
    assert "dog 75.0%, cat 25.0%" in out
    code, out, _ = run("photos", "-o", "out", "--top", 1, "--json")
    report = json.loads(out)
    assert (code, report["command"], report["task"], report["failures"]) == (0, "run", "classify", [])
    first = report["images"][0]
    assert first["classes"] == [{"name": "dog", "label": 1, "probability": pytest.approx(0.75)}]
    assert json.loads(Path("out/one.json").read_text()) == {"schema_version": 1, **first}


def test_points_and_arrays(run: Any) -> None:
    write(POINTS, {"ip": [np.zeros((2, 48), np.float32), np.array([0.5, 0.25], np.float32)]}, task="points")
    code, out, _ = run("photos/one.png", "-o", "out", "--arrays", "--name", "path")
    assert code == 0
    assert "15,5" in out
    assert json.loads(Path("out/photos/one.png.json").read_text())["points"] == [[15, 5]]
    with np.load("out/photos/one.png.npz") as arrays:
        assert arrays["ip"].tolist() == [0.5, 0.25]
    with Image.open("out/photos/one.png.png") as drawn, Image.open("photos/one.png") as photo:
        changed = (np.array(drawn) != np.array(photo)).any(axis=2)
    assert changed[5, 15]
    assert changed.mean() < 0.1


def test_maps_of_several_planes(run: Any) -> None:
    """Key points of OpenPose: no picture, but arrays."""
    weights = {"heat": [np.ones((5, 3, 1, 1), np.float32), np.zeros(5, np.float32)]}
    write(data(1, 3, 4, 4) + conv("heat", "data", "heat", 5), weights, task="map")
    code, _, err = run("photos/one.png", "-o", "out")
    assert (code, "no picture among its outputs heat: use --arrays" in err) == (2, True)
    assert run("photos/one.png", "-o", "out", "--arrays")[0] == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["one.json", "one.npz"]
    assert "picture" not in json.loads(Path("out/one.json").read_text())["files"]
    assert "give --out too" in run("photos/one.png", "--arrays")[2]


def test_depth_beside_color(run: Any) -> None:
    weight = np.zeros((2, 4, 1, 1), np.float32)
    weight[1, 3] = 1
    bias = np.array([500, 0], np.float32)
    write(DEPTH, {"score": [weight, bias]}, classes=("near", "far"))
    Path("depth").mkdir()
    depth = np.where(np.arange(30) < 12, 400, 40_000).astype(np.uint16)[None].repeat(20, 0)
    Image.fromarray(depth).save("depth/one.png")
    np.save("depth/two.npy", depth)
    code, out, err = run("photos")
    assert (code, out) == (2, "")
    assert "this net needs --input depth=PATH (depth)" in err
    assert run("photos", "--input", "depth=depth", "-o", "out")[0] == 0
    for name in ("one", "two"):
        with Image.open(f"out/{name}.png") as labels:
            assert (np.array(labels) == (depth > 500)).all()
    Path("depth/two.npy").unlink()
    code, out, err = run("photos", "--input", "depth=depth", "--json")
    assert code == 1
    assert "has no file for two.png" in json.loads(out)["failures"][0]["error"]
    Path("depth/two.npy").write_bytes(b"\x80\x04pickled")
    assert "cannot be read as .npy" in run("photos", "--input", "depth=depth")[2]
    Image.new("RGB", (30, 20)).save("depth/rgb.png")
    assert "a plane has one channel" in run("photos/one.png", "--input", "depth=depth/rgb.png")[2]


def test_an_enlarged_image(run: Any) -> None:
    write(
        data(1, 3, 4, 4) + conv("a", "data", "a", 3),
        {"a": [np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), np.zeros(3, np.float32)]},
        task="image",
    )
    assert run("photos/one.png", "--upscale", 2, "-o", "out")[0] == 0
    with Image.open("out/one.png") as picture, Image.open("photos/one.png") as photo:
        expected = photo.resize((60, 40), Image.Resampling.BICUBIC)
        assert (np.array(picture) == np.array(expected)).all()


def test_standard_input(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write(CLASSES, {"ip": [np.zeros((2, 4), np.float32), np.array([0, np.log(3)], np.float32)]}, classes=("cat", "dog"))
    for options in ([], ["-o", "out"]):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path("photos/one.png").read_bytes())))
        code, out, _ = run("-", *options, "--json")
        assert code == 0
        assert json.loads(out)["images"][0]["classes"][0]["name"] == "dog"
    assert Path("out/stdin.json").is_file()


def test_a_bundle_that_labels_images(run: Any, tmp_path: Path) -> None:
    write_colors(tmp_path / "b")
    code, out, _ = run("photos", "-o", "out")
    assert code == 0
    assert "%" in out
    with Image.open("out/one.png") as labels:
        assert labels.mode == "P"
    Image.new("RGB", (1100, 900)).save("large.png")
    code, _, err = run("large.png", "--memory", "1M")
    assert code == 2
    assert "an image of 1100x900 pixels needs about" in err
    assert "raise --memory" in err
    code, _, err = run("photos", "--precision", "int8")
    assert code == 2
    assert "int8" in err
    assert "atrous precision" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("photos", "--precision", "int8"), "a net of the task classify runs in fp32"),
        (("photos", "--memory", "4G"), "a net of the task classify runs on whole images"),
        (("photos", "--input", "depth"), "give NAME=PATH"),
        (("photos", "--input", "depth=x"), "this net needs no --input"),
        (("nothing/*.png",), "nothing matches the pattern"),
    ],
)
def test_wrong_usage_is_one_line(run: Any, arguments: tuple[str, ...], words: str) -> None:
    write(CLASSES, {"ip": [np.zeros((2, 4), np.float32), np.zeros(2, np.float32)]})
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
