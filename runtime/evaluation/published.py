"""Results that papers give for these models, to print beside measured ones: mean IoU.

Sources: Chen et al. 2015 is ICLR 2015 (arXiv 1412.7062), Chen et al. 2018 is PAMI 2018 (arXiv 1606.00915),
Badrinarayanan et al. 2017 is PAMI 2017 (SegNet, arXiv 1511.00561).

Results on VOC val are of weights trained without val. Of the released weights only those with `-trainaug` in their name
were; the others were trained on val too and score higher there, which is noted beside the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

_ICLR = "Chen et al. 2015, table 1"
_PAMI = "Chen et al. 2018, "
_SEGNET = "Badrinarayanan et al. 2017, "
_TRAINED_ON_VAL = "of weights not trained on val; the released ones were"
_FIRST = "of the first release of the dataset, images halved"


@dataclass(frozen=True)
class PublishedResult:
    """One published result."""

    model: str  # as its paper names it
    dataset: str  # key of the dataset
    split: str
    crf: bool  # whether a dense CRF followed the network
    mean_iou: float  # a fraction of 1
    source: str  # the paper, and its table or section
    bundles: tuple[str, ...] = ()  # made from that model's weights; empty if no weights were released
    note: str = ""  # differences from a measurement on this split


_VGG, _RESNET = "DeepLab v2 VGG-16", "DeepLab v2 ResNet-101"
_VGG_BUNDLES = ("deeplab-v2-vgg16", "deeplab-v2-vgg16-trainaug")
_RESNET_BUNDLES = ("deeplab-v2-resnet101", "deeplab-v2-resnet101-trainaug")

# model, dataset, split, mean IoU in percent before and after the CRF, source, bundles, note
_ROWS: tuple[tuple[str, str, str, float | None, float | None, str, tuple[str, ...], str], ...] = (
    ("DeepLab", "voc2012", "val", 59.80, 63.74, _ICLR, ("deeplab",), ""),
    ("DeepLab", "voc2012", "test", None, 66.4, _ICLR, ("deeplab",), ""),
    ("DeepLab-MSc", "voc2012", "val", 61.30, 65.21, _ICLR, ("deeplab-msc",), ""),
    ("DeepLab-MSc", "voc2012", "test", None, 67.1, _ICLR, ("deeplab-msc",), ""),
    ("DeepLab-LargeFOV", "voc2012", "val", 62.25, 67.64, _ICLR, ("deeplab-largefov",), ""),
    ("DeepLab-LargeFOV", "voc2012", "test", 65.1, 70.3, _PAMI + "section 4.1", ("deeplab-largefov",), ""),
    ("DeepLab-MSc-LargeFOV", "voc2012", "val", 64.21, 68.70, _ICLR, ("deeplab-msc-largefov",), ""),
    ("DeepLab-MSc-LargeFOV", "voc2012", "test", None, 71.6, _ICLR, ("deeplab-msc-largefov",), ""),
    ("DeepLab-COCO-LargeFOV", "voc2012", "test", None, 72.7, _PAMI + "table 5", ("deeplab-coco-largefov",), ""),
    (_VGG, "voc2012", "val", 68.96, 71.57, _PAMI + "table 3", _VGG_BUNDLES, ""),
    (_VGG, "voc2012", "test", None, 72.6, _PAMI + "section 4.1", _VGG_BUNDLES[:1], ""),
    (_RESNET, "voc2012", "val", 76.35, 77.69, _PAMI + "table 4", _RESNET_BUNDLES, ""),
    (_RESNET, "voc2012", "test", None, 79.7, _PAMI + "table 5", _RESNET_BUNDLES[:1], ""),
    ("DeepLab-LargeFOV", "cityscapes", "val", 62.97, 64.18, _PAMI + "table 9", (), "images halved"),
    ("DeepLab-LargeFOV", "cityscapes", "val", 64.89, 65.94, _PAMI + "table 9", (), "images at full size"),
    (_RESNET, "cityscapes", "val", 71.0, 71.4, _PAMI + "table 9", (), ""),
    ("DeepLab-LargeFOV", "cityscapes", "test", None, 63.1, _PAMI + "table 8", (), _FIRST),
    ("DeepLab-LargeFOV", "cityscapes", "test", None, 64.8, _PAMI + "table 8", (), f"{_FIRST}; coarse labels used too"),
    (_RESNET, "cityscapes", "test", None, 70.4, _PAMI + "table 8", (), ""),
    ("DeepLab-LargeFOV", "camvid", "test", 53.88, 54.74, _SEGNET + "table 3", (), "trained on 3433 road scenes"),
    ("DeepLab-LargeFOV", "sun-rgbd", "test", 32.08, 24.13, _SEGNET + "table 4", (), ""),
)

PUBLISHED = tuple(
    PublishedResult(model, dataset, split, crf, round(percent / 100, 4), source, bundles, note)
    for model, dataset, split, before, after, source, bundles, note in _ROWS
    for crf, percent in ((False, before), (True, after))
    if percent is not None
)


def find_published(bundle: str, dataset: str) -> Sequence[PublishedResult]:
    """Find the results of a bundle's own model on a dataset; else those of models without released weights."""
    here = [result for result in PUBLISHED if result.dataset == dataset]
    own = [
        replace(result, note=_TRAINED_ON_VAL if result.split == "val" and not bundle.endswith("-trainaug") else "")
        for result in here
        if bundle in result.bundles
    ]
    return own or [result for result in here if not result.bundles]
