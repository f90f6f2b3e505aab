"""`atrous precision` and `atrous verify` as a user runs them, on the miniature."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atrous import runtime
from atrous.converter import BundleOptions, write_bundle
from atrous.converter.precision import VariantOptions, make_variant, write_variant
from atrous.scripts.demo import convert_miniature
from atrous.scripts.miniature.settings import MiniatureFiles, read_settings
from atrous.scripts.precision_data import gather_evidence, make_reader

from ..converter.nets import DEEPLAB, read_seeded
from .running import Outcome, run_atrous

FILES = MiniatureFiles()


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("precision") / "miniature"
    convert_miniature(FILES, read_settings(FILES.settings), bundle)
    return bundle


@pytest.fixture
def bundle(miniature: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(miniature, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The shipped scenes as a folder of images and one of labels, with equal names."""
    root = tmp_path_factory.mktemp("scenes")
    for kind in ("images", "labels"):
        (root / kind).mkdir()
    for seed in read_settings(FILES.settings).scenes:
        picture, truth = FILES.scene(seed)
        shutil.copy(picture, root / "images" / f"{seed}.png")
        shutil.copy(truth, root / "labels" / f"{seed}.png")
    return root / "images", root / "labels"


def run_precision(bundle: Path, *arguments: object, few: bool = True) -> Outcome:
    """On one thread, and on few images unless all are wanted."""
    limits = ("--calibrate-on", 3, "--check-on", 2) if few else ()
    return run_atrous("precision", bundle, *limits, *arguments, "--threads", 1)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_miniature_by_default(bundle: Path, precision: str, tmp_path: Path) -> None:
    """Its own held-out scenes are labeled, so mean IoU is measured without being asked for."""
    plot = tmp_path / "plot.png"
    outcome = run_precision(bundle, "--to", precision, "--plot", plot, "--json", few=False)
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["passed"] is True
    verification = outcome.json["variant"]["verification"]
    assert verification["images"] == 5
    assert verification["miou_fp32"] == pytest.approx(0.876, abs=5e-3)
    assert abs(verification["miou_loss_points"]) < 0.5
    assert verification["label_agreement"] > (0.999 if precision == "fp16" else 0.99)
    assert verification["diverges_at"]["layer"] == "conv1_1"
    assert verification["onnxruntime_cpu"]["label_agreement"] > 0.99
    with Image.open(plot) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 4
    if precision == "fp16":
        return
    checked = run_atrous("verify", bundle, "--json")
    assert checked.code == 0, checked.stderr
    (variant,) = checked.json["variants"]
    assert variant["file"] == f"deploy.{precision}.onnx"
    assert variant["label_agreement"] == pytest.approx(verification["label_agreement"])


def test_people_read_a_table(bundle: Path) -> None:
    outcome = run_precision(
        bundle, "--to", "int8", "--method", "percentile", "--sensitivity", "always", "--keep", "fc8_scenes"
    )
    assert outcome.code == 0, outcome.stderr
    for words in ("labels as in float32", "mean IoU", "diverges at", "sensitivity", "left alone", "fc8_scenes", "####"):
        assert words in outcome.stdout
    assert "written:" in outcome.stdout


def test_a_refusal_leaves_everything(bundle: Path) -> None:
    before = snapshot(bundle)
    outcome = run_precision(bundle, "--to", "int8", "--target-agreement", 1, "--sensitivity", "never", "--json")
    assert outcome.code == 1
    assert outcome.json["error"]["type"] == "TargetMissedError"
    assert "no int8 variant was written" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert snapshot(bundle) == before


@pytest.mark.parametrize("place", ["bundle", "plot"])
def test_a_folder_that_cannot_be_written_fails_before_any_work(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    from click.testing import CliRunner

    from atrous.converter.precision import variant
    from atrous.errors import OutputError
    from atrous.scripts.precision import command

    (tmp_path / "closed").mkdir()
    closed = bundle if place == "bundle" else tmp_path / "closed"
    touch = Path.touch

    def refuse(self: Path, *arguments: Any, **options: Any) -> None:
        if self.parent == closed:
            raise PermissionError(13, "Permission denied")
        touch(self, *arguments, **options)

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(variant, "observe", None)  # the work must not begin
    plot = tmp_path / "closed" / "new" / "plot.png"
    outcome = CliRunner().invoke(command, [str(bundle), "--to", "fp16", "--plot", str(plot)])
    assert isinstance(outcome.exception, OutputError)
    assert str(closed) in str(outcome.exception)
    assert not plot.parent.exists()


def test_tables_are_printed_before_the_plot_fails(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from atrous.errors import OutputError
    from atrous.scripts import precision_picture
    from atrous.scripts.precision import command

    def fail(*_: Any) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(precision_picture, "draw_layers", fail)
    arguments = [str(bundle), "--to", "fp16", "--calibrate-on", "1", "--check-on", "1", "--threads", "1"]
    outcome = CliRunner().invoke(command, [*arguments, "--plot", str(tmp_path / "plot.png")])
    assert isinstance(outcome.exception, OutputError)
    assert "labels as in float32" in outcome.output


def test_keep_anyway(bundle: Path) -> None:
    arguments = ("--to", "fp8", "--target-agreement", 1, "--sensitivity", "never", "--keep-anyway", "--json")
    outcome = run_precision(bundle, *arguments)
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["passed"] is False
    assert runtime.read_bundle(bundle).manifest.variants["fp8"].verification["passed"] is False


def test_a_dataset_of_folders(bundle: Path, scenes: tuple[Path, Path]) -> None:
    outcome = run_precision(bundle, "--to", "int8", "--dataset", *scenes, "--check-on", 2, "--json")
    assert outcome.code == 0, outcome.stderr
    verification = outcome.json["variant"]["verification"]
    assert (verification["images"], outcome.json["variant"]["calibration"]["images"]) == (2, 3)
    assert verification["miou"] is not None


def test_a_folder_of_images(bundle: Path, scenes: tuple[Path, Path]) -> None:
    outcome = run_precision(bundle, "--to", "int8", "--images", scenes[0], "--size", "97x129", "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["variant"]["verification"]["miou"] is None
    assert outcome.json["variant"]["verification"]["targets"]["label_agreement"] == 0.99


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--to", "int4"), "int4"),
        (("--to", "int8", "--keep", "nothing"), "no layer and no node"),
        (("--to", "fp8", "--method", "entropy"), "entropy"),
        (("--to", "int8", "--images", "/nowhere"), "/nowhere"),
        (("--to", "int8", "--size", "big"), "big"),
        (("--to", "fp16", "--max-miou-loss", "1", "--images", "IMAGES"), "give --dataset"),
    ],
)
def test_mistakes_give_one_line(
    bundle: Path, scenes: tuple[Path, Path], arguments: tuple[str, ...], words: str
) -> None:
    given: list[Any] = [scenes[0] if argument == "IMAGES" else argument for argument in arguments]
    outcome = run_precision(bundle, *given)
    assert outcome.code in (1, 2)
    assert words in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_int8_of_a_foreign_net_needs_images(bundle: Path) -> None:
    manifest = bundle / "manifest.json"
    text = manifest.read_text()
    digest = next(
        source.sha256 for source in runtime.read_bundle(bundle).manifest.sources if source.role == "caffemodel"
    )
    manifest.write_text(text.replace(digest, "0" * 64))
    outcome = run_precision(bundle, "--to", "int8")
    assert outcome.code == 2
    assert "--images FOLDER" in outcome.stderr
    evidence = gather_evidence(runtime.read_bundle(bundle), "fp16")
    assert evidence.source == "the miniature's scenes, observed and checked on the same images"


def test_calibration_scenes_are_not_those_checked(miniature: Path) -> None:
    evidence = gather_evidence(runtime.read_bundle(miniature), "int8")
    checked = {picture.image.tobytes() for picture in evidence.pictures}
    assert len(checked) == 5
    assert not checked & {image.tobytes() for image in evidence.calibration}
    assert all(picture.truth is not None for picture in evidence.pictures)


def test_the_readers_score_is_the_mean_iou(miniature: Path) -> None:
    score = make_reader(runtime.read_bundle(miniature)).score
    assert score is not None
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    assert score([(truth, np.array([[0, 1, 1, 1]], np.uint8))]) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_help_is_quick_and_complete() -> None:
    outcome = run_atrous("precision", "--help")
    assert outcome.code == 0
    for option in ("--to", "--images", "--method", "--percentile", "--keep", "--target-agreement", "--max-miou-loss"):
        assert option in outcome.stdout


@pytest.mark.parametrize("head", ["labels", "lowres"])
def test_other_heads(tmp_path: Path, head: Any) -> None:
    """Labels come out of the graph, or out of scores that the runtime upsamples; any net may be checked in half."""
    folder = tmp_path / "bundle"
    write_bundle(read_seeded(DEEPLAB), folder, BundleOptions(head=head, verify=False))
    opened = runtime.read_bundle(folder)
    evidence = gather_evidence(opened, "fp16", size=(57, 73))
    assert evidence.source == "the miniature's scenes, observed and checked on the same images"
    options = VariantOptions("fp16", target_agreement=0.99, threads=1)
    result = make_variant(folder, options, evidence, make_reader(opened))
    assert result.passed
    assert result.assessment.agreement.pixels == len(evidence.pictures) * 57 * 73
    assert (result.assessment.agreement.clear_share is None) == (head == "labels")
    write_variant(folder, result)
    image = evidence.pictures[0].image
    with runtime.load(folder, precision="fp16", threads=1) as half, runtime.load(folder, threads=1) as whole:
        assert (half(image) == whole(image)).mean() > 0.99


def test_a_missing_library_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from atrous.errors import MissingDependencyError
    from atrous.scripts.precision import command

    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    outcome = CliRunner().invoke(command, [str(bundle), "--to", "fp16"])
    assert isinstance(outcome.exception, MissingDependencyError)
    assert outcome.exception.exit_code == 3
    assert "pip install" in str(outcome.exception)
