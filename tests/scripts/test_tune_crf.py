"""`atrous tune-crf` as a user runs it, on scenes with the miniature's own network output in small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.runtime import read_bundle
from atrous.scripts.main import main

from ..runtime.bundles import CRF, PALETTE, make_manifest, write_bundle
from ..runtime.evaluation import layouts

GRID = ["--weights", "2,6", "--sxy", "5:10:15", "--srgb", "20,40", "--halvings", "0", "--threads", "1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two fields of colors that the network of `bundles` knows, in noise that it sometimes mislabels."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        border = int(rng.integers(10, 22))
        truth = np.where(np.arange(32) < border, 1, 3).astype(np.uint8)[None].repeat(24, 0)
        image = np.array([(0, 0, 0), (60, 60, 160), (60, 160, 60), (160, 60, 60)])[truth] + rng.normal(
            0, 45, (24, 32, 3)
        )
        layouts.save(tmp_path / "i" / f"{seed}.png", np.clip(image, 0, 255).astype(np.uint8))
        layouts.save(tmp_path / "l" / f"{seed}.png", truth)
    return tmp_path


def line(bundle: Path, folder: Path, *more: str) -> list[str]:
    data = ["--dataset", "folder", "--images", str(folder / "i"), "--labels", str(folder / "l")]
    return ["tune-crf", str(bundle), *data, *GRID, *more]


def test_writes_the_winner_and_says_how_it_was_found(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="heat maps need matplotlib")
    bundle = write_bundle(tmp_path / "b", palette=PALETTE)
    out = tmp_path / "out"
    assert main(line(bundle, folder, "--halvings", "1", "-o", str(out), "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["written"]
    assert report["held_out"]["images"] == 2
    assert report["chosen_on"]["chosen"] == max(point["mean_iou"] for point in report["points"])
    assert report["chosen_on"]["chosen"] > report["chosen_on"]["network"]
    manifest = read_bundle(bundle).manifest
    assert manifest.crf is not None
    assert manifest.crf.to_dict() == report["crf"]
    record = manifest.crf_tuning
    assert record is not None
    assert record["points"] == len(report["points"])
    for name in ("heat_map", "heat_map_fine"):
        with Image.open(out / f"{name}.png") as picture:
            assert min(picture.size) > 100
    assert json.loads((out / "tuning.json").read_text())["crf"] == report["crf"]


def test_points_discarded_by_a_race_are_reported_and_drawn(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="heat maps need matplotlib")
    bundle = write_bundle(tmp_path / "b", palette=PALETTE)
    out = tmp_path / "out"
    options = ("--weights", "0.01,6", "--halvings", "0", "--race", "--hold-out", "0", "--threads", "1")
    assert main(line(bundle, folder, *options, "-o", str(out), "--json")) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    discarded = [point for point in points if point["mean_iou"] is None]
    assert discarded
    assert all(point["discarded_after"] == 4 and point["behind"] > 0 for point in discarded)
    assert 0.01 in {point["weight"] for point in discarded}
    assert (out / "heat_map.png").stat().st_size > 1000


def test_the_bundles_mode_is_kept(tmp_path: Path, folder: Path) -> None:
    bundle = write_bundle(tmp_path / "b", crf={**CRF, "mode": "pydensecrf"})
    assert main(line(bundle, folder, "--hold-out", "0", "--force")) in (0, 1)
    manifest = read_bundle(bundle).manifest
    assert manifest.crf is not None
    assert manifest.crf.mode == "pydensecrf"
    assert manifest.crf_tuning is not None
    assert manifest.crf_tuning["held_out"] is None


def test_dry_run_leaves_the_bundle_alone(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_bundle(tmp_path / "b", crf=CRF)
    before = (bundle / "manifest.json").read_bytes()
    assert main(line(bundle, folder, "--dry-run", "--force")) in (0, 1)
    assert (bundle / "manifest.json").read_bytes() == before
    shown = capsys.readouterr().out
    assert "is unchanged" in shown
    assert "the best of 8 points" in shown
    assert "held out" in shown


def test_a_winner_that_does_worse_is_not_written_unless_forced(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # One point only, which changes nothing, against parameters that mend the noise.
    weak = ["--weights", "0.0001", "--sxy", "1", "--srgb", "1"]
    position = {"mode": "deeplab", "iterations": 10, "bilateral": [{"sxy": 20.0, "srgb": 60.0, "weight": 8.0}]}
    strong = write_bundle(tmp_path / "strong", crf={**position, "gaussian": [{"sxy": 6.0, "weight": 12.0}]})
    data = line(strong, folder)
    arguments = [*data[: data.index("--weights")], *weak, "--halvings", "0", "--threads", "1"]
    before = (strong / "manifest.json").read_bytes()
    assert main(arguments) == 1
    assert "is worse than the present parameters" in capsys.readouterr().err
    assert (strong / "manifest.json").read_bytes() == before
    assert main([*arguments, "--force"]) == 1
    assert (strong / "manifest.json").read_bytes() != before


def test_classes_in_another_order_are_noticed(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index, path in enumerate(sorted((folder / "l").iterdir())):
        truth = np.array(Image.open(path))
        truth[0] = 2 * (index % 2)  # a third class
        layouts.save(path, np.array([1, 3, 0, 2], np.uint8)[truth])
    assert main(line(write_bundle(tmp_path / "b"), folder, "--dry-run", "--json")) in (0, 1)
    caught = capsys.readouterr()
    (warning,) = json.loads(caught.out)["warnings"]
    assert "another order than the bundle's" in warning
    assert f"atrous tune-crf: {warning}" in caught.err


def test_a_bundle_that_cannot_be_written_is_noticed_before_the_search(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from atrous.bundle import files
    from atrous.runtime import OutputError

    bundle = write_bundle(tmp_path / "b")

    def refuse(path: Path) -> Path:
        raise OutputError("is not a folder that can be written", path=path)

    monkeypatch.setattr(files, "prepare_folder", refuse)
    monkeypatch.setattr("atrous.runtime.evaluation.tuning.scoring.score_images", None)  # must not be reached
    assert main(line(bundle, folder)) == 2
    assert f"{bundle}: is not a folder that can be written" in capsys.readouterr().err


def test_the_tables_are_printed_before_anything_is_written(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from atrous.runtime import OutputError

    def refuse(*_: object) -> None:
        raise OutputError("cannot be written: No space left on device")

    monkeypatch.setattr("atrous.bundle.writing.replace_crf", refuse)
    words = line(write_bundle(tmp_path / "b"), folder, "--force")
    assert main(words) == 2
    caught = capsys.readouterr()
    assert "the best of 8 points" in caught.out
    assert "No space left" in caught.err
    assert main([*words, "--json"]) == 2
    printed = json.loads(capsys.readouterr().out)
    assert "No space left" in printed["error"]["message"]
    assert len(printed["points"]) == 8


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--weights", "6,2"], "neither 4,10 nor 30:10:100"),
        (["--sxy", "1:0:9"], "neither 4,10 nor 30:10:100"),
        (["--hold-out", "1"], "leaves no image to choose on"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert main(line(write_bundle(tmp_path / "b"), folder, *more)) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1


def test_an_image_whose_crf_exceeds_the_memory_is_refused(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layouts.save(folder / "i" / "6.png", np.zeros((900, 1000, 3), np.uint8))
    layouts.save(folder / "l" / "6.png", np.zeros((900, 1000), np.uint8))
    bundle = write_bundle(tmp_path / "b")
    assert main(line(bundle, folder, "--memory", "1M")) == 2
    error = capsys.readouterr().err
    assert "6: the CRF of 1000x900 pixels needs about" in error
    assert "raise --memory" in error
    assert read_bundle(bundle).manifest.crf is None


def test_images_far_from_the_size_of_the_net_are_noticed(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_for = {"size": [240, 320], "source": "prototxt", "resize": False}
    bundle = write_bundle(tmp_path / "b", preprocessing={**make_manifest({})["preprocessing"], "made_for": made_for})
    assert main(line(bundle, folder, "--dry-run")) in (0, 1)
    assert "10.0 times as small a side as the 240x320 it was made for" in capsys.readouterr().err


def test_a_winner_without_held_out_images_is_called_worse_by_its_own_words(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_bundle(tmp_path / "b", crf=CRF)
    arguments = line(bundle, folder, "--hold-out", "0", "--dry-run", "--weights", "100", "--sxy", "1", "--srgb", "1000")
    code, error = main(arguments), capsys.readouterr().err
    assert (code, "which this search does not reach" in error) in ((1, True), (0, False))
    assert "not chosen on" not in error


def test_a_head_of_labels_has_nothing_to_search_on(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line(write_bundle(tmp_path / "b", "labels"), folder)) == 2
    assert "labels only" in capsys.readouterr().err
