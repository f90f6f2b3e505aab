"""Another preprocessing than the bundle's, to try it without converting again.

`deploy.onnx` has its preprocessing in the graph. Here `model.onnx`, the net as Caffe computes it, runs on an image that
NumPy prepared with the same steps: (pixel - mean) * scale in the net's channel order, zeros below and to the right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...bundle.choices import COLOR_ORDERS, ColorOrder
from ...bundle.folder import Bundle
from ...bundle.manifest import Preprocessing
from ...errors import BackendError, InputError
from . import open_backend
from .protocol import Array, Backend, TensorSpec, check_feeds

MODEL_NAME = "model.onnx"
_CHANNELS = 3


@dataclass(frozen=True)
class PixelRule:
    """A preprocessing to try; None keeps the bundle's.

    Attributes:
        mean: subtracted first, in gray levels: one number, or one per channel in the net's channel order.
        scale: factor after the mean is subtracted.
        color_order: order of the net's channels, "BGR" or "RGB". The bundle's mean follows its colors.
    """

    mean: tuple[float, ...] | float | None = None
    scale: float | None = None
    color_order: ColorOrder | None = None

    def change(self, preprocessing: Preprocessing) -> Preprocessing:
        """The preprocessing with this rule in it; InputError if a value is invalid."""
        order = self.color_order or preprocessing.color_order
        if order not in COLOR_ORDERS:
            raise InputError(f"color_order must be one of {', '.join(COLOR_ORDERS)}, got {order!r}")
        first, second, third = preprocessing.mean
        mean = (first, second, third) if order == preprocessing.color_order else (third, second, first)
        if self.mean is not None:
            values = np.ravel(np.asarray(self.mean, np.float64))
            if len(values) not in (1, _CHANNELS) or not np.isfinite(values).all():
                raise InputError(f"mean must be 1 or {_CHANNELS} finite numbers, got {self.mean}")
            first, second, third = (float(value) for value in np.broadcast_to(values, _CHANNELS))
            mean = (first, second, third)
        scale = preprocessing.scale if self.scale is None else float(self.scale)
        if not np.isfinite(scale) or scale == 0:
            raise InputError(f"scale must be finite and not 0, got {scale}")
        return preprocessing.model_copy(update={"mean": mean, "scale": scale, "color_order": order})


def describe_pixels(preprocessing: Preprocessing) -> str:
    """A preprocessing as options of `convert` and `segment`."""
    mean = ",".join(f"{value:g}" for value in preprocessing.mean)
    return f"--mean {mean} --scale {preprocessing.scale:.6g} --color-order {preprocessing.color_order}"


def change_preprocessing(bundle: Bundle, rule: PixelRule) -> Bundle:
    """The opened bundle as if it had been converted with another preprocessing."""
    changed = rule.change(bundle.preprocessing)
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"preprocessing": changed}))


def open_preprocessed(name: str, bundle: Bundle, *, precision: str = "fp32", **options: Any) -> Backend:
    """Open a backend for a bundle of `change_preprocessing`; arguments and errors as of `open_backend`.

    Raises:
        InputError: if the backend or the precision has its preprocessing built in.
    """
    if name == "torch":  # it reads the manifest's
        return open_backend(name, bundle, precision=precision, **options)
    if name not in ("onnxruntime", "openvino"):
        raise InputError(f'the backend "{name}" has its preprocessing built in: try another one with onnxruntime')
    if precision != "fp32":
        raise InputError(f"the {precision} network has its preprocessing built in: try another one with fp32")
    model = bundle.deploy.model_copy(update={"file": MODEL_NAME})
    whole = replace(bundle, manifest=bundle.manifest.model_copy(update={"deploy": model}))
    network = open_backend(name, whole, **options)
    try:
        return PreprocessedBackend(network, bundle)
    except BaseException:
        network.close()
        raise


class PreprocessedBackend(Backend):
    """`model.onnx` behind the interface of `deploy.onnx`: image in, scores out."""

    def __init__(self, network: Backend, bundle: Bundle) -> None:
        """Join an open backend of `model.onnx` and the bundle whose preprocessing it gets."""
        self._network, self._preprocessing = network, bundle.preprocessing
        self.name, self.device = network.name, network.device
        names = [spec.name for spec in network.outputs]
        blob = bundle.deploy.blob or (names[0] if len(names) == 1 else None)
        if blob not in names or len(network.inputs) != 1:
            raise BackendError(
                f'{bundle.path / MODEL_NAME}: gives {", ".join(names)}, not the scores "{blob or "?"}" of an image: no '
                "other preprocessing can be tried; convert the net again"
            )
        self._blob, self._feed = blob, network.inputs[0]
        self.inputs = (TensorSpec(bundle.deploy.input, "uint8", ("batch", "height", "width", _CHANNELS)),)
        labels = len(bundle.manifest.classes)
        self.outputs = (TensorSpec("scores", "float32", ("batch", labels, "height", "width")),)

    def use(self, preprocessing: Preprocessing) -> None:
        """Replace the preprocessing of the next runs."""
        self._preprocessing = preprocessing

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the scores; see `Backend.run`."""
        check_feeds(self.inputs, feeds)
        pixels = feeds[self.inputs[0].name]
        _, height, width, _ = pixels.shape
        whole = self._network.run({self._feed.name: prepare_blob(pixels, self._preprocessing)})[self._blob]
        return {"scores": np.ascontiguousarray(whole[:, :, :height, :width])}

    def close(self) -> None:
        """Free the network."""
        self._network.close()


def prepare_blob(pixels: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """The net's input, N x 3 x H' x W' float32, for N x H x W x 3 uint8 RGB images."""
    batch, height, width, _ = pixels.shape
    sides = preprocessing.size_rule.padded_size(height, width)
    blob = np.zeros((batch, _CHANNELS, *sides), np.float32)
    for channel, mean in enumerate(preprocessing.mean):
        source = _CHANNELS - 1 - channel if preprocessing.color_order == "BGR" else channel
        plane = pixels[..., source].astype(np.float32)  # (N, H, W)
        plane -= np.float32(mean)
        plane *= np.float32(preprocessing.scale)
        blob[:, channel, :height, :width] = plane
    return blob
