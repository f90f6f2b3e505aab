"""Likely preprocessings of a net, tried on one photo: for users who do not know which it was trained with.

Every combination of channel order, mean with scale, and size runs once, without the CRF. The confidence is the mean
over the pixels of the largest probability: a net is unsure of images that look unlike those it was trained on. As a net
that gives one class everywhere can be sure too, the trials are ordered by the information that the labels have of the
image: the entropy of the mean prediction minus the mean entropy of the predictions, in bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.choices import COLOR_ORDERS
from ..bundle.folder import read_bundle
from ..bundle.manifest import Preprocessing
from ..bundle.section import Sides
from .backends.preprocessed import PixelRule, PreprocessedBackend, open_preprocessed
from .resizing import SizeOption, Sizing, choose_sizing
from .segmentation import Image, Labels, Scores
from .segmenter import Segmenter

IMAGENET = (104.008, 116.669, 122.675)  # blue, green, red: VGG-16 and its descendants
#: (mean, scale) of published nets; a single mean is for all channels
PIXEL_RULES: tuple[tuple[tuple[float, ...] | float, float], ...] = (
    (IMAGENET, 1.0),  # Caffe's examples, DeepLab, FCN, PSPNet
    (0.0, 1.0),  # ENet, SegNet
    (0.0, 1 / 255),  # nets from other frameworks
    (127.5, 1 / 127.5),  # Inception, MobileNet-SSD
    (IMAGENET, 0.017),  # MobileNet, ShuffleNet: about the standard deviation of ImageNet
)
_MOST_PIXELS = 1 << 21  # of the network's input: larger images are shrunk


@dataclass(frozen=True)
class Trial:
    """One preprocessing on the photo.

    Attributes:
        preprocessing: mean, scale and color order.
        size: (height, width) that the network ran at.
        confidence: mean over the pixels of the largest probability, 0 to 1.
        information: bits that the labels have of the image, 0 to log2 of the number of classes.
        labels: at the network's size, H x W uint8.
        is_present: whether it is the bundle's own preprocessing and size.
    """

    preprocessing: Preprocessing
    size: Sides
    confidence: float
    information: float
    labels: Labels
    is_present: bool


def list_rules(preprocessing: Preprocessing) -> list[Preprocessing]:
    """The bundle's preprocessing, then the likely ones in both channel orders, each once."""
    found = [preprocessing]
    own = (tuple(preprocessing.mean), preprocessing.scale)
    for order in COLOR_ORDERS:
        for mean, scale in (own, *PIXEL_RULES):
            values = mean if isinstance(mean, tuple) else (mean,) * 3
            blue_first = preprocessing.color_order == "BGR" if (mean, scale) == own else True
            values = values if (order == "BGR") == blue_first else values[::-1]
            rule = PixelRule(values, scale, order).change(preprocessing)  # type: ignore[arg-type]
            if not any(_is_same(rule, other) for other in found):
                found.append(rule)
    return found


def _is_same(first: Preprocessing, second: Preprocessing) -> bool:
    ours, theirs = (np.array([*rule.mean, 255 * rule.scale]) for rule in (first, second))
    return first.color_order == second.color_order and bool(np.allclose(ours, theirs, atol=0.5))


def list_sizes(sizing: Sizing, height: int, width: int, *, is_chosen: bool) -> list[Sides]:
    """The sizes to try: the default one, the image's own, and half the default; only the first if it was chosen."""
    first = _limit(sizing.find_size(height, width))
    if is_chosen or (sizing.target is not None and sizing.made_for is None):
        return [first]
    others = [_limit((height, width)), (max(first[0] // 2, 32), max(first[1] // 2, 32))]
    return list(dict.fromkeys([first, *others]))


def _limit(size: Sides) -> Sides:
    """The size shrunk to the most pixels that are tried."""
    scale = min(1.0, (_MOST_PIXELS / (size[0] * size[1])) ** 0.5)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def probe(
    path: str | Path,
    image: Image,
    backend: str = "onnxruntime",
    *,
    size: SizeOption = None,
    max_side: int | None = None,
    advance: Callable[[int], None] = lambda steps: None,
    **options: Any,
) -> list[Trial]:
    """Try the likely preprocessings of a bundle on a photo.

    Args:
        path: the bundle's folder.
        image: H x W x 3 uint8 RGB.
        backend: "onnxruntime" or "openvino".
        size: (height, width) for the network, or "native", as of `load`; None tries several.
        max_side: as of `load`.
        advance: called with the number of trials that ended, and first with their total, negated.
        options: `device` and `threads` of the backend.

    Returns:
        The trials, the one with most information first.

    Raises:
        BundleError: if the bundle is missing or altered, or has no `model.onnx`.
        BackendError: if the backend fails.
        InputError: if the backend has its preprocessing built in.
    """
    bundle = read_bundle(path)
    sizing = choose_sizing(bundle.preprocessing, size, max_side)
    is_fixed = bundle.preprocessing.size_rule.fixed is not None
    chosen = is_fixed or size is not None or max_side is not None
    sizes = list_sizes(sizing, image.shape[0], image.shape[1], is_chosen=chosen)
    rules = list_rules(bundle.preprocessing)
    advance(-len(rules) * len(sizes))
    network = open_preprocessed(backend, bundle, **options)
    try:
        trials = []
        for trial in _try_all(network, bundle, image, rules, sizes):
            trials.append(trial)
            advance(1)
    finally:
        network.close()
    return sorted(trials, key=lambda trial: -trial.information)


def _try_all(
    network: Any, bundle: Any, image: Image, rules: Sequence[Preprocessing], sizes: Sequence[Sides]
) -> Iterator[Trial]:
    assert isinstance(network, PreprocessedBackend)
    for index, size in enumerate(sizes):
        segmenter = Segmenter(bundle, network, sizing=Sizing(target=size))
        feeds = segmenter.prepare(image)
        for rule in rules:
            network.use(rule)
            belief = segmenter.to_probabilities(segmenter.run_network(feeds))  # (L, h, w)
            labels = belief.argmax(axis=0).astype(np.uint8)
            confidence = float(belief.max(axis=0).mean())
            is_present = index == 0 and rule is rules[0]
            yield Trial(rule, size, confidence, measure_information(belief), labels, is_present)


def measure_information(probabilities: Scores) -> float:
    """The entropy of the mean prediction minus the mean entropy of L x H x W predictions, in bits."""
    least = np.float32(1e-12)
    each = -(probabilities * np.log2(np.maximum(probabilities, least))).sum(axis=0).mean()
    mean = probabilities.mean(axis=(1, 2), dtype=np.float64)
    return max(0.0, float(-(mean * np.log2(np.maximum(mean, least))).sum() - each))
