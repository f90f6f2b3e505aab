"""Sensitivity of the layers to a narrow precision, and the fewest to leave alone.

The sweep makes one layer narrow at a time, with all others in float32, and measures the effect on the scores. The
search then leaves the most sensitive layers alone. Bisection finds their number; each candidate is checked in full
against the targets, which covers interactions between layers. It assumes that leaving more layers alone never makes the
variant worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from .assess import Agreement, Reference
from .compare import emulate, measure_noise, to_json
from .graph import layer_of
from .images import Array, HeadReader

#: largest side of the crops that a sweep looks at, in pixels, and their number
SWEEP_SIDE = 257
SWEEP_IMAGES = 4


@dataclass(frozen=True)
class Sensitivity:
    """Effect of one layer in the narrow precision.

    `noise` is the root of the energy of the scores' difference over that of the scores, None for a head of labels;
    `disagreement` is the share of labels that change.
    """

    node: str
    layer: str
    noise: float | None
    disagreement: float

    def to_json(self) -> dict[str, Any]:
        """Return the measurement as the manifest records it."""
        noise = None if self.noise is None else to_json(self.noise)
        return {"layer": self.layer, "node": self.node, "noise": noise, "disagreement": self.disagreement}


def sweep_layers(
    reference: Reference, build: Callable[[Collection[str]], onnx.ModelProto], nodes: Sequence[str]
) -> list[Sensitivity]:
    """Measure nodes one by one on the centers of the first images; the most sensitive comes first.

    A graph of one size sees the whole images. `build` builds the variant that leaves some nodes alone.
    """
    sides = reference.model.graph.input[0].type.tensor_type.shape.dim[1:3]
    side = None if any(dim.HasField("dim_value") for dim in sides) else SWEEP_SIDE
    images = [crop_center(picture.image, side) for picture in reference.pictures[:SWEEP_IMAGES]]
    expected = list(map(reference.open(reference.model), images))
    found = []
    with reference.show("measuring layers one by one", len(nodes)) as advance:
        for node in nodes:
            run = reference.open(emulate(build([other for other in nodes if other != node])))
            found.append(_measure(node, images, expected, list(map(run, images)), reference.reader))
            advance(1)
    return sorted(found, key=lambda row: (row.noise or 0.0, row.disagreement), reverse=True)


def _measure(
    node: str, images: Sequence[Array], expected: Sequence[Array], outputs: Sequence[Array], reader: HeadReader
) -> Sensitivity:
    difference = energy = 0.0
    agreement = Agreement()
    for image, ours, theirs in zip(images, expected, outputs, strict=True):
        agreement.add(reader.read(ours, image)[0], reader.read(theirs, image)[0], None)
        if reader.head != "labels":
            difference += float(np.square(theirs - ours, dtype=np.float64).sum())
            energy += float(np.square(ours, dtype=np.float64).sum())
    noise = measure_noise(difference, energy) if math.isfinite(difference) else math.inf
    return Sensitivity(node, layer_of(node), None if reader.head == "labels" else noise, agreement.disagreement)


def crop_center(image: Array, side: int | None) -> Array:
    """Crop the center of an H x W x 3 image, at most `side` high and wide; None keeps all of it."""
    if side is None:
        return image
    top, left = (max(0, (size - side) // 2) for size in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def find_fewest(ranked: Sequence[str], passes: Callable[[Sequence[str]], bool]) -> list[str] | None:
    """Find the shortest prefix of a ranking that passes; None if leaving all but one alone fails.

    `passes` reports whether the variant that leaves these nodes alone meets its targets; it is known to fail for none.
    """
    most = len(ranked) - 1
    if most < 1 or not passes(ranked[:most]):
        return None
    failing, passing = 0, most
    while passing - failing > 1:
        middle = (failing + passing) // 2
        if passes(ranked[:middle]):
            passing = middle
        else:
            failing = middle
    return list(ranked[:passing])
