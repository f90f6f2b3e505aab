"""Nets of any inputs and outputs, deployed and run: against the images themselves, formulas and OpenCV."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from atrous import runtime
from atrous.bundle.manifest import Manifest
from atrous.converter import BundleOptions, PreprocessingOptions, read_net, write_bundle
from atrous.errors import BackendError, ExportError, InputError

from ..nets import conv, data, layer, read_seeded

Array = np.ndarray[Any, Any]


def make_image(height: int, width: int, seed: int = 3) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(folder: Path, text: str, weights: dict[str, list[Array]] | None = None, **options: Any) -> Manifest:
    """A bundle of a net; `preprocessing` may be a mapping."""
    given = {**options, "preprocessing": PreprocessingOptions(**options.pop("preprocessing", {}))}
    net = read_net(text, weights) if weights is not None else read_seeded(text)
    return write_bundle(net, folder, BundleOptions(verify=False, **given))


def identity(channels: int, kernel: int = 1) -> Array:
    """The weight of a convolution that returns its input."""
    weight = np.zeros((channels, channels, kernel, kernel), np.float32)
    weight[range(channels), range(channels), kernel // 2, kernel // 2] = 1
    return weight


def test_classes_of_a_gray_image(tmp_path: Path) -> None:
    inner = layer("InnerProduct", "ip", "data", "ip", "inner_product_param { num_output: 3 }")
    text = data(64, 1, 4, 4) + inner + layer("Softmax", "prob", "ip", "prob")
    weight = np.zeros((3, 16), np.float32)
    weight[0, 0], weight[1, 5], weight[2, 15] = 1, 2, 3
    preprocessing = {"mean": (10.0,), "scale": 0.01}
    names = ("zero", "one", "two")
    manifest = write(
        tmp_path / "b", text, {"ip": [weight, np.zeros(3, np.float32)]}, classes=names, preprocessing=preprocessing
    )
    assert (manifest.task, manifest.palette, manifest.warnings) == ("classify", (), ())
    image = np.repeat(make_image(4, 4)[..., :1], 3, axis=2)
    with runtime.load_runner(tmp_path / "b", threads=1) as runner:
        assert (runner.task, runner.inputs, runner.other_inputs) == ("classify", ("image",), {})
        assert "classify" in repr(runner)
        result = runner(image, top=2)
        resized = runner(make_image(9, 7))
    values = (image[..., 0].astype(np.float64).ravel() - 10) * 0.01
    logits = np.array([values[0], 2 * values[5], 3 * values[15]])
    chances = np.exp(logits) / np.exp(logits).sum()
    best = np.argsort(-chances)[:2]
    assert [entry.label for entry in result.classes] == best.tolist()
    assert [entry.name for entry in result.classes] == [names[label] for label in best]
    np.testing.assert_allclose([entry.probability for entry in result.classes], chances[best], rtol=1e-5)
    assert len(resized.classes) == 3


def test_a_thousand_classes_without_softmax(tmp_path: Path) -> None:
    text = data(1, 3, 2, 2) + layer("InnerProduct", "fc", "data", "fc", "inner_product_param { num_output: 1000 }")
    names = tuple(f"n{index}" for index in range(1000))
    manifest = write(tmp_path / "b", text, classes=names)
    assert manifest.task == "classify"
    assert manifest.run is not None
    assert manifest.run.outputs[0].scores_are == "logits"
    with runtime.load_runner(tmp_path / "b", threads=1) as runner:
        result = runner(make_image(2, 2), top=1000)
    assert sum(entry.probability for entry in result.classes) == pytest.approx(1, abs=1e-4)
    assert result.classes[0].label == int(result.outputs["fc"].argmax())
    assert write(tmp_path / "regress", text).task == "regress"


@pytest.mark.parametrize("size", [(9, 12), (20, 7)])
@pytest.mark.parametrize("transposed", [False, True])
def test_an_image_in_and_the_same_image_out(tmp_path: Path, size: tuple[int, int], transposed: bool) -> None:
    """Two unpadded 3 x 3 convolutions that do nothing: the margin of 2 keeps the whole image."""
    text = data(1, 3, 16, 16) + conv("a", "data", "a", 3, 3) + conv("b", "a", "b", 3, 3)
    weights = {name: [identity(3, 3), np.zeros(3, np.float32)] for name in "ab"}
    rule = {"mean": (10.0, 20.0, 30.0), "scale": 0.02, "transposed": transposed}
    manifest = write(tmp_path / "b", text, weights, preprocessing=rule)
    assert manifest.run is not None
    assert (manifest.run.task, manifest.run.inputs[0].margin) == ("image", 2)
    kinds = {node.op_type for node in onnx.load(tmp_path / "b" / "deploy.onnx").graph.node}
    assert "Gather" not in kinds  # the color order is in the weights
    image = make_image(*size)
    with runtime.load_runner(tmp_path / "b", threads=1) as runner:
        result = runner(image)
    assert (result.picture == image).all()
    assert repr(result) == f"<RunResult image: picture {size[0]}x{size[1]}x3>"
    png = result._repr_png_()
    assert png is not None
    with Image.open(io.BytesIO(png)) as shown:
        assert (np.array(shown) == image).all()


def test_transposed_nets_see_the_image_turned(tmp_path: Path) -> None:
    text = data(1, 3, 6, 4) + layer("InnerProduct", "ip", "data", "ip", "inner_product_param { num_output: 2 }")
    weight = np.zeros((2, 72), np.float32)
    weight[0, 1], weight[1, 4] = 1, 1  # of the first channel: columns 1 and rows 1 of a net of width 4
    rule = {"mean": (0.0, 0.0, 0.0), "color_order": "RGB", "transposed": True}
    write(tmp_path / "b", text, {"ip": [weight, np.zeros(2, np.float32)]}, preprocessing=rule)
    image = make_image(4, 6)
    with runtime.load_runner(tmp_path / "b", threads=1) as runner:
        values = runner(image).values
    assert values is not None
    assert values.tolist() == [image[1, 0, 0], image[0, 1, 0]]


def test_a_gray_image_out_keeps_the_colors(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    text = data(1, 1, 16, 16) + conv("a", "data", "a", 1, 1)
    half = {"a": [identity(1) / 2, np.zeros(1, np.float32)]}
    manifest = write(tmp_path / "b", text, half)
    assert manifest.task == "image"
    assert any("range of its images" in line for line in manifest.warnings)
    image = np.clip(make_image(8, 9), 100, 140)
    with runtime.load_runner(tmp_path / "b", threads=1) as runner:
        result = runner(image)
        gray = runner(np.repeat(image[..., :1], 3, axis=2)).picture
    assert result.picture is not None
    assert gray is not None
    before, after = (cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb).astype(int) for pixels in (image, result.picture))
    assert np.abs(after[..., 0] - before[..., 0] / 2).max() <= 1.5
    assert np.abs(after[..., 1:] - before[..., 1:]).max() <= 2
    assert np.abs(gray.astype(int) - image[..., :1] / 2).max() <= 0.5


def test_colors_for_a_gray_image(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    text = data(1, 1, 40, 40, name="data_l") + conv("a", "data_l", "ab", 2, 2, "stride: 2")
    weights = {"a": [np.zeros((2, 1, 2, 2), np.float32), np.array([20, -30], np.float32)]}
    manifest = write(tmp_path / "b", text, weights)
    assert manifest.run is not None
    only = manifest.run.inputs[0]
    assert (manifest.task, only.source, only.mean, only.size) == ("colorize", "lightness", (50.0,), (40, 40))
    image = make_image(10, 14)
    with runtime.load_runner(tmp_path / "b", threads=1) as runner:
        picture = runner(image).picture
    assert picture is not None
    lab = cv2.cvtColor((image / 255).astype(np.float32), cv2.COLOR_RGB2Lab)
    lab[..., 1], lab[..., 2] = 20, -30
    expected = np.clip(np.rint(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB) * 255), 0, 255)
    assert np.abs(picture - expected).max() <= 2


@pytest.mark.parametrize("joined", [True, False])
def test_labels_from_color_and_depth(tmp_path: Path, joined: bool) -> None:
    parts = data(1, 3, 8, 8, name="color") + data(1, 1, 8, 8, name="depth")
    concat = layer("Concat", "data", ["color", "depth"], "data")
    text = (data(1, 4, 8, 8) if joined else parts + concat) + conv("score", "data", "score", 2)
    weight = np.zeros((2, 4, 1, 1), np.float32)
    weight[0, 2], weight[1, 3] = 1, 0.5  # red against depth
    rule = {"mean": (0.0, 0.0, 0.0, 100.0)}
    manifest = write(
        tmp_path / "b", text, {"score": [weight, np.zeros(2, np.float32)]}, classes=("red", "far"), preprocessing=rule
    )
    assert (manifest.task, len(manifest.palette)) == ("segment", 2)
    image = make_image(6, 9)
    depth = np.random.default_rng(1).integers(0, 60_000, (6, 9)) % 700
    with runtime.load_runner(tmp_path / "b", threads=1) as runner:
        assert runner.other_inputs == {"depth": "depth"}
        labels = runner(image, depth=depth).labels
        with pytest.raises(InputError, match="beside the image give"):
            runner(image)
        with pytest.raises(InputError, match="depth must be H x W of the image's size"):
            runner(image, depth=depth[:3])
    expected = (depth - 100) * 0.5 > image[..., 0]
    assert labels is not None
    assert (labels == expected).all()


def test_an_array_beside_the_image(tmp_path: Path) -> None:
    pooled = layer("Pooling", "pool", "data", "pool", "pooling_param { pool: AVE global_pooling: true }")
    flat = layer("Flatten", "flat", "pool", "flat")
    text = data(1, 3, 5, 5) + data(1, 2, name="pose") + pooled + flat + layer("Concat", "y", ["flat", "pose"], "y")
    write(tmp_path / "b", text, {}, preprocessing={"mean": (0.0, 0.0, 0.0), "color_order": "RGB"})
    image = make_image(5, 5)
    with runtime.load_runner(tmp_path / "b", threads=1) as runner:
        assert runner.other_inputs == {"pose": "array"}
        values = runner(image, pose=np.array([[7, 8]])).values
    np.testing.assert_allclose(values, [*image.mean((0, 1)), 7, 8], rtol=1e-5)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("xy", [[10.0, 8.0], [30.0, 16.0]]),
        ("xxyy", [[10.0, 16.0], [20.0, 16.0]]),
        ("xy-pixels", [[2.5, 2.0], [7.5, 4.0]]),
    ],
)
def test_points(tmp_path: Path, order: Any, expected: list[list[float]]) -> None:
    text = data(1, 3, 4, 4) + layer("InnerProduct", "ip", "data", "ip", "inner_product_param { num_output: 4 }")
    text += layer("InnerProduct", "box", "data", "box", "inner_product_param { num_output: 2 }")
    weights = {
        "ip": [np.zeros((4, 48), np.float32), np.array([0.25, 0.5, 0.75, 1], np.float32)[[0, 1, 2, 3]]],
        "box": [np.zeros((2, 48), np.float32), np.zeros(2, np.float32)],
    }
    if order == "xxyy":
        weights["ip"][1] = np.array([0.25, 0.5, 1, 1], np.float32)
    manifest = write(tmp_path / "b", text, weights, task="points", points=order)
    assert manifest.run is not None
    assert {output.name: output.kind for output in manifest.run.outputs} == {"ip": "points", "box": "values"}
    with runtime.load_runner(tmp_path / "b", threads=1) as runner:
        points = runner(make_image(16, 40)).points
    np.testing.assert_allclose(points, expected)


def test_maps_of_several_outputs(tmp_path: Path) -> None:
    """As edge nets end: the picture is that of the last output."""
    text = data(1, 3, 8, 8) + conv("a", "data", "a", 1) + conv("b", "data", "b", 1)
    text += layer("Sigmoid", "side", "a", "side") + layer("Sigmoid", "fuse", "b", "fuse")
    write(tmp_path / "b", text)
    image = make_image(8, 8)
    with runtime.load_runner(tmp_path / "b", threads=1) as runner:
        assert runner.task == "map"
        result = runner(image)
    assert result.picture is not None
    assert set(result.outputs) == {"side", "fuse"}
    assert np.abs(result.picture[..., 0] - result.outputs["fuse"][0] * 255).max() <= 0.51


def test_sizes(tmp_path: Path) -> None:
    """A net that takes multiples of 4 runs at the nearest, and its labels have the image's size."""
    shrink = layer("Pooling", "down", "a", "p", "pooling_param { pool: MAX kernel_size: 4 stride: 4 }")
    up = "convolution_param { num_output: 2 kernel_size: 4 stride: 4 bias_term: false }"
    text = data(1, 1, 16, 16) + conv("a", "data", "a", 4, 3, "pad: 1") + shrink
    text += layer("Deconvolution", "up", "p", "s", up) + layer("Softmax", "prob", "s", "prob")
    write(tmp_path / "b", text)
    for options in ({}, {"size": (8, 12)}, {"size": "native"}, {"max_side": 9}):
        with runtime.load_runner(tmp_path / "b", threads=1, **options) as runner:  # type: ignore[arg-type]
            labels = runner(make_image(13, 18)).labels
        assert labels is not None
        assert labels.shape == (13, 18)


def test_a_bundle_that_labels_rgb_images_runs_too(tmp_path: Path) -> None:
    write(tmp_path / "b", data(1, 3, 8, 8) + conv("score", "data", "score", 4))
    image = make_image(8, 8)
    with runtime.load_runner(tmp_path / "b", threads=1) as runner, runtime.load(tmp_path / "b") as segmenter:
        result = runner(image)
        assert result.task == "segment"
        assert (result.labels == segmenter(image)).all()
        with pytest.raises(InputError, match="takes one image"):
            runner(image, depth=image)


def test_other_backends(tmp_path: Path) -> None:
    write(tmp_path / "b", data(1, 1, 8, 8) + conv("a", "data", "a", 1))
    with pytest.raises(BackendError, match="use onnxruntime or openvino"):
        runtime.load_runner(tmp_path / "b", "torch")
    with pytest.raises(runtime.BundleError, match=r"its task is image.*atrous run.*load_runner"):
        runtime.load(tmp_path / "b")
    pytest.importorskip("openvino")
    image = make_image(8, 8)
    pictures = []
    for backend in ("onnxruntime", "openvino"):
        with runtime.load_runner(tmp_path / "b", backend, threads=1) as runner:
            pictures.append(runner(image).picture)
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= 1  # type: ignore[union-attr]


def test_wrong_requests(tmp_path: Path) -> None:
    gray = data(1, 1, 8, 8) + conv("a", "data", "a", 1)
    with pytest.raises(ExportError, match="3 mean values were given, the net's images have 1 channels"):
        write(tmp_path / "b", gray, preprocessing={"mean": (1.0, 2.0, 3.0)})
    with pytest.raises(ExportError, match='no output of the net suits the task "classify"'):
        write(tmp_path / "b", gray, task="classify")
    with pytest.raises(ExportError, match="the net's image has 3 channels"):
        write(tmp_path / "b", data(1, 3, 8, 8) + conv("a", "data", "a", 2), preprocessing={"mean": (1.0,)})
    write(tmp_path / "b", gray)
    with runtime.load_runner(tmp_path / "b", threads=1) as runner:
        for image in (make_image(8, 8)[..., 0], make_image(8, 8) / 255, "photo.png"):
            with pytest.raises(InputError, match="H x W x 3 uint8 RGB"):
                runner(image)  # type: ignore[arg-type]
    manifest = write(tmp_path / "vector", data(1, 5) + layer("ReLU", "r", "data", "y"), {})
    assert (manifest.task, manifest.run) == (None, None)
    assert any("no deploy.onnx" in line for line in manifest.warnings)
