"""Figures that papers give for these models, to stand beside measured ones. All are mean IoU in percent.

Sources: Chen et al. 2015 is ICLR 2015 (arXiv 1412.7062), Chen et al. 2018 is PAMI 2018 (arXiv 1606.00915),
Badrinarayanan et al. 2017 is PAMI 2017 (SegNet, arXiv 1511.00561).

Figures on VOC val belong to weights trained without val: those of `trainaug`. The released v1 weights, and v2's without
`-trainaug` in the name, were trained on val too and score higher there; that is said beside the figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_ICLR = "Chen et al. 2015, table 1"
_PAMI = "Chen et al. 2018, {}"
_SEGNET = "Badrinarayanan et al. 2017, {}"
_SEEN_VAL = "of weights that never saw val; the released ones did"
_FIRST = "of the data set's first release, images halved"


@dataclass(frozen=True)
class Published:
    """One published figure.

    Attributes:
        model: the name its paper gives it.
        dataset: key of the data set.
        split: of the data set.
        crf: whether a dense CRF followed the network.
        mean_iou: a fraction of 1.
        source: the paper, and its table or section.
        bundles: names of the bundles made from that model's weights; empty where no weights were released.
        note: what sets it apart from a measurement on this split.
    """

    model: str
    dataset: str
    split: str
    crf: bool
    mean_iou: float
    source: str
    bundles: tuple[str, ...] = ()
    note: str = ""


def _pair(
    model: str,
    dataset: str,
    split: str,
    before: float | None,
    after: float | None,
    source: str,
    *bundles: str,
    note: str = "",
) -> list[Published]:
    return [
        Published(model, dataset, split, crf, round(percent / 100, 4), source, bundles, note)
        for crf, percent in ((False, before), (True, after))
        if percent is not None
    ]


PUBLISHED: tuple[Published, ...] = (
    *_pair("DeepLab", "voc2012", "val", 59.80, 63.74, _ICLR, "deeplab", note=_SEEN_VAL),
    *_pair("DeepLab", "voc2012", "test", None, 66.4, _ICLR, "deeplab"),
    *_pair("DeepLab-MSc", "voc2012", "val", 61.30, 65.21, _ICLR, "deeplab-msc", note=_SEEN_VAL),
    *_pair("DeepLab-MSc", "voc2012", "test", None, 67.1, _ICLR, "deeplab-msc"),
    *_pair("DeepLab-LargeFOV", "voc2012", "val", 62.25, 67.64, _ICLR, "deeplab-largefov", note=_SEEN_VAL),
    *_pair("DeepLab-LargeFOV", "voc2012", "test", 65.1, 70.3, _PAMI.format("section 4.1"), "deeplab-largefov"),
    *_pair("DeepLab-MSc-LargeFOV", "voc2012", "val", 64.21, 68.70, _ICLR, "deeplab-msc-largefov", note=_SEEN_VAL),
    *_pair("DeepLab-MSc-LargeFOV", "voc2012", "test", None, 71.6, _ICLR, "deeplab-msc-largefov"),
    *_pair("DeepLab-COCO-LargeFOV", "voc2012", "test", None, 72.7, _PAMI.format("table 5"), "deeplab-coco-largefov"),
    *_pair("DeepLab v2 VGG-16", "voc2012", "val", 68.96, 71.57, _PAMI.format("table 3"), "deeplab-v2-vgg16-trainaug"),
    *_pair(
        "DeepLab v2 VGG-16",
        "voc2012",
        "val",
        68.96,
        71.57,
        _PAMI.format("table 3"),
        "deeplab-v2-vgg16",
        note=_SEEN_VAL,
    ),
    *_pair("DeepLab v2 VGG-16", "voc2012", "test", None, 72.6, _PAMI.format("section 4.1"), "deeplab-v2-vgg16"),
    *_pair(
        "DeepLab v2 ResNet-101",
        "voc2012",
        "val",
        76.35,
        77.69,
        _PAMI.format("table 4"),
        "deeplab-v2-resnet101-trainaug",
    ),
    *_pair(
        "DeepLab v2 ResNet-101",
        "voc2012",
        "val",
        76.35,
        77.69,
        _PAMI.format("table 4"),
        "deeplab-v2-resnet101",
        note=_SEEN_VAL,
    ),
    *_pair("DeepLab v2 ResNet-101", "voc2012", "test", None, 79.7, _PAMI.format("table 5"), "deeplab-v2-resnet101"),
    *_pair("DeepLab-LargeFOV", "cityscapes", "val", 62.97, 64.18, _PAMI.format("table 9"), note="images halved"),
    *_pair("DeepLab-LargeFOV", "cityscapes", "val", 64.89, 65.94, _PAMI.format("table 9"), note="images at full size"),
    *_pair("DeepLab v2 ResNet-101", "cityscapes", "val", 71.0, 71.4, _PAMI.format("table 9")),
    *_pair("DeepLab-LargeFOV", "cityscapes", "test", None, 63.1, _PAMI.format("table 8"), note=_FIRST),
    *_pair(
        "DeepLab-LargeFOV",
        "cityscapes",
        "test",
        None,
        64.8,
        _PAMI.format("table 8"),
        note=f"{_FIRST}; coarse labels used too",
    ),
    *_pair("DeepLab v2 ResNet-101", "cityscapes", "test", None, 70.4, _PAMI.format("table 8")),
    *_pair(
        "DeepLab-LargeFOV",
        "camvid",
        "test",
        53.88,
        54.74,
        _SEGNET.format("table 3"),
        note="trained on 3433 road scenes",
    ),
    *_pair("DeepLab-LargeFOV", "sun-rgbd", "test", 32.08, 24.13, _SEGNET.format("table 4")),
)


def find_published(bundle: str, dataset: str) -> Sequence[Published]:
    """The figures of a bundle's own model on a data set; where there are none, those of DeepLab on it.

    Args:
        bundle: the bundle's name, as its manifest gives it.
        dataset: key of the data set.
    """
    here = [figure for figure in PUBLISHED if figure.dataset == dataset]
    own = [figure for figure in here if bundle in figure.bundles]
    return own or [figure for figure in here if not figure.bundles]
