"""The pipeline of deploy.onnx written again by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]
MEAN = (104.008, 116.669, 122.675)


def make_images(batch: int, height: int, width: int) -> Array:
    return np.random.default_rng(height * width).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


def expected_scores(
    module: Any, images: Array, padded: tuple[int, int], mean: Any = MEAN, scale: float = 1, bgr: bool = True
) -> Array:
    """The head `scores`, in NumPy and torch: N x L x H x W."""
    _, height, width, _ = images.shape
    pixels = images.astype(np.float32)
    if bgr:
        pixels = pixels[..., ::-1]
    pixels = (pixels - np.asarray(mean, np.float32)) * np.float32(scale)
    planes = np.zeros((len(images), 3, *padded), np.float32)
    planes[:, :, :height, :width] = pixels.transpose(0, 3, 1, 2)
    with torch.no_grad():
        output = module(torch.from_numpy(planes))
    return output[:, :, :height, :width].numpy()


def close(found: Array, wanted: Array) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
