"""The meaning of a net's outputs: classes, labels, points, pictures; see `atrous.bundle.run_plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bundle.run_plan import RunOutput
from .color import from_lab, replace_luma, to_lightness
from .upsampling import softmax, upsample_scores

Array = npt.NDArray[Any]
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ClassScore:
    """A class and its probability."""

    name: str
    label: int
    probability: float


@dataclass(frozen=True)
class RunResult:
    """The result of a net for one image; fields that its task does not have are None or empty.

    Attributes:
        task: what the net is for.
        outputs: all outputs of the graph by Caffe's blob name, float32, without the batch axis.
        classes: the most probable classes, the first is the best.
        labels: H x W uint8.
        values: numbers of a regression, (K,) float32.
        points: key points in pixels of the image, (K, 2) float32, x and y.
        picture: H x W x 3 uint8 RGB: the image out, the colored image, or a plane of values as gray levels.
        timings_ms: milliseconds of each stage.
    """

    task: str
    outputs: Mapping[str, Array]
    classes: tuple[ClassScore, ...] = ()
    labels: npt.NDArray[np.uint8] | None = None
    values: npt.NDArray[np.float32] | None = None
    points: npt.NDArray[np.float32] | None = None
    picture: Picture | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        """The task, and the results without their arrays."""
        parts = [f"{entry.name} {entry.probability:.1%}" for entry in self.classes]
        for name in ("labels", "values", "points", "picture"):
            array = getattr(self, name)
            parts += [f"{name} {'x'.join(map(str, array.shape))}"] if array is not None else []
        return f"<RunResult {self.task}: {', '.join(parts) or ', '.join(self.outputs)}>"

    def _repr_png_(self) -> bytes | None:
        """The picture, or the colored labels, for notebooks; None for tasks without one."""
        from .pictures import color_labels, encode_png

        if self.picture is not None:
            return encode_png(self.picture)
        return encode_png(color_labels(self.labels, ())) if self.labels is not None else None


def rank_classes(scores: Array, names: Sequence[str], top: int, *, is_softmax: bool) -> tuple[ClassScore, ...]:
    """The `top` most probable classes of L scores, ties by label; logits become probabilities."""
    vector = np.asarray(scores, np.float32).reshape(len(names))
    chances = vector if is_softmax else softmax(vector[:, None])[:, 0]
    order = np.argsort(-chances, kind="stable")[:top]
    return tuple(ClassScore(names[label], int(label), float(chances[label])) for label in order)


def place_points(values: Array, output: RunOutput, size: tuple[int, int], net: tuple[int, int]) -> Array:
    """Coordinates of a vector in pixels of an image of `size` (height, width), (K, 2) float32.

    Args:
        values: 2K numbers, in the order of `output.points`.
        output: has the order of the numbers, and their unit: fractions, or pixels of the net's input.
        size: (height, width) of the image.
        net: (height, width) of the net's input.
    """
    order = output.points or "xy"
    flat = np.asarray(values, np.float32).ravel()
    pairs = flat.reshape(2, -1).T if order.startswith("xxyy") else flat.reshape(-1, 2)  # (K, 2)
    whole = net if order.endswith("pixels") else (1, 1)
    return pairs * np.array([size[1] / whole[1], size[0] / whole[0]], np.float32)


def label_pixels(scores: Array, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Labels at the image's (height, width) of L x h x w scores, which are upsampled linearly."""
    labels: npt.NDArray[np.uint8] = resize_planes(scores, size).argmax(axis=0).astype(np.uint8)
    return labels


def resize_planes(planes: Array, size: tuple[int, int]) -> Array:
    """C x h x w planes resized linearly to (height, width)."""
    if planes.shape[1:] == size:
        return planes
    return upsample_scores(np.asarray(planes, np.float32), size, size, align_corners=False)


def paint_image(planes: Array, output: RunOutput, image: Picture | None) -> Picture:
    """The picture of an output of kind `image`, 1 or 3 x h x w, as h x w x 3 uint8 RGB.

    One plane becomes the luma of `image`, if that has colors, else a gray picture.
    """
    mean = np.array(output.mean, np.float32)[:, None, None]
    levels = planes / np.float32(output.scale) + mean  # (C, h, w)
    if len(levels) == 3:
        ordered = levels[::-1] if output.color_order == "BGR" else levels
        color: Picture = np.clip(np.rint(ordered), 0, 255).astype(np.uint8).transpose(1, 2, 0).copy()
        return color
    if image is not None and (image[..., :1] != image).any():
        chroma = resize_planes(image.astype(np.float32).transpose(2, 0, 1), levels.shape[1:])
        return replace_luma(np.rint(chroma).astype(np.uint8).transpose(1, 2, 0), levels[0])
    return np.repeat(np.clip(np.rint(levels[0]), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def paint_chroma(planes: Array, image: Picture) -> Picture:
    """The image in the colors of 2 x h x w planes of CIE a* and b*."""
    return from_lab(to_lightness(image), resize_planes(planes, image.shape[:2]))


def paint_map(planes: Array, size: tuple[int, int], *, is_unit: bool) -> Picture:
    """The first of C x h x w planes as gray levels at the image's size; other values than 0 to 1 are stretched."""
    plane = resize_planes(planes[:1], size)[0]
    if not is_unit:
        low, high = float(plane.min()), float(plane.max())
        plane = (plane - low) / (high - low) if high > low else np.zeros_like(plane)
    return np.repeat(np.clip(np.rint(plane * 255), 0, 255).astype(np.uint8)[..., None], 3, axis=2)
