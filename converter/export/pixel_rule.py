"""The mean and scale of a net's image: as given, else the file's data layer's, else those that the net's form suggests.

A net may subtract a mean itself, by Power, Bias, Scale or BatchNorm before its first other layer; nothing is then
subtracted before it, nor for SegNet's and ENet's Caffe, whose data layer for dense labels has no mean. A net of which
nothing is known gets DeepLab's mean. Both come with a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...bundle.choices import ColorOrder
from ..dialects.known import find_dialect
from ..files.mean_image import read_mean_pixel
from ..graph.net import Blob, Layer, Net
from ..layers.base import shorten_floats

DEEPLAB_MEAN = (104.008, 116.669, 122.675)
"""Mean pixel of DeepLab and most VGG-16 descendants in gray levels: blue, green, red."""
LEAST_MEAN = 10.0
"""Gray levels; a BatchNorm on the image with a larger mean was trained on images without a mean subtracted."""

Pixel = tuple[float, float, float]


def choose_pixel_rule(
    net: Net, mean: Pixel | Path | None, scale: float | None, color_order: ColorOrder
) -> tuple[Pixel, float, list[str]]:
    """Mean in the net's channel order, scale, and warnings.

    Args:
        net: the net.
        mean: the caller's mean pixel or the file of a mean image, or None.
        scale: the caller's scale, or None.
        color_order: of the net's input channels.
    """
    transform = net.definition.transform
    if scale is None:
        scale = shorten_floats(transform.scale) if transform is not None else 1.0
    if isinstance(mean, Path):
        pixel, warning = read_mean_pixel(mean)
        return pixel, scale, [warning] if warning else []
    if mean is not None:
        return mean, scale, []
    if transform is not None and not transform.mean_file and len(transform.mean_value) in (0, 1, 3):
        values = [shorten_floats(value) for value in transform.mean_value] or [0.0]
        return _as_pixel(values), scale, []
    zero = explain_zero_mean(net)
    if zero is not None:
        return (0.0, 0.0, 0.0), scale, [zero]
    reason = "does not say the mean of its training images"
    if transform is not None and transform.mean_file:
        reason = f'has the mean of its training images in another file, "{transform.mean_file}"'
    first, second, third = DEEPLAB_MEAN
    return (
        (DEEPLAB_MEAN if color_order == "BGR" else (third, second, first)),
        scale,
        [
            f"the file {reason}; using DeepLab's {DEEPLAB_MEAN} (blue, green, red): "
            "give --mean, a pixel or the mean image, if the net was trained with another"
        ],
    )


def explain_zero_mean(net: Net) -> str | None:
    """The warning that says why no mean is subtracted from a net's image where none is given; None for other nets."""
    own = find_own_mean(net)
    if own is not None:
        return (
            f'layer "{own.name}" ({own.type}) subtracts a mean from the image, so none is subtracted before it; '
            "give --mean if the net was trained with another one in addition"
        )
    if not find_dialect(net.dialect).has_mean and net.definition.transform is None:
        return (
            "the file does not say the mean of its training images; using 0, as SegNet and ENet do: "
            "give --mean if the net was trained with another"
        )
    return None


def find_own_mean(net: Net) -> Layer | None:
    """The layer that subtracts a mean from the net's image before any other layer, or None."""
    readers: dict[Blob, list[Layer]] = {}
    for layer in net.layers:
        for bottom in layer.bottoms[:1]:  # Crop and PriorBox take the size of their second
            readers.setdefault(bottom, []).append(layer)
    blob = next((image for image in net.inputs if len(image.shape) == 4 and image.shape[1] in (1, 3)), None)
    while blob is not None and len(readers.get(blob, [])) == 1:
        layer = readers[blob][0]
        if layer.type not in ("Power", "Scale", "Bias", "BatchNorm") or len(layer.bottoms) != 1:
            break
        if _shifts(net, layer):
            return layer
        blob = layer.tops[0]
    return None


def _shifts(net: Net, layer: Layer) -> bool:
    """Whether a layer adds a constant; a BatchNorm: whether its mean is that of an image."""
    message = layer.message
    if layer.type == "Power":
        return bool(message.power_param.power == 1 and message.power_param.shift != 0)
    if layer.type == "Bias":
        return True
    if layer.type == "Scale":
        return bool(message.scale_param.bias_term)
    blobs = [net.parameters.get(key) for key in layer.parameters[:3]]
    if any(blob is None for blob in blobs) or not blobs:
        return False
    mean, _, factor = (np.asarray(blob, np.float64) for blob in blobs)
    return bool(factor.flat[0] and np.abs(mean / factor.flat[0]).max() >= LEAST_MEAN)


def _as_pixel(values: Sequence[float]) -> Pixel:
    first, second, third = values if len(values) == 3 else [*values] * 3
    return first, second, third
