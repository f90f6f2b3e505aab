"""Unaries of trained networks: the miniature's, and those of the shared test material.

The error of shortcuts depends on the confidence of the network, so each has its mean largest probability.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from atrous.runtime.images import read_image
from atrous.runtime.upsampling import softmax

from .crf_problems import Problem


@dataclass(frozen=True)
class Trained:
    """A network's output on one image."""

    name: str
    problem: Problem


def make_problem(image: npt.NDArray[np.uint8], probabilities: npt.NDArray[np.float32]) -> Problem:
    """Image (H, W, 3) and probabilities (L, H, W) with their energies."""
    own = np.ascontiguousarray(probabilities)
    unary = -np.log(np.clip(own, 1e-5, 1.0)).reshape(len(own), -1)
    return Problem(np.ascontiguousarray(image), own, unary)


def read_unaries(shared: Path | None) -> Iterator[Trained]:
    """The miniature on two drawn scenes; with the shared folder also VOC's 21 labels and ENet's 19."""
    for seed, height, width in ((3012, 321, 481), (3023, 513, 513)):
        yield Trained(f"miniature, scene {seed}", predict_scene(seed, height, width))
    if shared is not None:
        yield Trained("VOC 2007_000332", read_voc(shared / "images" / "voc2012"))
        yield Trained("ENet, Strasbourg", predict_street(shared / "weights" / "enet-cityscapes"))


def predict_scene(seed: int, height: int, width: int) -> Problem:
    """The shipped miniature on a drawn scene of that size."""
    from atrous.scripts.miniature.settings import FOLDER, NAME

    from .miniature.measuring import load_network
    from .scenes import draw_scene

    predict = load_network(FOLDER / f"{NAME}.prototxt", FOLDER / f"{NAME}.caffemodel")
    image = draw_scene(seed, height, width).image
    return make_problem(image, predict(image))


def read_voc(folder: Path) -> Problem:
    """The unary of 21 labels that users of pydensecrf know from its issues."""
    with np.load(folder / "2007_000332_3unary.npz") as data:
        values = np.moveaxis(data["arr_0"], -1, 0).astype(np.float32)  # (21, H, W), not quite summing to 1
    return make_problem(read_image(folder / "2007_000332_image.png"), values / values.sum(axis=0))


def predict_street(folder: Path) -> Problem:
    """ENet, converted, on the street photo that comes with its weights, at half its size."""
    from atrous import converter

    net = converter.read_net(folder / "enet_deploy_final.prototxt", weights=folder / "cityscapes_weights.caffemodel")
    photo = read_image(folder / "strasbourg_000001_033027.jpg")
    image = np.ascontiguousarray(photo[::2, ::2])
    data = image[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)  # (1, 3, H, W), BGR as Caffe's
    scores = list(converter.run_blobs(converter.to_torch(net), {"data": data}).values())[-1]
    return make_problem(image, softmax(np.asarray(scores, np.float32)[0]))
