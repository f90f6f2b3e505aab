"""Class names and colors of the datasets that Caffe's segmentation nets were published for.

Sources: PASCAL VOC 2012 development kit (`VOClabelcolormap`), Cityscapes' `labels.py` (train ids 0 to 18),
CamVid's `label_colors.txt` in the eleven classes of Badrinarayanan et al. (SegNet).
"""

from __future__ import annotations

import colorsys
from typing import NamedTuple

from .class_names import ADE20K_CLASSES, COCO_STUFF_CLASSES

Color = tuple[int, int, int]  # red, green, blue, 0 to 255

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

_CITYSCAPES: dict[str, Color] = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}
CITYSCAPES_CLASSES = tuple(_CITYSCAPES)
CITYSCAPES_COLORS = tuple(_CITYSCAPES.values())

_CAMVID: dict[str, Color] = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (0, 0, 192),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
CAMVID_CLASSES = tuple(_CAMVID)
CAMVID_COLORS = tuple(_CAMVID.values())

SUN_RGBD_CLASSES = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture"),
    *("counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes"),
    *("ceiling", "books", "fridge", "tv", "paper", "towel", "shower curtain", "box", "whiteboard", "person"),
    *("night stand", "toilet", "sink", "lamp", "bathtub", "bag"),
)

_GOLDEN_TURN = 0.6180339887498949  # the fraction of a turn whose multiples stay furthest apart


def make_voc_colors(count: int = 256) -> tuple[Color, ...]:
    """PASCAL VOC's color map: the bits of the label, low to high, fill the channels from their high bits down.

    Label bits 0, 3, 6 give red's bits 7, 6, 5; bits 1, 4, 7 green's; bits 2, 5 blue's.
    """

    def spread(label: int, channel: int) -> int:
        return sum(((label >> (3 * step + channel)) & 1) << (7 - step) for step in range(8))

    return tuple((spread(label, 0), spread(label, 1), spread(label, 2)) for label in range(count))


VOC_COLORS = make_voc_colors(len(VOC_CLASSES))


def make_distinct_colors(count: int) -> tuple[Color, ...]:
    """Colors for classes that come without any: hues by the golden ratio, in four shades."""
    shades = ((0.80, 0.90), (0.55, 1.00), (0.90, 0.62), (0.45, 0.75))  # (saturation, value)
    colors = []
    for index in range(count):
        saturation, value = shades[index % len(shades)]
        channels = colorsys.hsv_to_rgb((0.02 + index * _GOLDEN_TURN) % 1.0, saturation, value)
        colors.append((round(channels[0] * 255), round(channels[1] * 255), round(channels[2] * 255)))
    return tuple(colors)


class ClassSet(NamedTuple):
    """The classes of a dataset: names and RGB colors by label."""

    names: tuple[str, ...]
    colors: tuple[Color, ...]


def _with_distinct_colors(names: tuple[str, ...]) -> ClassSet:
    return ClassSet(names, make_distinct_colors(len(names)))


#: by the name that `atrous convert --classes` takes
CLASS_SETS = {
    "voc": ClassSet(VOC_CLASSES, VOC_COLORS),
    "cityscapes": ClassSet(CITYSCAPES_CLASSES, CITYSCAPES_COLORS),
    "camvid": ClassSet(CAMVID_CLASSES, CAMVID_COLORS),
    "sun-rgbd": _with_distinct_colors(SUN_RGBD_CLASSES),
    "ade20k": _with_distinct_colors(ADE20K_CLASSES),
    "coco-stuff": _with_distinct_colors(COCO_STUFF_CLASSES),
}
