"""The converted miniature on scenes: probabilities, labels before and after the CRF, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from atrous import converter
from atrous.runtime.crf import CrfParameters, dense_crf
from atrous.runtime.evaluation import Counts, bootstrap_gain, class_ious, count_confusion, mean_iou, take_parts
from atrous.scripts.miniature.settings import Figures, Score

from ..scenes import CLASSES, Scene, draw_scene
from .network import pad_data, prepare_data

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""An image (H, W, 3) uint8 RGB to probabilities (classes, H, W) float32."""


@dataclass(frozen=True)
class Sample:
    """One scene and the network's output for it.

    Attributes:
        scene: picture and truth.
        probabilities: (classes, H, W) float32.
    """

    scene: Scene
    probabilities: NDArray[np.float32]


def load_network(prototxt: Path, caffemodel: Path) -> Predict:
    """Convert Caffe's files and return the network as a function of an image, padded as DeepLab pads."""
    module = converter.to_torch(converter.read_net(prototxt, weights=caffemodel))

    def predict(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        height, width = image.shape[:2]
        data = pad_data(prepare_data(image[None]))
        with torch.inference_mode():
            scores: Any = module(data)  # (1, classes, H + below, W + right)
        probabilities: NDArray[np.float32] = torch.softmax(scores[0, :, :height, :width], 0).contiguous().numpy()
        return probabilities

    return predict


def predict_scenes(predict: Predict, seeds: range) -> Iterator[Sample]:
    """Draw the scenes of ``seeds``, sizes mixed, and run the network on each."""
    for seed in seeds:
        scene = draw_scene(seed)
        yield Sample(scene, predict(scene.image))


def count_before(sample: Sample) -> Counts:
    """Confusion of the network's own labels."""
    return count_confusion(sample.scene.labels, sample.probabilities.argmax(0).astype(np.uint8), len(CLASSES))


def count_after(sample: Sample, parameters: CrfParameters, threads: int) -> Counts:
    """Confusion of the labels after the CRF."""
    marginals = dense_crf(sample.scene.image, sample.probabilities, parameters=parameters, threads=threads)
    return count_confusion(sample.scene.labels, marginals.argmax(0).astype(np.uint8), len(CLASSES))


def measure_figures(
    predict: Predict,
    seeds: range,
    parameters: CrfParameters,
    threads: int,
    advance: Callable[[int], None] = lambda steps: None,
) -> Figures:
    """Score the network and the CRF on the scenes of ``seeds``; ``advance`` is called with 1 after each."""
    before, after = [], []
    for sample in predict_scenes(predict, seeds):
        before.append(count_before(sample))
        after.append(count_after(sample, parameters, threads))
        advance(1)
    low, high = bootstrap_gain([take_parts(counts) for counts in before], [take_parts(counts) for counts in after])
    return Figures(
        seeds=(seeds[0], seeds[-1]),
        network=_score(before),
        crf=_score(after),
        gain_95=(round(low, 4), round(high, 4)),
    )


def _score(counts: list[Counts]) -> Score:
    pooled = np.sum(counts, axis=0)
    ious = class_ious(pooled)
    # A class absent from a small set has no IoU.
    by_class = {name: round(float(iou), 4) for name, iou in zip(CLASSES, ious, strict=True) if np.isfinite(iou)}
    return Score(mean_iou=round(mean_iou(pooled), 4), ious=by_class)
