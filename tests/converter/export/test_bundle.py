"""Bundles as the runtime reads them: complete or absent, with a correct manifest."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError

from atrous import runtime
from atrous.bundle.manifest import MadeFor, Manifest, parse_manifest
from atrous.bundle.palettes import make_distinct_colors
from atrous.converter import BundleOptions, PreprocessingOptions, read_net, write_bundle
from atrous.converter.export.pixel_rule import DEEPLAB_MEAN, find_own_mean
from atrous.errors import ConverterError, ExportError, OutputError, VerificationError

from ..nets import CLASSES, DEEPLAB, conv, data, layer, read_seeded
from .test_deploy import CRF, FIXED

FILES = {"deploy.onnx", "manifest.json", "model.onnx", "model.py", "model.safetensors"}
CLASSIFIER = data(1, 3, 8, 8) + layer("InnerProduct", "ip", "data", "y", "inner_product_param { num_output: 4 }")


def read_manifest(folder: Path) -> Manifest:
    """As the runtime reads it: strictly."""
    return parse_manifest((folder / "manifest.json").read_bytes())


def write(folder: Path, text: str = DEEPLAB, **options: Any) -> Manifest:
    write_bundle(read_seeded(text), folder, BundleOptions(**options))
    return read_manifest(folder)


@pytest.fixture(scope="module")
def deeplab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "deeplab"
    write(folder)
    return folder


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


# ---- preprocessing


def pixel_rule(
    tmp_path: Path, transform: str | None, given: PreprocessingOptions
) -> tuple[Any, float, tuple[str, ...]]:
    source = data(1, 3, 9, 9)
    if transform is not None:
        source = layer("Data", "d", [], ["data", "label"], f"transform_param {{ crop_size: 9 {transform} }}")
    manifest = write(tmp_path / "b", source + conv("c", "data", "y", 4), preprocessing=given, verify=False)
    assert manifest.preprocessing is not None
    return manifest.preprocessing.mean, manifest.preprocessing.scale, manifest.warnings


@pytest.mark.parametrize(
    ("transform", "mean", "scale"),
    [
        ("mean_value: 1 mean_value: 2 mean_value: 3 scale: 0.0078125", (1, 2, 3), 0.0078125),
        ("mean_value: 127.5", (127.5,) * 3, 1),
        ("scale: 0.00390625", (0, 0, 0), 0.00390625),
        ("mean_value: 103.94", (103.94,) * 3, 1),
    ],
)
def test_mean_and_scale_of_the_data_layer(tmp_path: Path, transform: str, mean: Any, scale: float) -> None:
    """Values of the file need no warning; a data layer without a mean subtracts none."""
    assert pixel_rule(tmp_path, transform, PreprocessingOptions()) == (mean, scale, ())


def test_mean_in_another_file_is_guessed_aloud_and_the_scale_kept(tmp_path: Path) -> None:
    mean, scale, warnings = pixel_rule(tmp_path, 'mean_file: "mean.binaryproto" scale: 0.5', PreprocessingOptions())
    assert (mean, scale) == (DEEPLAB_MEAN, 0.5)
    assert any('"mean.binaryproto"' in warning and "give --mean" in warning for warning in warnings)


def test_assumed_mean_gives_a_warning(tmp_path: Path) -> None:
    mean, scale, warnings = pixel_rule(tmp_path, None, PreprocessingOptions(minimum=(20, 20)))
    assert (mean, scale) == (DEEPLAB_MEAN, 1)
    assert any("does not say the mean" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("first", "own"),
    [
        (layer("Power", "first", "data", "f", "power_param { shift: -116 }"), True),
        (layer("Power", "s", "data", "s", "power_param { scale: 0.02 }") + layer("Bias", "first", "s", "f"), True),
        (layer("Scale", "first", "data", "f", "scale_param { bias_term: true }"), True),
        (layer("Scale", "first", "data", "f"), False),
        (layer("Power", "first", "data", "f", "power_param { power: 2 shift: 1 }"), False),
    ],
)
def test_a_net_that_subtracts_its_own_mean_gets_none(tmp_path: Path, first: str, own: bool) -> None:
    text = data(1, 3, 9, 9) + first + conv("c", "f", "y", 4) + layer("Crop", "crop", ["y", "data"], "z")
    manifest = write(tmp_path / "b", text, verify=False)
    assert manifest.preprocessing is not None
    assert manifest.preprocessing.mean == ((0, 0, 0) if own else DEEPLAB_MEAN)
    assert ('layer "first"' in manifest.warnings[0]) is own


@pytest.mark.parametrize(("mean", "own"), [(110.0, True), (0.5, False)])
def test_a_batch_norm_on_the_image_shows_its_mean(mean: float, own: bool) -> None:
    text = data(1, 3, 9, 9) + layer("BatchNorm", "bn", "data", "f") + conv("c", "f", "y", 4)
    blobs = [np.full(3, mean * 2, np.float32), np.ones(3, np.float32), np.float32([2])]
    net = read_net(text, {"bn": blobs, "c": [np.zeros((4, 3, 1, 1)), np.zeros(4)]})
    assert (find_own_mean(net) is not None) is own


def test_guess_follows_the_color_order(tmp_path: Path) -> None:
    mean, _, _ = pixel_rule(tmp_path, None, PreprocessingOptions(color_order="RGB"))
    assert mean == tuple(reversed(DEEPLAB_MEAN))


def test_options_replace_the_values_of_the_file(tmp_path: Path) -> None:
    transform = "mean_value: 1 mean_value: 2 mean_value: 3 scale: 0.5"
    assert pixel_rule(tmp_path, transform, PreprocessingOptions(scale=2)) == ((1, 2, 3), 2, ())
    assert pixel_rule(tmp_path / "2", transform, PreprocessingOptions(mean=(9, 8, 7))) == ((9, 8, 7), 0.5, ())
    assert pixel_rule(tmp_path / "3", None, PreprocessingOptions(mean=(9, 8, 7))) == ((9, 8, 7), 1, ())


# ---- complete or absent


def test_crash_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise RuntimeError("power cut")

    steps = ("write_model_source", "export_part", "export_deploy", "verify_model")
    for step in (*(f"converter.export.bundle.{name}" for name in steps), "bundle.writing._put_in_place"):
        monkeypatch.setattr(f"atrous.{step}", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            write_bundle(read_seeded(DEEPLAB), tmp_path / "b")
        monkeypatch.undo()
        assert list(tmp_path.iterdir()) == [], step


def test_interruption_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "b", name="old")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == tmp_path / "b" and not self.name.endswith(".old"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(read_seeded(DEEPLAB), tmp_path / "b", BundleOptions(name="new"), replace=True)
    monkeypatch.undo()
    assert read_manifest(tmp_path / "b").name == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_stages_that_disagree_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def corrupt(stage: Any, inputs: Any) -> Any:
        blobs = run(stage, inputs)
        blobs["conv3:conv3"] = blobs["conv3:conv3"] + 1
        return blobs

    from atrous.converter.check.stages import OnnxStage

    run = OnnxStage.run
    monkeypatch.setattr(OnnxStage, "run", corrupt)
    with pytest.raises(
        VerificationError, match=r"differs from torch first at conv3:conv3 .*it reads pool2:pool2"
    ) as caught:
        write_bundle(read_seeded(DEEPLAB), tmp_path / "b")
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_existing_bundle_is_replaced_only_when_asked(tmp_path: Path) -> None:
    write(tmp_path / "b", name="first")
    with pytest.raises(OutputError, match="a bundle is there already; give --force"):
        write(tmp_path / "b", name="second")
    assert read_manifest(tmp_path / "b").name == "first"
    write_bundle(read_seeded(DEEPLAB), tmp_path / "b", BundleOptions(name="second"), replace=True)
    assert read_manifest(tmp_path / "b").name == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("replace", [False, True])
def test_nothing_but_a_bundle_is_ever_overwritten(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("years")
    (tmp_path / "file").write_text("more years")
    for name in ("folder", "file"):
        with pytest.raises(OutputError, match="exists and is not a bundle; choose another folder"):
            write_bundle(read_seeded(DEEPLAB), tmp_path / name, replace=replace)
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "years"


OTHER_MANIFESTS = [
    '{"name": "a web extension", "manifest_version": 3}',
    '{"schema_version": 99}',
    "[]",
    "[" * 9999,
    "{",
]


@pytest.mark.parametrize("manifest", OTHER_MANIFESTS, ids=range(len(OTHER_MANIFESTS)))
def test_folder_with_the_manifest_of_something_else_is_kept(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    (tmp_path / "main.js").write_text("years")
    with pytest.raises(OutputError, match="exists and is not a bundle; choose another folder"):
        write_bundle(read_seeded(DEEPLAB), tmp_path, replace=True)
    assert (tmp_path / "main.js").read_text() == "years"


ENGINE = f"engines/{'0a' * 32}"


@pytest.mark.parametrize(
    "name",
    ["notes.txt", ".git/HEAD", "src/main.js", "deploy.fp32.onnx", "engines/thesis.txt", f"{ENGINE}/thesis.plan",
     f"{ENGINE}/more/engine.json", f"{ENGINE[:-1]}/engine.json", "engines.old/x", "__pycache__/other.pyc", "Model.py"],
)  # fmt: skip
def test_bundle_with_other_files_is_kept(tmp_path: Path, deeplab: Path, name: str) -> None:
    folder = shutil.copytree(deeplab, tmp_path / "b")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("years")
    with pytest.raises(OutputError, match=rf"b: contains .*{name.split('/')[-1]}.*; move them away"):
        write_bundle(read_seeded(DEEPLAB), folder, replace=True)
    assert (folder / name).read_text() == "years"


def test_bundle_with_a_linked_folder_is_kept(tmp_path: Path, deeplab: Path) -> None:
    folder = shutil.copytree(deeplab, tmp_path / "b")
    (tmp_path / "home").mkdir()
    (folder / "engines").symlink_to(tmp_path / "home")
    with pytest.raises(OutputError, match="b: contains engines, which"):
        write_bundle(read_seeded(DEEPLAB), folder, replace=True)


def test_bundle_with_variants_and_engines_is_replaced(tmp_path: Path, deeplab: Path) -> None:
    folder = shutil.copytree(deeplab, tmp_path / "b")
    for name in (
        "deploy.fp16.onnx", f"deploy.int8.{'0a' * 6}.onnx", ".deploy.fp16.onnx.abcd_123", f"{ENGINE}/engine.json",
        f"{ENGINE}/{'0a' * 16}.plan", f"{ENGINE}/{'0a' * 16}.timing", f"{ENGINE}/.engine.json.0a0a.part",
        "__pycache__/model.cpython-311.pyc",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    write_bundle(read_seeded(DEEPLAB), folder, replace=True)
    assert {path.name for path in folder.iterdir()} == FILES


def test_file_added_while_converting_is_kept(tmp_path: Path, deeplab: Path) -> None:
    folder = shutil.copytree(deeplab, tmp_path / "b")

    def add_file(step: str) -> None:
        (folder / "thesis.txt").write_text("years")

    with pytest.raises(OutputError, match=r"contains thesis\.txt"):
        write_bundle(read_seeded(DEEPLAB), folder, replace=True, progress=add_file)
    assert (folder / "thesis.txt").read_text() == "years"


def test_two_writers_of_one_folder(tmp_path: Path, deeplab: Path) -> None:
    def finish_other(step: str) -> None:
        if step.startswith("moving"):
            shutil.copytree(deeplab, tmp_path / "b")

    with pytest.raises(OutputError, match="a bundle is there already; give --force"):
        write_bundle(read_seeded(DEEPLAB), tmp_path / "b", progress=finish_other)


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert write(tmp_path / "b").name == "mini-deeplab"


def test_current_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    write_bundle(read_seeded(DEEPLAB), ".")
    assert read_manifest(tmp_path / "b").name == "mini-deeplab"


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    assert write(tmp_path / "a" / "b" / "c").name == "mini-deeplab"


@pytest.mark.parametrize("below", ["b", "deeper/b"])
def test_folder_that_cannot_be_written(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/.*: cannot be written \(.*\); choose a folder you may write"):
        write(tmp_path / "file" / below)


def test_a_source_file_that_is_gone_is_named_as_such(tmp_path: Path) -> None:
    gone = tmp_path / "gone.prototxt"
    sources = (("prototxt", gone, "V1", "deeplab_v1"),)
    with pytest.raises(ConverterError, match=r"gone\.prototxt: cannot be read \(No such file or directory\)") as caught:
        write_bundle(read_seeded(DEEPLAB), tmp_path / "b", BundleOptions(sources=sources, verify=False))
    assert not isinstance(caught.value, OutputError)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", [OSError, SafetensorError])
def test_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device") if kind is OSError else SafetensorError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_model", fail)
    with pytest.raises(OutputError, match=r"/b: cannot be written \(No space left on device\)"):
        write(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        write(tmp_path / "b", verify=False)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o777 & ~mask
    for path in (tmp_path / "b").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask, path.name


def test_steps_are_reported_in_order(tmp_path: Path) -> None:
    steps: list[str] = []
    write_bundle(read_seeded(DEEPLAB), tmp_path / "b", progress=steps.append)
    assert steps == [
        "building the torch module",
        "writing model.py and model.safetensors",
        "writing model.onnx",
        "writing deploy.onnx",
        "comparing torch and ONNX Runtime",
        "moving the bundle into place",
    ]
