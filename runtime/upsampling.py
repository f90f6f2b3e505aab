"""The last, linear upsampling of a `lowres` head, of the image's own pixels only.

Caffe's Interp maps output y to input y * (h - 1) / (H - 1) (corners aligned); ONNX's `half_pixel` maps it to
(y + 0.5) * h / H - 0.5, clamped to the grid. H is the padded height; the image is its upper part.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def upsample_scores(
    scores: npt.NDArray[np.float32],
    padded_size: tuple[int, int],
    image_size: tuple[int, int],
    *,
    align_corners: bool = True,
    origin: tuple[int, int] = (0, 0),
) -> npt.NDArray[np.float32]:
    """Upsample scores linearly and crop them to the image.

    Args:
        scores: L x h x w float32.
        padded_size: (height, width) of the padded image.
        image_size: (height, width) of the part of the padded image that is returned, such as the image.
        align_corners: whether the centers of the corner pixels coincide (Caffe), or their outer corners.
        origin: (row, column) of the first pixel of that part.

    Returns:
        L x height x width float32, C-contiguous.
    """
    rows, columns = (
        _place(scores.shape[axis + 1], padded_size[axis], origin[axis], image_size[axis], align_corners)
        for axis in range(2)
    )
    tall = _mix(scores, rows, axis=1)  # (L, height, w)
    return _mix(tall, columns, axis=2)  # (L, height, width)


_Place = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]


def _place(low: int, padded: int, start: int, length: int, align_corners: bool) -> _Place:
    """For each output pixel along an axis: its two neighbors in the input and the weight of the second."""
    index = np.arange(start, start + length, dtype=np.float64)
    if align_corners:
        position = index * ((low - 1) / (padded - 1) if padded > 1 else 0.0)
    else:
        position = (index + 0.5) * (low / padded) - 0.5
    position = np.clip(position, 0.0, low - 1)
    first = position.astype(np.intp)
    return first, np.minimum(first + 1, low - 1), (position - first).astype(np.float32)


def _mix(scores: npt.NDArray[np.float32], place: _Place, axis: int) -> npt.NDArray[np.float32]:
    first, second, share = place
    shape = [1] * scores.ndim
    shape[axis] = -1
    share = share.reshape(shape)
    return np.ascontiguousarray(
        np.take(scores, first, axis) * (np.float32(1) - share) + np.take(scores, second, axis) * share
    )


def softmax(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The softmax over the labels of L x H x W float32 scores."""
    shifted: npt.NDArray[np.float32] = np.exp(scores - scores.max(axis=0, keepdims=True))
    shifted /= shifted.sum(axis=0, keepdims=True)
    return shifted
