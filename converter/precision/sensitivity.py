"""Which layers a narrow precision hurts most, and how few of them must be left alone.

The sweep makes one layer narrow at a time, all others float32, and measures what that does to the scores. The search
then leaves the most sensitive layers alone, first none, then as many as needed: the number is found by bisection, each
candidate checked in full against the targets. Interactions between layers are thereby checked, not assumed away; what
is assumed is that leaving more layers alone does not make it worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from .assessment import Picture, Reader
from .emulation import emulate
from .graph_values import open_session
from .naming import layer_of
from .progress import SILENT, ShowProgress

Array = NDArray[Any]
#: names of the nodes that are left alone -> the variant
Build = Callable[[Collection[str]], onnx.ModelProto]
#: side of the crop that a sweep looks at, in pixels
SWEEP_SIDE = 257
SWEEP_IMAGES = 4


@dataclass(frozen=True)
class Sensitivity:
    """What one layer alone does in the narrow precision.

    Attributes:
        node: its name.
        layer: the layer it belongs to.
        noise: root of the energy of the scores' difference over that of the scores; None for a head of labels.
        disagreement: share of labels that change.
    """

    node: str
    layer: str
    noise: float | None
    disagreement: float

    @property
    def damage(self) -> tuple[float, float]:
        """For sorting: the noise where it is known, then the disagreement."""
        return (self.noise if self.noise is not None else 0.0, self.disagreement)

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        noise = self.noise if self.noise is None or math.isfinite(self.noise) else str(self.noise)
        return {"layer": self.layer, "node": self.node, "noise": noise, "disagreement": self.disagreement}


def sweep_layers(
    reference: onnx.ModelProto,
    build: Build,
    nodes: Sequence[str],
    pictures: Sequence[Picture],
    reader: Reader,
    *,
    threads: int | None = None,
    show: ShowProgress = SILENT,
) -> list[Sensitivity]:
    """Measure each layer alone, on the centres of a few images; the most sensitive first.

    Args:
        reference: the float32 graph.
        build: makes a variant in which some nodes are left alone.
        nodes: the nodes to measure.
        pictures: at most `SWEEP_IMAGES` of them are used, cropped to `SWEEP_SIDE`.
        reader: of the head.
        threads: of one run.
        show: draws the progress.
    """
    images = [crop_center(picture.image, SWEEP_SIDE) for picture in pictures[:SWEEP_IMAGES]]
    expected = _run(reference, images, threads)
    found = []
    with show("measuring layers one by one", len(nodes)) as advance:
        for node in nodes:
            outputs = _run(emulate(build([other for other in nodes if other != node])), images, threads)
            found.append(_measure(node, images, expected, outputs, reader))
            advance(1)
    return sorted(found, key=lambda row: row.damage, reverse=True)


def _run(model: onnx.ModelProto, images: Sequence[Array], threads: int | None) -> list[Array]:
    session = open_session(model, threads=threads)
    return [session.run(None, {model.graph.input[0].name: image[None]})[0] for image in images]


def _measure(
    node: str, images: Sequence[Array], expected: Sequence[Array], outputs: Sequence[Array], reader: Reader
) -> Sensitivity:
    difference = energy = 0.0
    changed = pixels = 0
    for image, ours, theirs in zip(images, expected, outputs, strict=True):
        labels, other = reader.read(ours, image)[0], reader.read(theirs, image)[0]
        changed += int(np.count_nonzero(labels != other))
        pixels += labels.size
        if reader.head != "labels":
            difference += float(np.square(theirs - ours, dtype=np.float64).sum())
            energy += float(np.square(ours, dtype=np.float64).sum())
    noise = None if reader.head == "labels" else math.sqrt(difference / energy) if energy else 0.0
    if noise is not None and not math.isfinite(noise):
        noise = math.inf
    return Sensitivity(node, layer_of(node), noise, changed / max(pixels, 1))


def crop_center(image: Array, side: int) -> Array:
    """The middle of an H x W x 3 image, at most `side` high and wide."""
    top, left = (max(0, (size - side) // 2) for size in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def find_fewest(ranked: Sequence[str], passes: Callable[[Sequence[str]], bool]) -> list[str] | None:
    """The shortest beginning of a ranking that passes, by bisection; None where leaving all but one alone does not.

    Args:
        ranked: nodes, the most sensitive first.
        passes: whether a variant with these left alone reaches its targets; known to fail for none.
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
