"""SUN RGB-D's 37 classes as plain images, as packed by `ankurhanda/sunrgbd-meta-data` (SegNet's source too).

::

    SUNRGBD-train_images/img-000001.jpg ... img-005285.jpg      SUNRGBD-train_images.tgz
    SUNRGBD-test_images/img-000001.jpg  ... img-005050.jpg      SUNRGBD-test_images.tgz
    labels/test/img-000001.png          ... img-005050.png      sunrgbd_train_test_labels.tar.gz, sorted into two
    labels/train/img-005051.png         ... img-010335.png      folders as its README says

Labels: 0 is unlabeled (void here), 1 to 37 are the classes. The first 5050 label images are of the test split: training
image k has the labels 5050 + k. The label images may also lie in one folder, `labels`. (The original, a MATLAB 7.3 file
of 64 GB in memory, is not read.)
"""

from __future__ import annotations

import re
from pathlib import Path

from ....bundle.palettes import SUN_RGBD_CLASSES
from ....errors import DatasetError
from .dataset import Pair, require_folder
from .label_files import Coding, make_index_coding

_TEST_IMAGES = 5050
_NAME = re.compile(r"img-(\d{6})\.jpg")


def read(root: Path, split: str, annotations: str) -> tuple[list[Pair], Coding]:
    """List the split "train" or "test" below the folder of `SUNRGBD-test_images` and `labels`."""
    if split not in ("train", "test"):
        raise DatasetError(f'SUN RGB-D has the splits train and test, not "{split}"', path=root)
    images = require_folder(root / f"SUNRGBD-{split}_images", f"it is in SUNRGBD-{split}_images.tgz")
    truths = require_folder(root / "labels", "it is made from sunrgbd_train_test_labels.tar.gz")
    truths = truths / split if (truths / split).is_dir() else truths
    shift = _TEST_IMAGES if split == "train" else 0
    pairs = []
    for image in sorted(images.glob("img-*.jpg")):
        match = _NAME.fullmatch(image.name)
        if match is None:
            raise DatasetError("the name does not have the form img-000001.jpg", path=image)
        pairs.append(Pair(image.stem, image, truths / f"img-{int(match[1]) + shift:06d}.png"))
    return pairs, make_index_coding(len(SUN_RGBD_CLASSES), void=0, offset=1, what="37 labels of SUN RGB-D")
