"""`DenseCRF`: a fully connected CRF over a grid or over free points, built once and run as often as wanted.

The core (C++, the `_lattice` extension) holds the marginals and the lattices; this module holds the interface: what
is accepted, in which layout, and the words of every refusal.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CrfInputError
from . import _lattice
from .checks import (
    FloatArray,
    as_array,
    check_coarse_scores,
    check_float32,
    check_fraction,
    check_iterations,
    check_layout,
    check_probability_sums,
)
from .pairwise import PairwiseModel, exclusive
from .pruning import labels_to_keep, lossless_margin
from .report import InferenceReport
from .unary import Gaps, feed_coarse_scores, feed_energies, feed_probabilities, feed_scores


class DenseCRF(PairwiseModel):
    """A dense CRF: unary energies, pairwise terms, marginals.

    Every array over pixels is labels first, then the grid: (L, H, W) for an image, (L, D, H, W) for a volume, (L, N)
    for free points. Results are bit-identical for any number of threads and any processor.

    One thread at a time: a call while another one runs raises `CrfInputError`. Separate objects run in parallel.

    Attributes:
        report: what the last inference did.
    """

    report: InferenceReport | None = None
    _gaps: Gaps | None = None
    _started = False

    # ---- unary -------------------------------------------------------------------------------------------------------

    @exclusive
    def set_unary(self, energies: Any) -> None:
        """Set the unary energies (smaller is likelier): (L, *shape) float32, any strides."""
        array = self._checked(energies, "energies")
        self._restore_labels()
        self._gaps = feed_energies(self._field, array.reshape(self.labels, -1))

    @exclusive
    def set_probabilities(self, probabilities: Any, *, clip: float = 1e-5) -> None:
        """Set the unary to -log(clip(p, clip, 1)): (L, *shape) float32, summing to 1 over the labels."""
        array = self._checked(probabilities, "probabilities")
        clip = check_fraction(clip, "clip")
        self._restore_labels()
        flat = array.reshape(self.labels, -1)
        gaps = feed_probabilities(self._field, flat, self._order.band, clip, self.threads)
        check_probability_sums(array)
        self._gaps = gaps

    @exclusive
    def set_scores(self, scores: Any, *, clip: float = 1e-5) -> None:
        """Set the unary to -log(clip(softmax(scores), clip, 1)).

        Args:
            scores: (L, *shape) float32 before a softmax; for an image also (L, h, w) float32 or float16 of a coarser
                grid, upsampled here with aligned corners (Caffe's Interp), which needs no full-size array of scores.
            clip: lowest probability.
        """
        array = as_array(scores, "scores")
        clip = check_fraction(clip, "clip")
        coarse = array.ndim == 3 and len(self.shape) == 2 and array.shape[1:] != self.shape
        if coarse:
            check_coarse_scores(array, self.labels, self.shape)
        else:
            check_layout(array, self.shape, "scores", self.labels)
            check_float32(array, "scores")
        self._restore_labels()
        if coarse:
            shape = (self.shape[0], self.shape[1])
            self._gaps = feed_coarse_scores(self._field, array, shape, clip)
        else:
            self._gaps = feed_scores(self._field, array.reshape(self.labels, -1), clip)

    @exclusive
    def unary_energies(self) -> FloatArray:
        """The unary as the core holds it: (L, *shape) float32 energies."""
        if self._gaps is None:
            raise CrfInputError("there is no unary yet: set it first")
        output = np.empty((self._field.labels, self.points), np.float32)
        self._field.read_unary(output)
        return output.reshape(-1, *self.shape)

    # ---- fewer labels ------------------------------------------------------------------------------------------------

    @exclusive
    def prune_labels(self, *, below: float | None = None) -> list[int]:
        """Drop labels that cannot win (or hardly can), until the next unary; returns those that stay.

        Args:
            below: None drops only labels proven unable to win at any pixel: their energy stays above the best label's
                by more than the terms can ever make up. The others' marginals change by no more than the dropped
                mass. A number drops the labels that nowhere reach this fraction of the best label's probability.

        Raises:
            CrfInputError: there is no unary, or `below` is not between 0 and 1.
        """
        if self._gaps is None:
            raise CrfInputError("prune_labels needs a unary: set it first")
        if below is not None:
            below = check_fraction(below, "below")
        if self._kept is not None:
            return list(self._kept)
        margin = -math.log(below) if below is not None else lossless_margin(self._terms, self.threads)
        kept = labels_to_keep(self._gaps, margin)
        if len(kept) < self.labels:
            self._field.keep_labels(kept)
            self._kept = kept
            self._started = False
            self._hand_over_terms()
        return kept

    def _restore_labels(self) -> None:
        """Before a new unary: none for now, all labels again, the lattices kept."""
        self._gaps = None
        if self._kept is None:
            return
        self._kept = None
        self._started = False
        self._field.restart(self.labels)
        self._hand_over_terms()

    # ---- inference ---------------------------------------------------------------------------------------------------

    @exclusive
    def inference(
        self,
        iterations: int,
        *,
        tolerance: float = 0.0,
        settle: float = 0.0,
        warm: bool = False,
        keep: bool = True,
        token: _lattice.CancelToken | None = None,
    ) -> FloatArray:
        """Run mean-field updates and return the marginals.

        Args:
            iterations: how many updates; 0 gives the softmax of the unary.
            tolerance: stop early once an update changed at most this fraction of the labels; 0 never stops early.
            settle: after one update, leave pixels with a marginal above this as they are, which spares their part of
                the work; 0 leaves none, 0.999 hardly changes a label (see docs/crf.md).
            warm: start from the marginals of the last call (video, a changed unary) instead of from the unary.
            keep: keep the marginals for `step`, `kl_divergence` and `warm`; False lowers the peak of memory.
            token: another thread may call its `cancel()`: the updates stop after the current one.

        Returns:
            (L, *shape) float32, summing to 1 over the labels. `report` tells what was done.
        """
        iterations = check_iterations(iterations)
        tolerance = check_fraction(tolerance, "tolerance", or_zero=True)
        settle = check_fraction(settle, "settle", or_zero=True)
        if warm and not self._started:
            raise CrfInputError("a warm start needs the marginals of an earlier inference(..., keep=True)")
        return self._run(iterations, tolerance=tolerance, settle=settle, warm=warm, keep=keep, token=token)

    @exclusive
    def start(self) -> FloatArray:
        """The softmax of the unary, from where `step` goes on."""
        return self._run(0)

    @exclusive
    def step(self) -> FloatArray:
        """One more update; `start` and n times `step` are `inference(n)`."""
        if not self._started:
            raise CrfInputError("step needs start() or inference() before it")
        return self._run(1, warm=True)

    @exclusive
    def set_marginals(self, marginals: Any) -> None:
        """Replace the marginals from which `step`, `kl_divergence` and a warm start go on."""
        array = self._checked(marginals, "marginals")
        if not np.isfinite(array).all():
            raise CrfInputError("marginals hold NaN or infinite values")
        if self._kept is not None:
            array = array[self._kept]
        self._field.load_marginals(array.reshape(len(array), -1))
        self._started = True

    @exclusive
    def kl_divergence(self) -> float:
        """The reference's relative monitor: sum of Q log Q + U Q + Q C(F(Q)); not the exact free energy."""
        if self._gaps is None:
            raise CrfInputError("kl_divergence needs a unary: set it first")
        if not self._started:
            raise CrfInputError("kl_divergence needs start() or inference() before it")
        return float(self._field.kl_divergence())

    def _run(
        self,
        iterations: int,
        *,
        tolerance: float = 0.0,
        settle: float = 0.0,
        warm: bool = False,
        keep: bool = True,
        token: _lattice.CancelToken | None = None,
    ) -> FloatArray:
        if self._gaps is None:
            raise CrfInputError("inference needs a unary: call set_probabilities, set_scores or set_unary first")
        kept = self._kept
        output: FloatArray
        if keep or tolerance > 0.0 or settle > 0.0 or token is not None or self._half:
            output = np.empty((self._field.labels, self.points), np.float32)
            done = self._field.run(iterations, output, keep, warm, tolerance, settle, token)
        else:
            output, done = self._field.run_in_place(iterations, warm)
        changed = done.pop("changed")
        self.report = InferenceReport(changed=None if changed < 0 else changed, **done)
        self._started = keep
        if kept is not None:
            pruned, output = output, np.zeros((self.labels, self.points), np.float32)
            for row, label in zip(pruned, kept, strict=True):
                output[label] = row
        return output.reshape(self.labels, *self.shape)

    def _checked(self, value: Any, what: str) -> npt.NDArray[Any]:
        array = as_array(value, what)
        check_layout(array, self.shape, what, self.labels)
        check_float32(array, what)
        return array


def kernel_names() -> list[str]:
    """The instruction sets whose kernels this processor runs, slowest first."""
    return list(_lattice.kernel_names())
