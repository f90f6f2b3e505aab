"""The CRF for the frames of a video: lattices are reused, and a frame may start from the one before."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...bundle.crf_parameters import CrfParameters
from .checks import FloatArray, check_integer, check_unary_arguments
from .kept import KeptCrf
from .model import DenseCRF, Device

_SCENE_CUT = 0.3  # share of the unary's labels that differ between two frames, above which the scene is another one


class FrameCrf:
    """Refines frames one after the other. Position lattices are kept, color lattices are built for each frame.

    With `updates`, a frame starts from the marginals of the frame before, which saves updates but changes the result:
    regions that the terms hold together keep their label longer (6 to 10 % of the labels of a moving scene, with the
    miniature's strong terms). A frame of another size, or one whose unary gives other labels in more than 30 % of its
    pixels (a cut), starts afresh with all updates. One thread at a time.

    Attributes:
        warm_starts: number of frames that started from the frame before.
    """

    def __init__(
        self,
        parameters: CrfParameters,
        *,
        updates: int | None = None,
        threads: int | None = None,
        device: Device = "cpu",
    ) -> None:
        """Set up without a frame.

        Args:
            parameters: terms, mode and the number of updates of a frame that starts afresh.
            updates: updates of a frame that starts from the one before; None starts every frame afresh, with the
                result of `dense_crf`.
            threads: as for `DenseCRF`.
            device: as for `DenseCRF`.

        Raises:
            CrfInputError: if a number is out of range.
        """
        self.warm_starts = 0
        self._parameters, self._kept = parameters, KeptCrf(threads, device)
        self._updates = None if updates is None else check_integer(updates, "updates", 1, parameters.iterations)
        self._crf: DenseCRF | None = None
        self._labels: npt.NDArray[np.intp] | None = None

    def __call__(
        self,
        image: Any,
        probabilities: Any = None,
        *,
        scores: Any = None,
        clip: float = 1e-5,
        padded: tuple[int, int] | None = None,
    ) -> FloatArray:
        """Refine the next frame; arguments, result and errors as of `dense_crf`."""
        check_unary_arguments(probabilities, scores, padded)
        unary = np.asarray(probabilities if scores is None else scores)
        crf = self._kept.prepare(image, len(unary), self._parameters)
        before = self._labels if crf is self._crf else None
        self._crf = self._labels = None  # an error below starts the next frame afresh
        if scores is None:
            crf.set_probabilities(unary, clip=clip)
        else:
            crf.set_scores(unary, clip=clip, padded=padded)
        labels = None if self._updates is None else unary.argmax(axis=0)
        is_warm = labels is not None and before is not None and before.shape == labels.shape
        is_warm = is_warm and float(np.mean(labels != before)) <= _SCENE_CUT
        updates = self._updates if is_warm and self._updates else self._parameters.iterations
        result = crf.inference(updates, warm=is_warm, keep=labels is not None)
        self._crf, self._labels = crf, labels
        self.warm_starts += is_warm
        return result
