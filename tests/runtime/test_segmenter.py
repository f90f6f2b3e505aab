"""An image to labels: compared with NumPy's answer for the same network; broken promises; resources on errors."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atrous import runtime
from atrous.errors import BackendError, BundleError, ImageError, InputError
from atrous.runtime.backends import open_backend
from atrous.runtime.backends.fake import FakeBackend
from atrous.runtime.upsampling import softmax

from .bundles import (
    CRF,
    STRIDE,
    FixedBackend,
    expected_scores,
    make_image,
    make_manifest,
    write_bundle,
    write_torch_bundle,
)

SIZES = [(1, 1), (1, 40), (17, 17), (18, 16), (31, 45)]


@pytest.mark.parametrize("size", SIZES)
def test_scores_head(tmp_path: Path, size: tuple[int, int]) -> None:
    image = make_image(*size)
    expected = expected_scores(image)
    with runtime.load(write_bundle(tmp_path)) as segmenter:
        np.testing.assert_allclose(segmenter.scores(image), expected, atol=1e-4)
        np.testing.assert_allclose(segmenter.probabilities(image), softmax(expected), atol=1e-5)
        labels = segmenter(image)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected.argmax(0))


@pytest.mark.parametrize("size", SIZES)
def test_labels_head(tmp_path: Path, size: tuple[int, int]) -> None:
    image = make_image(*size)
    segmenter = runtime.load(write_bundle(tmp_path, "labels"))
    np.testing.assert_array_equal(segmenter(image), expected_scores(image).argmax(0))
    for ask in (segmenter.scores, segmenter.probabilities):
        with pytest.raises(InputError, match="labels only"):
            ask(image)


@pytest.mark.parametrize("size", SIZES)
def test_lowres_head(tmp_path: Path, size: tuple[int, int]) -> None:
    """Every eighth pixel is a sample; between two in a row the scores are linear."""
    image = make_image(*size)
    found = runtime.load(write_bundle(tmp_path, "lowres")).scores(image)
    assert found.shape == (4, *size)
    samples = expected_scores(image)[:, ::STRIDE, ::STRIDE]
    np.testing.assert_allclose(found[:, ::STRIDE, ::STRIDE], samples, atol=1e-4)
    if size[1] > STRIDE:
        middle = (samples[:, :, 0] + samples[:, :, 1]) / 2
        np.testing.assert_allclose(found[:, ::STRIDE, STRIDE // 2], middle, atol=1e-4)


def test_a_batch_gives_what_single_runs_give(tmp_path: Path) -> None:
    images = [make_image(20, 30, seed) for seed in range(3)]
    with runtime.load(write_bundle(tmp_path)) as segmenter:
        feeds = [segmenter.prepare(image) for image in images]
        together = segmenter.run_network_batch(feeds)
        for feed, output in zip(feeds, together, strict=True):
            np.testing.assert_allclose(output, segmenter.run_network(feed), atol=1e-5)


def test_timings_name_the_stages(tmp_path: Path) -> None:
    result = runtime.load(write_bundle(tmp_path)).segment(make_image(9, 9))
    assert list(result.timings_ms) == ["prepare", "network", "scores", "labels"]
    assert all(time_ms > 0 for time_ms in result.timings_ms.values())
    assert result.probabilities is None


def test_probabilities_of_a_net_that_ends_in_a_softmax(tmp_path: Path) -> None:
    deploy = {**make_manifest({"deploy.onnx": b""})["deploy"], "scores_are": "probabilities"}
    image = make_image(5, 5)
    segmenter = runtime.load(write_bundle(tmp_path, deploy=deploy))
    np.testing.assert_array_equal(segmenter.probabilities(image), segmenter.scores(image))


@pytest.mark.parametrize("head", ["scores", "labels", "lowres"])
def test_torch_agrees_with_onnxruntime(tmp_path: Path, head: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    folder, image = write_torch_bundle(tmp_path, head), make_image(25, 33)
    # lowres keeps every eighth pixel, so only these equal the whole network's.
    step = STRIDE if head == "lowres" else 1
    by_torch, by_onnx = (
        runtime.load(folder, name, threads=1)(image)[::step, ::step] for name in ("torch", "onnxruntime")
    )
    np.testing.assert_array_equal(by_torch, by_onnx)


def test_fake_backend(tmp_path: Path) -> None:
    image = np.array([[[0, 0, 0], [86, 85, 84], [255, 255, 255]]], np.uint8)
    assert runtime.load(write_bundle(tmp_path), "fake")(image).tolist() == [[0, 1, 3]]


def test_a_backend_of_the_users(tmp_path: Path) -> None:
    segmenter = runtime.load(write_bundle(tmp_path), FakeBackend(4, delay_ms=5))
    assert segmenter.segment(make_image(2, 2)).timings_ms["network"] >= 5


@pytest.mark.parametrize(
    ("image", "part"),
    [
        (np.zeros((4, 4, 3)), "uint8 array, got float64"),
        ([[[0, 0, 0]]], "an image cannot be a list"),
        (np.zeros((4, 4), np.uint8), "the image is gray"),
        (np.zeros((3, 4, 5), np.uint8), r"H x W x 3 \(RGB\), got the shape \(3, 4, 5\)"),
        (np.zeros((4, 4, 4), np.uint8), "alpha channel"),
        (np.zeros((0, 4, 3), np.uint8), "H x W x 3"),
        (np.zeros((1, 4, 4, 3), np.uint8), "a batch"),
    ],
)
def test_wrong_image(tmp_path: Path, image: Any, part: str) -> None:
    with pytest.raises(InputError, match=part):
        runtime.load(write_bundle(tmp_path))(image)


def test_other_kinds_of_images(tmp_path: Path) -> None:
    image = make_image(9, 12)
    Image.fromarray(image).save(tmp_path / "photo.png")
    with runtime.load(write_bundle(tmp_path / "b")) as segmenter:
        labels = segmenter(image)
        for kind in (tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(image)):
            np.testing.assert_array_equal(segmenter(kind), labels)
        bgr = np.ascontiguousarray(image[:, :, ::-1])
        np.testing.assert_array_equal(segmenter(bgr, color_order="bgr"), labels)
        np.testing.assert_array_equal(segmenter.scores(bgr, color_order="bgr"), segmenter.scores(image))
        np.testing.assert_array_equal(segmenter.probabilities(bgr, color_order="bgr"), segmenter.probabilities(image))
        with pytest.raises(ImageError, match="no such file"):
            segmenter("none.png")


def test_strided_image(tmp_path: Path) -> None:
    image = make_image(20, 30)
    segmenter = runtime.load(write_bundle(tmp_path))
    view = image[::-1, ::2]
    np.testing.assert_array_equal(segmenter(view), segmenter(view.copy()))


def test_size_the_network_does_not_take(tmp_path: Path) -> None:
    section = {**make_manifest({"deploy.onnx": b""})["preprocessing"], "size_rule": {"fixed": [8, 9]}}
    segmenter = runtime.load(write_bundle(tmp_path, preprocessing=section), size="native")
    assert segmenter(make_image(8, 9)).shape == (8, 9)
    with pytest.raises(InputError, match="9x7 pixels, the network takes only 9x8"):
        segmenter(make_image(7, 9))


@pytest.mark.parametrize(
    ("head", "output"),
    [
        ("scores", np.zeros((1, 3, 4, 5), np.float32)),
        ("scores", np.zeros((1, 4, 4, 6), np.float32)),
        ("scores", np.zeros((2, 4, 4, 5), np.float32)),
        ("scores", np.zeros((1, 4, 4, 5), np.float64)),
        ("scores", np.full((1, 4, 4, 5), np.nan, np.float32)),
        ("scores", np.full((1, 4, 4, 5), np.inf, np.float32)),
        ("lowres", np.zeros((1, 4, 4), np.float32)),
        ("labels", np.zeros((1, 4, 5), np.int64)),
        ("labels", np.full((1, 4, 5), 4, np.uint8)),
    ],
)
def test_network_that_breaks_its_promise(tmp_path: Path, head: str, output: np.ndarray) -> None:
    segmenter = runtime.load(write_bundle(tmp_path, head), FixedBackend(head, output))
    with pytest.raises(BundleError, match="not what the manifest promises"):
        segmenter(make_image(4, 5))


def test_graph_that_breaks_its_promise(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="promises"):
        runtime.load(write_bundle(tmp_path), FixedBackend("depth", np.zeros(1, np.float32)))
    with pytest.raises(BundleError, match="5 labels for 4 classes"):
        runtime.load(write_bundle(tmp_path), FixedBackend("scores", np.zeros(1, np.float32), labels=5))
    manifest_path = write_bundle(tmp_path) / "manifest.json"
    manifest = json.loads(manifest_path.read_text())
    manifest["deploy"]["input"] = "picture"
    manifest_path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match='instead of "picture"'):
        runtime.load(tmp_path)


def test_scores_are_checked_for_nan_in_the_first_run_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[tuple[int, ...]] = []
    is_finite = np.isfinite
    monkeypatch.setattr(np, "isfinite", lambda array: checked.append(array.shape) or is_finite(array))
    with runtime.load(write_bundle(tmp_path), "fake") as segmenter:
        for size in ((4, 5), (4, 5), (6, 7)):
            segmenter(make_image(*size))
    assert checked == [(1, 4, 4, 5)]


REFUSED: dict[str, tuple[np.ndarray, dict[str, Any], str]] = {
    "broken promise": (np.zeros((1, 3, 4, 5), np.float32), {}, "3 labels for 4 classes"),
    "unknown shortcut": (np.zeros((1, 4, 4, 5), np.float32), {"crf_shortcuts": {"speed": 1}}, "no shortcut"),
    "CRF without scores": (np.zeros((1, 4, 5), np.uint8), {"crf": True}, "CRF need scores"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_backend_is_closed_if_the_segmenter_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    pytest.importorskip("atrous.runtime.crf._lattice", reason="the CRF extension is not compiled")
    output, options, part = REFUSED[reason]
    head = "labels" if output.ndim == 3 else "scores"
    backend = FixedBackend(head, output, labels=output.shape[1] if head == "scores" else "l")
    monkeypatch.setattr("atrous.runtime.loading.open_backend", lambda *_, **__: backend)
    folder = write_bundle(tmp_path, head, crf=CRF)
    with pytest.raises((BundleError, InputError), match=part):
        runtime.load(folder, **options)
    assert backend.closed == 1
    with pytest.raises((BundleError, InputError), match=part):
        runtime.load(folder, backend, **options)
    assert backend.closed == 1  # a backend that was passed in stays open for its owner


def test_a_bundle_replaced_while_it_is_loaded_is_loaded_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_bundle(tmp_path / "b")
    found = []

    def replace_first(*arguments: Any, **options: Any) -> Any:
        if not found:
            write_bundle(folder, "labels")
        found.append(arguments[1].deploy.head)
        return open_backend(*arguments, **options)

    monkeypatch.setattr("atrous.runtime.loading.open_backend", replace_first)
    with runtime.load(folder) as segmenter:
        assert segmenter.head == "labels"
    assert found == ["scores", "labels"]


def test_bundle_without_a_deployable_network(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, deploy=None, preprocessing=None, warnings=["no deploy.onnx: a classifier"])
    for backend in ("onnxruntime", "torch", "fake"):
        with pytest.raises(BundleError, match=r"no network that takes images.*a classifier"):
            runtime.load(folder, backend)


def test_altered_graph(tmp_path: Path) -> None:
    path = write_bundle(tmp_path) / "deploy.onnx"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="was altered"):
        runtime.load(tmp_path)


def test_wrong_settings(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path)
    with pytest.raises(InputError, match="at least 1"):
        runtime.load(folder, threads=0)
    with pytest.raises(BackendError, match="no backend"):
        runtime.load(folder, "caffe")
    with pytest.raises(InputError, match="no CRF parameters"):
        runtime.load(folder, crf=True)
    with pytest.raises(InputError, match='no shortcut "iterations"; it has prune, reduce, settle, storage, tolerance'):
        runtime.load(folder, crf_shortcuts={"iterations": 3})


def test_closed(tmp_path: Path) -> None:
    with runtime.load(write_bundle(tmp_path)) as segmenter:
        pass
    with pytest.raises(BackendError, match="closed"):
        segmenter(make_image(4, 4))


def test_close_while_other_threads_segment(tmp_path: Path) -> None:
    """A result that was begun is right, later calls are refused."""
    image = make_image(40, 50)
    segmenter = runtime.load(write_bundle(tmp_path, crf=CRF), crf=False)
    expected = segmenter(image)
    started = threading.Barrier(3)

    def segment_until_closed() -> str:
        started.wait()
        while True:
            try:
                np.testing.assert_array_equal(segmenter(image), expected)
            except BackendError as error:
                return str(error)

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(segment_until_closed) for _ in range(2)]
        started.wait()
        segmenter.close()
        assert {future.result(timeout=30) for future in futures} == {"this backend was closed"}


def test_a_segmenter_describes_itself(tmp_path: Path) -> None:
    with runtime.load(write_bundle(tmp_path, crf=CRF), crf=False) as segmenter:
        assert repr(segmenter) == "<Segmenter of four-colors: 4 classes, onnxruntime on cpu, fp32, without CRF>"
