"""Colors as nets for one plane need them: luma and chroma (ITU-R 601, full range, as JPEG), and CIE Lab (D65, sRGB)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]  # H x W x 3 RGB
Plane = npt.NDArray[np.float32]

_RGB_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_WHITE = np.array([0.950456, 1.0, 1.088754])  # D65
_XYZ_TO_RGB = np.linalg.inv(_RGB_TO_XYZ)
_CUT = (6 / 29) ** 3


def to_luma(image: Picture) -> Picture:
    """The luma of an image, H x W uint8, as OpenCV and Pillow compute it; gray pixels keep their value."""
    red, green, blue = (image[..., channel].astype(np.int32) for channel in range(3))
    luma: Picture = ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)
    return luma


def replace_luma(image: Picture, luma: npt.NDArray[Any]) -> Picture:
    """The image with another luma (H x W, 0 to 255) and its own chroma."""
    pixels = image.astype(np.float32)
    own = pixels @ np.array([0.299, 0.587, 0.114], np.float32)  # (H, W)
    shifted = pixels + (luma.astype(np.float32) - own)[..., None]  # equal steps of R, G and B leave Cb and Cr
    replaced: Picture = np.clip(np.rint(shifted), 0, 255).astype(np.uint8)
    return replaced


def to_lightness(image: Picture) -> Plane:
    """CIE L* of an image, H x W float32, 0 to 100."""
    value = image.astype(np.float64) / 255
    linear = np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92)
    y = linear @ _RGB_TO_XYZ[1]
    lightness = np.where(y > _CUT, 116 * np.cbrt(y) - 16, y * (29 / 3) ** 3)
    plane: Plane = lightness.astype(np.float32)
    return plane


def from_lab(lightness: Plane, chroma: Plane) -> Picture:
    """The sRGB image of CIE L* (H x W) and a*, b* (2 x H x W), H x W x 3 uint8; colors outside are clipped."""
    y = (lightness.astype(np.float64) + 16) / 116
    axes = np.stack([y + chroma[0] / 500, y, y - chroma[1] / 200], axis=-1)  # (H, W, 3)
    xyz = np.where(axes > 6 / 29, axes**3, 3 * (6 / 29) ** 2 * (axes - 4 / 29)) * _WHITE
    linear = np.clip(xyz @ _XYZ_TO_RGB.T, 0, 1)
    value = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    picture: Picture = np.rint(value * 255).astype(np.uint8)
    return picture
