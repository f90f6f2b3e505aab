"""PASCAL VOC 2012, as `VOCtrainval_11-May-2012.tar` unpacks.

::

    VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt      one name per line
    VOCdevkit/VOC2012/JPEGImages/2007_000033.jpg
    VOCdevkit/VOC2012/SegmentationClass/2007_000033.png   palette PNG: 0 to 20, void 255

The augmented labels (Hariharan et al. 2011, as packed by DeepLab) are one more folder, `SegmentationClassAug`, of gray
PNGs. DeepLab's own lists, two paths per line ("/JPEGImages/a.jpg /SegmentationClassAug/a.png"), work too.
"""

from __future__ import annotations

from pathlib import Path

from ....bundle.palettes import VOC_CLASSES, VOC_COLORS
from ....errors import DatasetError
from .dataset import Pair, read_lines, require_folder
from .label_files import Coding, make_index_coding


def read(root: Path, split: str, annotations: str) -> tuple[list[Pair], Coding]:
    """List a split (any list there is) below `VOC2012` or a folder above it.

    `annotations` is the folder of the labels, unless the list names them itself.
    """
    folder = _find_folder(root)
    list_path = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    splits = ", ".join(sorted(path.stem for path in list_path.parent.glob("*.txt"))) or "none"
    pairs = []
    for line in read_lines(list_path, f'lists the split "{split}" (there are {splits})'):
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
    return pairs, make_index_coding(len(VOC_CLASSES), what="labels of PASCAL VOC", palette=VOC_COLORS)


def _find_folder(root: Path) -> Path:
    for candidate in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (candidate / "ImageSets" / "Segmentation").is_dir():
            return candidate
    raise DatasetError(
        "has no ImageSets/Segmentation: give the folder VOC2012 of the unpacked VOCtrainval archive (the test archive "
        "has no labels)",
        path=root,
    )
