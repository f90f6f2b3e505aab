"""Bundles as the runtime reads them: their files, their manifest, classes and colors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atrous import runtime
from atrous.bundle.manifest import MadeFor
from atrous.bundle.palettes import make_distinct_colors
from atrous.converter import BundleOptions, PreprocessingOptions, read_net, write_bundle
from atrous.errors import ExportError, OutputError

from ..nets import CLASSES, DEEPLAB, conv, data, layer, read_seeded
from .bundles import FILES, read_manifest, write
from .test_deploy import CRF
from .test_deploy_sizes import FIXED

CLASSIFIER = data(1, 3, 8, 8) + layer("InnerProduct", "ip", "data", "y", "inner_product_param { num_output: 4 }")


def make_image(height: int, width: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


# ---- in the runtime


def test_all_files_are_there_and_listed_with_their_digests(deeplab: Path) -> None:
    assert {path.name for path in deeplab.iterdir()} == FILES
    bundle = runtime.read_bundle(deeplab)
    assert set(bundle.manifest.files) == FILES - {"manifest.json"}
    bundle.verify_files()


def test_written_manifest_is_the_returned_one(tmp_path: Path) -> None:
    returned = write_bundle(read_seeded(DEEPLAB), tmp_path / "b")
    assert (tmp_path / "b" / "manifest.json").read_bytes() == returned.to_json()
    assert runtime.read_bundle(tmp_path / "b").manifest == returned


@pytest.mark.parametrize("head", ["scores", "labels", "lowres"])
@pytest.mark.parametrize("size", [(41, 49), (30, 70)])
def test_labels_by_both_backends(tmp_path: Path, head: Any, size: tuple[int, int]) -> None:
    """ONNX Runtime through deploy.onnx and torch through model.py agree on every pixel but near ties."""
    write(tmp_path / "b", head=head)
    image = make_image(*size)
    labels = {}
    for backend in ("onnxruntime", "torch"):
        with runtime.load(tmp_path / "b", backend=backend, threads=1) as segmenter:
            labels[backend] = segmenter(image)
    assert labels["torch"].shape == size
    assert labels["torch"].dtype == np.uint8
    assert (labels["onnxruntime"] == labels["torch"]).mean() > 0.999
    assert len(np.unique(labels["torch"])) > 1


def test_scores_by_both_backends(deeplab: Path) -> None:
    image = make_image(30, 70)
    scores = []
    for backend in ("onnxruntime", "torch"):
        with runtime.load(deeplab, backend=backend, threads=1) as segmenter:
            scores.append(segmenter.scores(image))
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-4 * np.abs(scores[1]).max())


SHRINK = layer("Pooling", "down", "a", "p", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
GROW = layer(
    "Deconvolution", "up", "p", "s", "convolution_param { num_output: 3 kernel_size: 2 stride: 2 bias_term: false }"
)
U_NET = data(1, 3, 48, 64) + conv("a", "data", "a", 4, 3, "pad: 1") + SHRINK + GROW


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        (U_NET, {}, ((48, 64), "prototxt", True)),  # an encoder with a decoder
        (U_NET, {"minimum": (40, 40)}, ((40, 40), "prototxt", False)),  # images are padded by request
        (U_NET, {"made_for": MadeFor(size=(32, 32), source="option", resize=True)}, ((32, 32), "option", True)),
        (DEEPLAB, {}, ((41, 49), "prototxt", False)),  # pads to 8k + 1
        (data(1, 3, 48, 64) + conv("a", "data", "a", 4, 3, "pad: 1"), {}, ((48, 64), "prototxt", False)),
        (data(1, 3, 8, 8) + conv("a", "data", "a", 4, 3, "pad: 1"), {}, None),  # a placeholder
    ],
)
def test_size_the_net_was_made_for(tmp_path: Path, text: str, options: dict[str, Any], expected: Any) -> None:
    manifest = write(tmp_path / "b", text, preprocessing=PreprocessingOptions(**options), verify=False)
    assert manifest.preprocessing is not None
    found = manifest.preprocessing.made_for
    assert (found and (found.size, found.source, found.resize)) == expected


@pytest.mark.parametrize(("head", "batch"), [("scores", 1), ("lowres", 2), ("labels", 3)])
def test_bundle_of_one_size_and_batch(tmp_path: Path, deeplab: Path, head: Any, batch: int) -> None:
    """Images of other sizes are resized, incomplete batches filled up; the torch backend agrees."""
    manifest = write(tmp_path / "b", head=head, fixed=(41, 57), batch=batch)
    assert manifest.preprocessing is not None
    assert manifest.preprocessing.size_rule.fixed == (41, 57)
    assert manifest.graphs["deploy.onnx"].inputs["image"].shape == (batch, 41, 57, 3)
    assert all(side > 0 for side in manifest.graphs["deploy.onnx"].outputs[head].shape)
    image = make_image(30, 70)
    with runtime.load(deeplab, threads=1, size=(41, 57)) as free:
        expected = free(image)
    for backend in ("onnxruntime", "torch"):
        with runtime.load(tmp_path / "b", backend=backend, threads=1) as segmenter:
            feeds = [segmenter.prepare(image)] * 4
            outputs = [segmenter.run_network(feeds[0]), *segmenter.run_network_batch(feeds)]
            found = [segmenter.finish(image, output).labels for output in outputs]
        assert len(found) == 5
        # the head `labels` is resized after the decision
        assert all((labels == expected).mean() > (0.9 if head == "labels" else 0.999) for labels in found)


def test_net_without_a_deployment_has_no_fixed_size(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="a fixed size is for nets that score"):
        write(tmp_path / "b", CLASSIFIER, fixed=(8, 8))
    assert not (tmp_path / "b").exists()


def test_a_size_that_a_fixed_net_does_not_take(tmp_path: Path) -> None:
    size = MadeFor(size=(32, 32), source="option", resize=True)
    for text, options in ((FIXED, {}), (U_NET, {"fixed": (48, 64)})):
        with pytest.raises(ExportError, match=r"images only .*, not 32x32: leave out the size"):
            write(tmp_path / "b", text, preprocessing=PreprocessingOptions(made_for=size), verify=False, **options)  # type: ignore[arg-type]
        assert not (tmp_path / "b").exists()


def test_torch_backend_finds_the_scores_among_several_outputs(tmp_path: Path) -> None:
    text = data(1, 3, 8, 8) + conv("small", "data", "aux", 2, 3) + conv("large", "data", "scores", 4)
    manifest = write(tmp_path / "b", text)
    assert manifest.deploy is not None
    assert manifest.deploy.blob == "scores"
    assert [spec.name for spec in manifest.outputs] == ["aux", "scores"]
    with runtime.load(tmp_path / "b", backend="torch", threads=1) as segmenter:
        assert segmenter.scores(make_image(8, 8)).shape == (4, 8, 8)


def test_labels_with_the_crf_of_the_file(tmp_path: Path) -> None:
    pytest.importorskip("atrous.runtime.crf._lattice", reason="the extension is not built")
    manifest = write(tmp_path / "b", CRF)
    assert manifest.crf is not None
    assert manifest.crf.iterations == 7
    assert any('DenseCRF layer "crf" became the CRF stage' in warning for warning in manifest.warnings)
    assert [spec.name for spec in manifest.inputs] == ["data"]
    with (
        runtime.load(tmp_path / "b", threads=1) as refined,
        runtime.load(tmp_path / "b", crf=False, threads=1) as plain,
    ):
        image = make_image(16, 16)
        assert refined.probabilities(image).shape == (4, 16, 16)
        assert np.abs(refined.probabilities(image) - plain.probabilities(image)).max() > 0.01


# ---- the manifest


def test_manifest_describes_inputs_and_outputs(deeplab: Path) -> None:
    manifest = read_manifest(deeplab)
    assert manifest.name == "mini-deeplab"
    assert [(spec.name, spec.shape) for spec in manifest.inputs] == [("data", ("batch", 3, "height", "width"))]
    assert [(spec.name, spec.shape[:2]) for spec in manifest.outputs] == [("fc8_interp", ("batch", CLASSES))]
    assert manifest.deploy is not None
    assert manifest.preprocessing is not None
    assert (manifest.deploy.head, manifest.deploy.scores_are, manifest.deploy.blob) == (
        "scores",
        "logits",
        "fc8_interp",
    )
    rule = manifest.preprocessing.size_rule
    assert (rule.minimum, rule.multiple, rule.offset) == ((9, 9), 8, 1)
    assert {"torch", "onnx", "numpy"} <= set(manifest.versions)


def test_verification_is_recorded(deeplab: Path) -> None:
    reports = read_manifest(deeplab).verification
    assert len(reports) == 2
    for report in reports:
        assert (report.stage, report.reference, report.passed) == ("model.onnx", "torch", True)
        assert report.blobs == 14
        assert float(report.worst_error) <= report.tolerance
    assert reports[0].input_shapes != reports[1].input_shapes


def test_verification_can_be_left_out(tmp_path: Path) -> None:
    assert write(tmp_path / "b", verify=False).verification == ()


def test_sources_are_listed_with_digests(tmp_path: Path) -> None:
    (tmp_path / "a.prototxt").write_text("text")
    (tmp_path / "w.h5").write_bytes(b"12345")
    sources = [
        ("prototxt", tmp_path / "a.prototxt", "V1", "deeplab_v1"),
        ("caffemodel", tmp_path / "w.h5", "HDF5", "bvlc"),
    ]
    manifest = write(tmp_path / "b", sources=sources)
    assert [(s.role, s.file, s.bytes, s.format) for s in manifest.sources] == [
        ("prototxt", "a.prototxt", 4, "V1"),
        ("caffemodel", "w.h5", 5, "HDF5"),
    ]


def test_net_without_a_deployment(tmp_path: Path) -> None:
    manifest = write(tmp_path / "b", CLASSIFIER)
    assert (manifest.deploy, manifest.preprocessing, manifest.task) == (None, None, "regress")
    assert manifest.inputs[0].shape == ("batch", 3, 8, 8)
    manifest = write(tmp_path / "vector", data(1, 5) + layer("ReLU", "r", "data", "y"))
    assert (manifest.deploy, manifest.preprocessing, manifest.task) == (None, None, None)
    assert not (tmp_path / "vector" / "deploy.onnx").exists()
    assert any("no deploy.onnx: the net has no plane of class scores" in warning for warning in manifest.warnings)


def test_net_without_weights_gives_a_warning(tmp_path: Path) -> None:
    write_bundle(read_net(DEEPLAB), tmp_path / "b")
    assert any("the net has no weights" in warning for warning in read_manifest(tmp_path / "b").warnings)


@pytest.mark.parametrize(
    ("planes", "more", "options", "is_warned"),
    [
        (3, "", {}, True),
        (3, "", {"classes": ("sky", "road", "car")}, False),
        (3, "", {"task": "segment"}, False),
        (3, "", {"task": "image"}, False),
        (3, layer("Softmax", "p", "y", "p"), {}, False),
        (3, layer("ArgMax", "a", "y", "a", "argmax_param { axis: 1 }"), {}, False),
        (4, "", {}, False),
    ],
)
def test_three_planes_may_be_a_picture(
    tmp_path: Path, planes: int, more: str, options: dict[str, Any], is_warned: bool
) -> None:
    manifest = write(tmp_path / "b", data(1, 3, 16, 16) + conv("c", "data", "y", planes, 3, "pad: 1") + more, **options)
    assert any("convert with --task image" in warning for warning in manifest.warnings) == is_warned


def test_complete_files_give_no_warnings(tmp_path: Path) -> None:
    source = layer(
        "ImageSegData", "d", [], ["data", "label", "dim"],
        "transform_param { crop_size: 57 scale: 0.5 mean_value: 104.008 mean_value: 116.669 mean_value: 122.675 }",
    )  # fmt: skip
    manifest = write(tmp_path / "b", source + conv("c", "data", "y", 4, 3, "pad: 1"))
    assert manifest.warnings == ()
    assert manifest.preprocessing is not None
    assert manifest.preprocessing.mean == (104.008, 116.669, 122.675)
    assert manifest.preprocessing.scale == 0.5
    assert manifest.preprocessing.size_rule.minimum == (57, 57)


# ---- classes and colors


def test_default_palette_is_distinct_colors(deeplab: Path) -> None:
    manifest = read_manifest(deeplab)
    assert manifest.classes == tuple(f"class {index}" for index in range(CLASSES))
    assert manifest.palette == make_distinct_colors(5)


def test_given_classes_and_palette(tmp_path: Path) -> None:
    classes = ["sky", "ground", "water", "tree", "house"]
    palette = [(index, 255, 0) for index in range(CLASSES)]
    manifest = write(tmp_path / "b", classes=classes, palette=palette)
    assert manifest.classes == tuple(classes)
    assert manifest.palette == tuple(palette)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": ["a", "b"]}, "2 class names were given, the net scores 5 classes"),
        ({"palette": [(0, 0, 256)] * 5}, "not red, green, blue of 0 to 255"),
        ({"palette": [(0, 0)] * 5}, "not red, green, blue of 0 to 255"),
    ],
)
def test_classes_that_do_not_fit_are_refused_before_any_work(tmp_path: Path, options: Any, words: str) -> None:
    steps: list[str] = []
    with pytest.raises(OutputError, match=words):
        write_bundle(read_seeded(DEEPLAB), tmp_path / "b", BundleOptions(**options), progress=steps.append)
    assert steps == []
    assert list(tmp_path.iterdir()) == []
