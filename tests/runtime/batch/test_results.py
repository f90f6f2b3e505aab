"""The kinds of results; COCO's run lengths are decoded by pycocotools' rule and, where installed, by itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.runtime import load
from atrous.runtime.batch import label_files
from atrous.runtime.batch.results import describe_coco
from atrous.runtime.pictures import OverlayStyle
from atrous.runtime.segmentation import Segmentation

from ..bundles import CLASSES, PALETTE, make_image, write_bundle


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(Path("b"))
    Image.fromarray(make_image(24, 32, 0)).save("a.png")


def decode(segmentation: dict[str, list[int]]) -> np.ndarray:
    height, width = segmentation["size"]
    values = np.repeat(np.arange(len(segmentation["counts"])) % 2, segmentation["counts"])
    return values.reshape(width, height).T.astype(bool)


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths(seed: int) -> None:
    dice = np.random.default_rng(seed)
    height, width = dice.integers(1, 20, 2)
    labels = dice.integers(0, 5, (height, width)).astype(np.uint8)
    labels[dice.random((height, width)) < 0.2] = 255
    found = describe_coco(labels, ["a", "b", "c", "d"])
    assert (found["height"], found["width"]) == (height, width)
    assert [one["category_id"] for one in found["annotations"]] == sorted(set(labels.ravel().tolist()) & set(range(4)))
    for one in found["annotations"]:
        mask = labels == one["category_id"]
        np.testing.assert_array_equal(decode(one["segmentation"]), mask)
        assert one["area"] == mask.sum()
        x, y, w, h = one["bbox"]
        assert mask[y : y + h, x : x + w].sum() == mask.sum()
        assert mask[y].any()
        assert mask[y + h - 1].any()
        assert mask[:, x].any()
        assert mask[:, x + w - 1].any()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pycocotools with NumPy 2
def test_pycocotools_reads_them() -> None:
    tools = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed: pip install pycocotools")
    labels = np.random.default_rng(0).integers(0, 3, (13, 17)).astype(np.uint8)
    for one in describe_coco(labels, ["a", "b", "c"])["annotations"]:
        packed = tools.frPyObjects(one["segmentation"], *labels.shape)
        np.testing.assert_array_equal(tools.decode(packed), labels == one["category_id"])
        assert int(tools.area(packed)) == one["area"]
        assert tools.toBbox(packed).tolist() == one["bbox"]


def test_masks_and_coco() -> None:
    kinds = ["labels", "masks", "coco"]
    assert label_files("b", "a.png", "out", kinds=kinds).labeled == 1
    with Image.open("out/a.png") as image:
        labels = np.array(image)
    names = sorted(path.name for path in Path("out/a_masks").iterdir())
    assert names == [f"{index:03}_{CLASSES[index]}.png" for index in np.unique(labels)]
    for name in names:
        with Image.open(f"out/a_masks/{name}") as image:
            np.testing.assert_array_equal(np.array(image), np.where(labels == int(name[:3]), 255, 0))
    assert json.loads(Path("out/a_coco.json").read_text()) == describe_coco(labels, CLASSES)
    assert label_files("b", "a.png", "out", kinds=kinds).skipped == 1
    Path(f"out/a_masks/{names[0]}").unlink()
    assert label_files("b", "a.png", "out", kinds=kinds).labeled == 1


def test_masks_of_an_earlier_run_are_removed() -> None:
    folder = Path("out/a_masks")
    folder.mkdir(parents=True)
    (folder / "003_red.png").write_bytes(b"old")
    (folder / "own.png").write_bytes(b"own")
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save("a.png")  # all background
    label_files("b", "a.png", "out", kinds=["masks"])
    assert sorted(path.name for path in folder.iterdir()) == ["000_background.png", "own.png"]


def test_the_style_of_overlays() -> None:
    for style in (OverlayStyle(), OverlayStyle(legend=True, format="jpeg"), OverlayStyle(opacity=0)):
        assert label_files("b", "a.png", "out", kinds=["overlay"], style=style).labeled == 1
    with Image.open("out/a_overlay.jpg") as image:
        assert image.format == "JPEG"
        assert image.width == 32
        assert image.height > 24
    assert label_files("b", "a.png", "out", kinds=["overlay"], style=OverlayStyle(opacity=0)).skipped == 1


def test_in_a_notebook() -> None:
    with load("b") as segmenter:
        result = segmenter.segment(make_image(24, 32, 0))
    assert repr(result).startswith("<Segmentation 32x24: ")
    assert " ms>" in repr(result)
    Path("cell.png").write_bytes(result._repr_png_())
    with Image.open("cell.png") as image:
        np.testing.assert_array_equal(np.array(image), result.labels)
        assert image.getpalette()[:12] == np.ravel(PALETTE).tolist()
    bare = Segmentation(np.full((2, 2), 255, np.uint8), None, {})
    assert repr(bare) == "<Segmentation 2x2: 255 100%; 0 ms>"
