"""Copies Caffe's blobs into torch tensors: once, and releasing the mapped file's pages on the way."""

from __future__ import annotations

import torch

from ..graph.net import FloatArray
from ..graph.weights import CHUNK_ELEMENTS, release_pages


def copy_blob(tensor: torch.Tensor, blob: FloatArray) -> None:
    """Fill a float32, contiguous tensor with a blob of the same element count, row-major; shapes may differ.

    The blob may have any float dtype, and be a read-only view into a mapped file. Raises ValueError if the counts
    differ: a layer declares a weight shape that its module does not have.
    """
    if tensor.numel() != blob.size:
        raise ValueError(f"a blob of shape {blob.shape} does not fill a tensor of shape {tuple(tensor.shape)}")
    target = tensor.detach().view(-1).numpy()
    source = blob.reshape(-1)
    for start in range(0, source.size, CHUNK_ELEMENTS):
        target[start : start + CHUNK_ELEMENTS] = source[start : start + CHUNK_ELEMENTS]
        release_pages(source[start : start + CHUNK_ELEMENTS])
