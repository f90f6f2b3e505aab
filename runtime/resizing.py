"""The size the network runs at, and images resized to it.

Images are resized as Caffe's users did it, by OpenCV's bilinear interpolation: half-pixel centers, edges repeated,
no smoothing before shrinking. The arithmetic is OpenCV's fixed-point one for uint8; results differ from `cv2.resize` by
at most one gray level, in less than 1 % of the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..bundle.manifest import Preprocessing
from ..bundle.section import Sides
from ..errors import InputError
from .images import MAX_PIXELS

_BITS = 11  # of the interpolation weights, as in OpenCV
_FAR = 2.0  # times as large or small as the size the net was made for: worth a warning

SizeOption = Sides | Literal["native"] | None


@dataclass(frozen=True)
class Sizing:
    """The rule that gives the network's input size for an image.

    Attributes:
        target: (height, width) that every image is resized to; None for the image's own size or `max_side`.
        max_side: larger images are shrunk until their longer side has this many pixels; None for no limit.
        made_for: (height, width) that the net was made for, or None if unknown.
        is_default: whether the bundle's rule is used, and not an option.
        is_fixed: whether the network takes no other size than `target`.
    """

    target: Sides | None = None
    max_side: int | None = None
    made_for: Sides | None = None
    is_default: bool = True
    is_fixed: bool = False

    def find_size(self, height: int, width: int) -> Sides:
        """The (height, width) that an image of this size is resized to for the network."""
        if self.target is not None:
            return self.target
        longer = max(height, width)
        if self.max_side is None or longer <= self.max_side:
            return height, width
        scale = self.max_side / longer
        return max(1, round(height * scale)), max(1, round(width * scale))

    def describe(self) -> str:
        """The rule as a sentence for people."""
        if self.target is not None:
            size = f"{self.target[0]}x{self.target[1]} (height x width)"
            if self.is_fixed:
                return f"the network runs at {size}, the only size it takes"
            if self.is_default:
                return f"the network runs at {size}, the size it was made for; --native runs it at the images' own size"
            return f"the network runs at {size}"
        if self.max_side is not None:
            return f"the network runs at the images' own size, at most {self.max_side} pixels a side"
        return "the network runs at the images' own size"

    def to_json(self) -> dict[str, object]:
        """Plain data for results: the rule, and the size the net was made for."""
        mode = "size" if self.target is not None else "max_side" if self.max_side is not None else "native"
        return {
            "mode": mode,
            "size": list(self.target) if self.target is not None else None,
            "max_side": self.max_side,
            "made_for": list(self.made_for) if self.made_for is not None else None,
            "default": self.is_default,
        }

    def find_warning(self, height: int, width: int) -> str | None:
        """A warning if the network sees an image far larger or smaller than those it was made for, else None."""
        if self.made_for is None:
            return None
        size = self.find_size(height, width)
        ratio = (size[0] * size[1] / (self.made_for[0] * self.made_for[1])) ** 0.5
        if 1 / _FAR <= ratio <= _FAR:
            return None
        word, times = ("large", ratio) if ratio > 1 else ("small", 1 / ratio)
        wanted = f"{self.made_for[0]}x{self.made_for[1]}"
        return (
            f"the network runs at {size[0]}x{size[1]} (height x width), {times:.1f} times as {word} a side as the "
            f"{wanted} it was made for, and may label objects wrongly: try --size {wanted} or "
            f"--max-side {max(self.made_for)}"
        )

    def find_warnings(self, sizes: Sequence[Sides]) -> list[str]:
        """`find_warning` of the first (height, width) that has one, with the number of such images; else nothing."""
        far = [warning for warning in (self.find_warning(*size) for size in sizes) if warning is not None]
        return [f"{far[0]} ({len(far)} of {len(sizes)} images)"] if far else []


def choose_sizing(preprocessing: Preprocessing, size: SizeOption = None, max_side: int | None = None) -> Sizing:
    """The sizing of a bundle, or of the options in its place.

    Args:
        preprocessing: the bundle's.
        size: (height, width) in pixels to resize images to, "native" for the image's own size, None for the bundle's
            default.
        max_side: shrink images whose longer side has more pixels; excludes `size`.

    Raises:
        InputError: if the options exclude each other, or the network does not take the size.
    """
    rule, known = preprocessing.size_rule, preprocessing.made_for
    made_for = known.size if known is not None else rule.fixed
    if size is not None and max_side is not None:
        raise InputError("size and max_side exclude each other: give one")
    if max_side is not None:
        if not 1 <= max_side <= 1 << 15:
            raise InputError(f"max_side must be 1 to {1 << 15} pixels, got {max_side}")
        if rule.fixed is not None:
            raise InputError(
                f"the network takes only {_write(rule.fixed)} pixels (height x width): leave out --max-side"
            )
        return Sizing(max_side=max_side, made_for=made_for, is_default=False)
    if size == "native":
        return Sizing(made_for=made_for, is_default=False)
    if size is None and rule.fixed is not None:
        return Sizing(target=rule.fixed, made_for=made_for, is_fixed=True)
    if size is None:
        return Sizing(target=made_for if known is not None and known.resize else None, made_for=made_for)
    target = (int(size[0]), int(size[1]))
    if min(target) < 1 or target[0] * target[1] > MAX_PIXELS:
        raise InputError(f"size {_write(target)} must have 1 to {MAX_PIXELS} pixels")
    if rule.fixed is not None and rule.fixed != target:
        raise InputError(f"the network takes only {_write(rule.fixed)} pixels (height x width), not {_write(target)}")
    return Sizing(target=target, made_for=made_for, is_default=False)


def _write(size: Sides) -> str:
    return f"{size[0]}x{size[1]}"


def resize_image(image: npt.NDArray[np.uint8], size: Sides) -> npt.NDArray[np.uint8]:
    """Resize an image bilinearly, as `cv2.resize` does by default; see the module docstring.

    Args:
        image: H x W x C uint8.
        size: (height, width) of the result.
    """
    if image.shape[:2] == size:
        return image
    rows = _place(image.shape[0], size[0])
    columns = _place(image.shape[1], size[1])
    used, where = np.unique(np.concatenate(rows[:2]), return_inverse=True)
    source = image[used]
    wide = source[:, columns[0]].astype(np.int32) * columns[2][:, None]
    wide += source[:, columns[1]].astype(np.int32) * columns[3][:, None]  # (rows used, width, C)
    wide >>= 4  # OpenCV's vertical pass works on 16 bits
    upper = (wide[where[: size[0]]] * rows[2][:, None, None]) >> 16
    upper += (wide[where[size[0] :]] * rows[3][:, None, None]) >> 16
    upper += 2
    upper >>= 2
    return upper.astype(np.uint8)  # (height, width, C)


def _place(length: int, wanted: int) -> tuple[npt.NDArray[np.intp], ...]:
    """For each output pixel along an axis: its two neighbors in the input, and their weights in 1/2048."""
    position = ((np.arange(wanted) + 0.5) * (length / wanted) - 0.5).astype(np.float32)
    position = np.clip(position, 0, length - 1)
    first = np.minimum(position.astype(np.intp), max(length - 2, 0))
    share = position - first.astype(np.float32)
    weights = (np.rint(part * (1 << _BITS)).astype(np.int32) for part in (np.float32(1) - share, share))
    return first, np.minimum(first + 1, length - 1), *weights


def resize_labels(labels: npt.NDArray[np.uint8], size: Sides) -> npt.NDArray[np.uint8]:
    """Resize an H x W label image to (height, width) by the nearest pixel, with half-pixel centers."""
    if labels.shape == size:
        return labels
    rows, columns = (
        (np.arange(wanted) * 2 + 1) * length // (2 * wanted) for length, wanted in zip(labels.shape, size, strict=True)
    )
    return np.ascontiguousarray(labels[rows[:, None], columns])
