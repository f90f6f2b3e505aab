"""`atrous evaluate` as a user runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.bundle.palettes import VOC_CLASSES
from atrous.runtime import read_bundle
from atrous.scripts.main import main
from atrous.scripts.precision_data import make_reader

from ..runtime.bundles import CRF, write_bundle
from ..runtime.evaluation import layouts
from ..runtime.evaluation.test_evaluator import make_folder
from .running import run_atrous


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_folder(tmp_path / "data")
    return tmp_path / "data"


def data_options(folder: Path) -> list[str]:
    return ["--dataset", "folder", "--images", str(folder / "i"), "--labels", str(folder / "l"), "--threads", "1"]


def test_report_for_people_and_for_machines(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    bundle = write_bundle(tmp_path / "b", crf=CRF)
    assert main(["evaluate", str(bundle), *data_options(folder), "-o", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    for words in ("IoU %", "with CRF", "mean IoU", "within 10 px of a border", "the CRF gains", "3 images of data/i: "):
        assert words in shown
    assert (tmp_path / "out" / "worst.png").stat().st_size > 1000
    assert main(["evaluate", str(bundle), *data_options(folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["command"], report["backend"], report["evaluated"]) == ("evaluate", "onnxruntime", 3)
    saved = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert saved["variants"] == report["variants"]
    assert report["variants"]["network"]["mean_iou"] == 1


@pytest.mark.parametrize(
    ("options", "variants"), [([], {"network", "crf"}), (["--crf"], {"crf"}), (["--no-crf"], {"network"})]
)
def test_before_after_or_both(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], variants: set[str]
) -> None:
    bundle = write_bundle(tmp_path / "b", crf=CRF)
    assert main(["evaluate", str(bundle), *data_options(folder), *options, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["variants"]) == variants


def test_official_bundle_gets_its_published_figure_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layouts.make_voc(tmp_path)
    bundle = write_bundle(tmp_path / "b", name="deeplab-largefov", classes=list(VOC_CLASSES), palette=[])
    line = ["evaluate", str(bundle), "--dataset", "voc2012", "--root", str(tmp_path), "--backend", "fake"]
    assert main([*line, "--threads", "1", "--limit", "1"]) == 0
    shown = capsys.readouterr().out
    assert "published: DeepLab-LargeFOV, val" in shown
    assert "67.64" not in shown  # of the CRF, which this bundle lacks
    assert "62.25" in shown
    assert "within 10 px of void" in shown
    assert "1 image of PASCAL VOC 2012 val: " in shown


def test_published_before_and_after_the_crf_stand_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layouts.make_voc(tmp_path)
    bundle = write_bundle(tmp_path / "b", name="deeplab-largefov", classes=list(VOC_CLASSES), palette=[], crf=CRF)
    line = ["evaluate", str(bundle), "--dataset", "voc2012", "--root", str(tmp_path), "--backend", "fake"]
    assert main([*line, "--threads", "1", "--limit", "1"]) == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines() if row.startswith("published:")]
    assert [row[3:5] for row in rows] == [["62.25", "67.64"], ["65.10", "70.30"]]


def test_real_pairs_end_to_end_by_the_fake_network(
    tmp_path: Path, shared_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shared_dir / "images" / "voc2012"
    if not (source / "2007_000033_image.png").is_file():
        pytest.skip("no real pairs of PASCAL VOC 2012")
    bundle = write_bundle(tmp_path / "b", classes=list(VOC_CLASSES), palette=[])
    line = ["evaluate", str(bundle), "--dataset", "folder", "--images", str(source), "--labels", str(source)]
    line += ["--image-ending", "_image", "--label-ending", "_labels", "--backend", "fake", "--threads", "1", "--json"]
    assert main(line) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["evaluated"] == 7
    assert 0 < report["variants"]["network"]["mean_iou"] < 0.2  # a formula on gray levels, not trained on VOC


def test_labels_of_another_class_set(tmp_path: Path, shared_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table of docs/evaluation.md: ENet, trained on Cityscapes, on three images of CamVid."""
    weights, source = shared_dir / "weights" / "enet-cityscapes", str(shared_dir / "images" / "camvid")
    pytest.importorskip("torch")
    bundle = tmp_path / "enet"
    files = [str(weights / "enet_deploy_final.prototxt"), str(weights / "cityscapes_weights.caffemodel")]
    options = ["--classes", "cityscapes", "--mean", "0,0,0", "--no-verify"]
    assert main(["convert", *files, *options, "-o", str(bundle)]) == 0
    line = ["evaluate", str(bundle), "--dataset", "folder", "--images", source, "--labels", source, "--no-crf"]
    line += ["--image-ending", "_image", "--label-ending", "_labels", "--threads", "1", "--json"]
    capsys.readouterr()
    assert main(line) == 0
    report = json.loads(capsys.readouterr().out)
    assert "add --label-classes camvid" in report["warnings"][0]
    assert report["suggested_map"]["3"] == "road"
    assert main([*line, "--label-classes", "camvid"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["dataset"]["mapping"]["pavement"] == "sidewalk"
    assert report["ignored_pixels"] == {}
    assert report["variants"]["network"]["pixel_accuracy"] > 0.6
    assert report["warnings"] == []


def test_a_map_in_place_of_the_own_order(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (folder / "l").glob("*.png"):  # red and green exchanged, blue called 9
        layouts.save(path, np.array([0, 9, 3, 2], np.uint8)[np.asarray(Image.open(path)) % 4])
    bundle, file = str(write_bundle(tmp_path / "b")), tmp_path / "map.json"
    file.write_text('{"0": "background", "3": "green", "2": "red"}')
    assert main(["evaluate", bundle, *data_options(folder), "--map", str(file)]) == 0
    text = capsys.readouterr().out
    assert "3 of the 255 classes of the labels (numbers) have a counterpart" in text
    assert "as their classes have no counterpart: 9 " in text
    assert main(["evaluate", bundle, *data_options(folder), "--label-classes", "nothing"]) == 2
    assert "nothing: is not a file, and not one of voc" in capsys.readouterr().err


def test_a_broken_image_costs_the_exit_code_1(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "i" / "1.png").write_bytes(b"not an image")
    assert main(["evaluate", str(write_bundle(tmp_path / "b")), *data_options(folder), "--json"]) == 1
    caught = capsys.readouterr()
    report = json.loads(caught.out)
    assert [failure["image"] for failure in report["failures"]] == ["1"]
    assert "atrous evaluate: 1: " in caught.err


def test_a_class_with_the_number_of_void_is_ignored(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_bundle(tmp_path / "b")
    twos = 0
    for path in (folder / "l").iterdir():
        truth = np.array(Image.open(path))
        truth[truth == 255] = 0  # with another number for void, 255 has no meaning
        layouts.save(path, truth)
        twos += int((truth == 2).sum())
    judged = []
    for more in ([], ["--void", "2"]):
        assert main(["evaluate", str(bundle), *data_options(folder), *more, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        judged.append((report["judged_pixels"], report["void_pixels"]))
    assert sum(judged[0]) == sum(judged[1])
    assert judged[1][0] == judged[0][0] - twos < judged[0][0]


def test_more_threads_than_cores_are_warned_about(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(write_bundle(tmp_path / "b")), *data_options(folder), "--threads", "200"]) == 0
    assert "warning: --threads 200 on " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--dataset", "folder"], "needs --images and --labels"),
        (["--dataset", "folder", "--images", "i", "--labels", "l", "--split", "val"], "are for the published"),
        (["--dataset", "voc2012"], "needs --root"),
        (["--dataset", "voc2012", "--root", ".", "--void", "0"], "are for --dataset folder"),
        (["--dataset", "voc2012", "--root", "."], "has no ImageSets/Segmentation"),
        (["--dataset", "mscoco"], "mscoco"),
        (["--dataset", "voc2012", "--root", ".", "--bands", "5,x"], "not a list of widths"),
        (["--dataset", "voc2012", "--root", ".", "--threads", "1000"], "not in the range 1<=x<=256"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: list[str], words: str
) -> None:
    assert main(["evaluate", str(write_bundle(tmp_path / "b")), *line]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1


def test_labels_of_another_kind_are_one_line(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(folder / "i" / "0.png", folder / "l" / "0.png")
    assert main(["evaluate", str(write_bundle(tmp_path / "b")), *data_options(folder)]) == 2
    assert "color picture" in capsys.readouterr().err
    layouts.save(folder / "l" / "0.png", np.ones((25, 30), np.uint8) * 4)
    assert main(["evaluate", str(write_bundle(tmp_path / "b")), *data_options(folder)]) == 2
    assert "from 1 instead of 0" in capsys.readouterr().err


def test_the_tables_are_printed_before_anything_is_written(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    from atrous.runtime import OutputError

    def refuse(*_: object) -> None:
        raise OutputError("cannot be written: No space left on device")

    monkeypatch.setattr("atrous.runtime.evaluation.report.write_evaluation", refuse)
    line = ["evaluate", str(write_bundle(tmp_path / "b")), *data_options(folder), "-o", str(tmp_path / "o")]
    assert main(line) == 2
    caught = capsys.readouterr()
    assert "mean IoU" in caught.out
    assert "No space left" in caught.err
    assert main([*line, "--json"]) == 2
    printed = json.loads(capsys.readouterr().out)
    assert "No space left" in printed["error"]["message"]
    assert printed["variants"]


def test_a_folder_that_cannot_be_written_is_noticed_before_the_run(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    monkeypatch.setattr("atrous.runtime.evaluation.evaluator.evaluate", None)  # must not be reached
    (tmp_path / "file").touch()
    bundle = str(write_bundle(tmp_path / "b"))
    assert main(["evaluate", bundle, *data_options(folder), "-o", str(tmp_path / "file")]) == 2
    assert "results need a folder" in capsys.readouterr().err


def test_precision_notices_classes_in_another_order_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reader = make_reader(read_bundle(write_bundle(tmp_path / "b")))
    truth = np.arange(4, dtype=np.uint8).repeat(9).reshape(6, 6)
    assert reader.score([(truth, truth)]) == 1
    assert capsys.readouterr().err == ""
    assert reader.score([(truth, np.array([2, 0, 1, 3], np.uint8)[truth])]) == 0.25
    assert "atrous precision: the classes of the label images seem to be in another order" in capsys.readouterr().err


def test_help_is_quick_and_needs_no_torch(tmp_path: Path) -> None:
    done = run_atrous("evaluate", "--help")
    assert done.code == 0
    assert "[voc2012|cityscapes|camvid|sun-rgbd|folder]" in done.stdout


@pytest.mark.parametrize("command", ["evaluate", "tune_crf"])
def test_the_command_line_reads_its_choices_without_numpy(command: str) -> None:
    code = f"import sys; sys.modules['numpy'] = None; import atrous.scripts.{command}"
    subprocess.run([sys.executable, "-c", code], check=True)
