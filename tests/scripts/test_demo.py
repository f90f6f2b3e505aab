"""The demo: the whole path on the shipped miniature, its picture, its report; and the drawing by itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from atrous.runtime.evaluation import count_confusion, mean_iou
from atrous.scripts import demo, demo_picture
from atrous.scripts.demo_picture import DemoRow, draw_demo, paint_labels
from atrous.scripts.miniature.settings import MiniatureFiles, read_settings

PALETTE = ((200, 0, 0), (0, 200, 0), (0, 0, 200))


def make_row(height: int, width: int, seed: int = 0) -> DemoRow:
    rng = np.random.default_rng(seed)
    network, crf, truth = (rng.integers(0, 3, (height, width)).astype(np.uint8) for _ in range(3))
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return DemoRow(image, network, crf, truth, 0.7, 0.8, 12.0, 34.0)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, demo.DemoResult, dict[str, DemoRow]]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, *demo.run_demo(folder, threads=1)


def test_demo_gains_by_the_crf_in_sum(shown: tuple[Path, demo.DemoResult, dict[str, DemoRow]]) -> None:
    _, result, rows = shown
    settings = read_settings(MiniatureFiles().settings)
    assert result.scenes == len(rows) == len(settings.scenes) >= 4
    assert result.miou_network > 0.6
    assert result.miou_crf > result.miou_network + 0.02
    assert result.network_ms > 0
    assert result.crf_ms > 0


def test_demo_numbers_are_those_of_its_label_maps(shown: tuple[Path, demo.DemoResult, dict[str, DemoRow]]) -> None:
    _, result, rows = shown
    pooled = np.stack([count_confusion(row.truth, row.crf, 7) for row in rows.values()])
    assert result.miou_crf == mean_iou(pooled)
    assert all(row.miou_network == mean_iou(count_confusion(row.truth, row.network, 7)) for row in rows.values())


def test_demo_leaves_a_picture_and_a_bundle(shown: tuple[Path, demo.DemoResult, dict[str, DemoRow]]) -> None:
    folder, result, rows = shown
    assert (result.bundle / "manifest.json").exists()
    assert result.picture == folder / "demo.png"
    with Image.open(result.picture) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    first = next(iter(rows.values()))
    height, width = first.truth.shape
    places = [
        (y, x)
        for y, x in np.argwhere((pixels[:-height, :-width] == first.image[0, 0]).all(-1))
        if np.array_equal(pixels[y : y + height, x : x + width], first.image)
    ]
    assert len(places) == 1  # the image is there, pixel for pixel


def test_without_the_converter_the_crf_refines_stored_scores(
    shown: tuple[Path, demo.DemoResult, dict[str, DemoRow]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored scores are the network's in float16: labels differ from a run of the network at ties only."""
    monkeypatch.setitem(
        sys.modules, "atrous.converter.files.caffemodel", None
    )  # as if what it needs were not installed
    result, rows = demo.run_demo(tmp_path, threads=1)
    assert result.missing == "atrous.converter.files.caffemodel"
    assert (result.bundle, result.convert_s, result.network_ms) == (None, None, None)
    assert result.picture.exists()
    for name, run in shown[2].items():
        for part in ("network", "crf"):
            assert (getattr(rows[name], part) == getattr(run, part)).mean() > 0.999, (name, part)
    done = CliRunner().invoke(demo.command, ["-o", str(tmp_path), "--threads", "1"], catch_exceptions=False)
    assert "pip install 'atrous[convert]'" in done.output


def test_command_prints_json(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        demo.command, ["--out", str(tmp_path), "--threads", "1", "--json"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["command"] == "demo"
    assert report["miou_crf"] > report["miou_network"]
    assert Path(report["picture"]).exists()


def test_command_prints_a_table_and_replaces_an_older_demo(
    shown: tuple[Path, demo.DemoResult, dict[str, DemoRow]],
) -> None:
    done = CliRunner().invoke(demo.command, ["-o", str(shown[0]), "--threads", "1"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "mean IoU over all" in done.output
    assert "demo.png" in done.output


def test_picture_takes_rows_of_several_sizes() -> None:
    rows = [make_row(40, 60), make_row(31, 47, 1)]
    picture = draw_demo(rows, ("a", "b", "c"), PALETTE, "heading", "summary")
    assert picture.dtype == np.uint8
    assert picture.shape[1] >= 4 * 60
    assert picture.shape[0] >= 40 + 31


def test_picture_has_titles_in_order() -> None:
    assert demo_picture.TITLES == ("image", "network", "with CRF", "truth")


def test_painted_labels_keep_their_colors_inside_and_darken_at_borders() -> None:
    labels = np.zeros((5, 6), np.uint8)
    labels[:, 3:] = 1
    painted = paint_labels(labels, PALETTE)
    assert (painted[:, 0] == PALETTE[0]).all()
    assert (painted[:, 4] == PALETTE[1]).all()
    assert (painted[:, 2] == np.array(PALETTE[0]) // 5 * 3).all()


def test_demo_leaves_what_went_in_for_the_readers_own_commands(
    shown: tuple[Path, demo.DemoResult, dict[str, DemoRow]],
) -> None:
    folder, _, rows = shown
    files = MiniatureFiles()
    assert (folder / "caffe" / files.prototxt.name).read_bytes() == files.prototxt.read_bytes()
    assert (folder / "caffe" / files.caffemodel.name).read_bytes() == files.caffemodel.read_bytes()
    assert {path.stem for path in (folder / "scenes").iterdir()} == set(rows)
