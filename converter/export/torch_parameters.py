"""Copying Caffe's blobs into torch tensors: one copy in all, and the file's pages given back as it goes."""

from __future__ import annotations

import numpy as np
import torch

from ..graph.net import FloatArray

#: Copy in pieces of this many elements, so that the pages of a mapped file never pile up beside the tensors.
CHUNK_ELEMENTS = 1 << 20


def copy_blob(tensor: torch.Tensor, blob: FloatArray) -> None:
    """Fill a tensor with a blob of the same count, row-major, whatever the two shapes.

    Args:
        tensor: the module's parameter or buffer, float32, contiguous.
        blob: the values in Caffe's order; any float dtype; may be a read-only view into a mapped file.

    Raises:
        ValueError: the counts differ (a layer stated a weight shape its module does not have).
    """
    if tensor.numel() != blob.size:
        raise ValueError(f"a blob of shape {blob.shape} does not fill a tensor of shape {tuple(tensor.shape)}")
    target = tensor.detach().view(-1).numpy()
    source = blob.reshape(-1)
    for start in range(0, source.size, CHUNK_ELEMENTS):
        target[start : start + CHUNK_ELEMENTS] = source[start : start + CHUNK_ELEMENTS]
        release_pages(source[start : start + CHUNK_ELEMENTS])


def release_pages(array: FloatArray) -> None:
    """Tell the system that the mapped pages under an array are not needed for now; a no-op for ordinary memory."""
    import mmap

    base: object = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if not isinstance(base, mmap.mmap) or not hasattr(base, "madvise"):
        return
    origin = np.frombuffer(base, np.uint8, count=1).__array_interface__["data"][0]
    start = array.__array_interface__["data"][0] - origin
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (start + array.nbytes - first) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:
        base.madvise(mmap.MADV_DONTNEED, first, length)
