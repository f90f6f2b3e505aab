"""Tiny data sets drawn in the exact layouts of the published ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.bundle.palettes import VOC_COLORS
from atrous.runtime.pictures import encode_label_png


def draw_image(seed: int, height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def draw_truth(seed: int, numbers: list[int], height: int = 6, width: int = 9) -> np.ndarray:
    """Random numbers, each of which occurs."""
    truth = np.random.default_rng(seed).choice(np.array(numbers, np.uint8), (height, width))
    truth.flat[: len(numbers)] = numbers
    return truth


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def make_voc(root: Path, names: tuple[str, ...] = ("2007_000033", "2007_000042")) -> Path:
    folder = root / "VOCdevkit" / "VOC2012"
    for seed, name in enumerate(names):
        save(folder / "JPEGImages" / f"{name}.jpg", draw_image(seed))
        truth = draw_truth(seed, [*range(21), 255])
        (folder / "SegmentationClass").mkdir(exist_ok=True)
        (folder / "SegmentationClass" / f"{name}.png").write_bytes(encode_label_png(truth, VOC_COLORS))
        save(folder / "SegmentationClassAug" / f"{name}.png", truth)
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("".join(f"{name}\n" for name in names))
    lines = (f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png\n" for name in names)
    (lists / "val_aug.txt").write_text("".join(lines))
    return folder


def make_cityscapes(root: Path) -> Path:
    for seed, name in enumerate(("frankfurt_000000_000294", "lindau_000001_000019")):
        city = name.split("_")[0]
        save(root / "leftImg8bit" / "val" / city / f"{name}_leftImg8bit.png", draw_image(seed))
        ids = draw_truth(seed, list(range(34)))
        save(root / "gtFine" / "val" / city / f"{name}_gtFine_labelIds.png", ids)
        trains = draw_truth(seed, [*range(19), 255])
        save(root / "gtFine" / "val" / city / f"{name}_gtFine_labelTrainIds.png", trains)
    return root


def make_segnet_camvid(root: Path, *, with_list: bool = True) -> Path:
    lines = []
    for seed, name in enumerate(("0001TP_008550", "Seq05VD_f00000")):
        save(root / "test" / f"{name}.png", draw_image(seed))
        save(root / "testannot" / f"{name}.png", draw_truth(seed, list(range(12))))
        lines.append(f"/SegNet/CamVid/test/{name}.png /SegNet/CamVid/testannot/{name}.png\n")
    if with_list:
        (root / "test.txt").write_text("".join(lines))
    return root


def make_original_camvid(root: Path, colors: list[tuple[int, int, int]]) -> Path:
    for seed, name in enumerate(("0001TP_008550", "0016E5_00390")):
        save(root / "701_StillsRaw_full" / f"{name}.png", draw_image(seed))
        numbers = draw_truth(seed, list(range(len(colors))))
        save(root / "LabeledApproved_full" / f"{name}_L.png", np.array(colors, np.uint8)[numbers])
    (root / "test.txt").write_text("/SegNet/CamVid/test/0001TP_008550.png /SegNet/CamVid/testannot/0001TP_008550.png\n")
    return root


def make_sun_rgbd(root: Path, *, sorted_labels: bool = True) -> Path:
    for split, shift in (("test", 0), ("train", 5050)):
        for number in (1, 2):
            save(root / f"SUNRGBD-{split}_images" / f"img-{number:06d}.jpg", draw_image(number))
            folder = root / "labels" / split if sorted_labels else root / "labels"
            save(folder / f"img-{number + shift:06d}.png", draw_truth(number + shift, list(range(38))))
    return root


def copy_real_voc(shared: Path, root: Path) -> Path:
    """A real pair of PASCAL VOC 2012, both files as published, in the published layout."""
    source = shared / "images" / "voc2012"
    if not (source / "2007_000129.jpg").is_file():
        pytest.skip("no real pair of PASCAL VOC 2012")
    folder = root / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    shutil.copy(source / "2007_000129.jpg", folder / "JPEGImages")
    shutil.copy(source / "2007_000129.png", folder / "SegmentationClass")
    (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_000129\n")
    return folder


def copy_real_camvid(shared: Path, root: Path) -> Path:
    """Three real pairs of CamVid in SegNet's layout."""
    source = shared / "images" / "camvid"
    if not source.is_dir():
        pytest.skip("no real pairs of CamVid")
    folder = root / "CamVid"
    for kind, ending in (("test", "_image.png"), ("testannot", "_labels.png")):
        (folder / kind).mkdir(parents=True)
        for path in source.glob(f"*{ending}"):
            shutil.copy(path, folder / kind / path.name.replace(ending, ".png"))
    return folder
