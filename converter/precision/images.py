"""Images a variant is calibrated and checked on, and the labels they give.

`choose_evidence` separates the two sets:

| given | observed (calibration) | checked |
|---|---|---|
| images | those after the checked ones | the first, at most half |
| labeled images | those after the checked ones | the first |
| both | the images | the first labeled images |

If nothing is left to observe, the checked images are observed too, and the source says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...bundle.choices import Head

Array = NDArray[Any]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """An image to check on.

    Attributes:
        image: H x W x 3 uint8 RGB.
        truth: H x W uint8 labels, or None.
    """

    image: Array
    truth: Labels | None = None


@dataclass(frozen=True)
class Evidence:
    """Images a variant is calibrated and checked on.

    Attributes:
        calibration: H x W x 3 uint8 RGB images whose value ranges are observed.
        pictures: images to check on, with their labels if known.
        source: description of the images for the manifest.
    """

    calibration: Sequence[Array]
    pictures: Sequence[Picture]
    source: str


@dataclass(frozen=True)
class HeadReader:
    """Conversion of a head's output to labels, and of labels to mean IoU.

    Attributes:
        head: output of the graph.
        upsample: (L x h x w scores of a `lowres` head, (height, width)) -> L x H x W scores; None compares the labels
            of the low-resolution scores.
        score: (truth, labels) pairs, each H x W uint8 -> mean IoU, 0 to 1; None without labeled images.
    """

    head: Head
    upsample: Callable[[Array, tuple[int, int]], Array] | None = None
    score: Callable[[Sequence[tuple[Labels, Labels]]], float] | None = None

    def read(self, output: Array, image: Array) -> tuple[Labels, Array | None]:
        """Return the labels H x W uint8 and the scores L x H x W (None for a head of labels) of one image's output.

        Args:
            output: 1 x L x h x w scores, or 1 x H x W labels.
            image: H x W x 3.
        """
        if self.head == "labels":
            return np.asarray(output[0], np.uint8), None
        scores = output[0]
        if self.head == "lowres" and self.upsample is not None:
            height, width = image.shape[:2]
            scores = self.upsample(scores, (height, width))
        return scores.argmax(axis=0).astype(np.uint8), scores


def choose_evidence(
    images: Sequence[Callable[[], Picture]],
    labeled: Sequence[Callable[[], Picture]],
    source: str,
    *,
    calibrate_on: int = 32,
    check_on: int = 8,
    size: tuple[int, int] | None = None,
) -> Evidence:
    """Choose the images to observe and to check, see the module docstring, and load those.

    Args:
        images: functions that load images to observe, and to check on if none is labeled.
        labeled: functions that load images to check on.
        source: description of the images for the manifest.
        calibrate_on: number of images observed at most.
        check_on: number of images checked at most.
        size: (height, width) to resize all images to; None keeps their sizes.
    """
    if labeled:
        checked = labeled[:check_on]
        observed = images or labeled[check_on:]
    else:
        count = min(check_on, len(images) // 2) or len(images)
        checked, observed = images[:count], images[count : check_on + calibrate_on]
    pictures = [_resize(load(), size) for load in checked]
    if not observed:
        calibration = [picture.image for picture in pictures[:calibrate_on]]
        return Evidence(calibration, pictures, f"{source}, observed and checked on the same images")
    return Evidence([_resize(load(), size).image for load in observed[:calibrate_on]], pictures, source)


def _resize(picture: Picture, size: tuple[int, int] | None) -> Picture:
    """Resize an image bilinearly and its labels to the nearest pixel's."""
    if size is None or picture.image.shape[:2] == size:
        return picture
    sides = (size[1], size[0])
    image = np.array(Image.fromarray(picture.image).resize(sides, Image.Resampling.BILINEAR), np.uint8)
    if picture.truth is None:
        return Picture(image)
    return Picture(image, np.array(Image.fromarray(picture.truth).resize(sides, Image.Resampling.NEAREST), np.uint8))
