"""PASCAL VOC 2012, as `VOCtrainval_11-May-2012.tar` unpacks.

::

    VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt      one name a line
    VOCdevkit/VOC2012/JPEGImages/2007_000033.jpg
    VOCdevkit/VOC2012/SegmentationClass/2007_000033.png   palette PNG: 0 to 20, void 255

The augmented labels (Hariharan et al. 2011, in DeepLab's packing) are a further folder, `SegmentationClassAug`, of
plain numbers. DeepLab's own lists, two paths a line ("/JPEGImages/a.jpg /SegmentationClassAug/a.png"), work too.
"""

from __future__ import annotations

from pathlib import Path

from ....bundle.palettes import VOC_CLASSES, VOC_COLORS
from ....errors import DatasetError
from .dataset import Dataset, Pair, check_pairs, read_lines, require_folder
from .label_files import make_index_coding

ANNOTATIONS = ("SegmentationClass", "SegmentationClassAug")


def open_voc2012(root: Path, split: str = "val", annotations: str = ANNOTATIONS[0]) -> Dataset:
    """Open a split of PASCAL VOC 2012.

    Args:
        root: `VOC2012`, or a folder above it.
        split: the list's name: "val", "train", "trainval", "train_aug", ...
        annotations: the folder of the labels, where the list does not name them itself.

    Raises:
        DatasetError: if the layout is another, the list is missing or empty, or files are.
    """
    folder = _find_folder(root)
    list_path = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    lines = read_lines(list_path, f'lists the split "{split}" (there are {_list_splits(list_path.parent)})')
    pairs = []
    for line in lines:
        parts = line.split()
        if len(parts) == 1:
            name = parts[0]
            labels = require_folder(folder / annotations, "it holds the labels") / f"{name}.png"
            pairs.append(Pair(name, folder / "JPEGImages" / f"{name}.jpg", labels))
        elif len(parts) == 2:
            image, truth = (folder / part.lstrip("/") for part in parts)
            pairs.append(Pair(image.stem, image, truth))
        else:
            raise DatasetError(f'"{line}" is neither a name nor an image and its labels', path=list_path)
    coding = make_index_coding(len(VOC_CLASSES), what="labels of PASCAL VOC", palette=VOC_COLORS)
    return Dataset(
        key="voc2012",
        title="PASCAL VOC 2012",
        split=split,
        root=folder,
        classes=VOC_CLASSES,
        palette=VOC_COLORS,
        pairs=check_pairs(pairs, root=folder, what=split),
        coding=coding,
    )


def _find_folder(root: Path) -> Path:
    for candidate in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (candidate / "ImageSets" / "Segmentation").is_dir():
            return candidate
    raise DatasetError(
        "holds no ImageSets/Segmentation: give the folder VOC2012 of the unpacked VOCtrainval archive (the test "
        "archive has no labels)",
        path=root,
    )


def _list_splits(folder: Path) -> str:
    return ", ".join(sorted(path.stem for path in folder.glob("*.txt"))) or "none"
