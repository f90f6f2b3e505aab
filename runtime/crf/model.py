"""`DenseCRF`: a fully connected CRF over a grid or over free points, built once and run as often as wanted.

The core (C++, the `_lattice` extension) holds the marginals and the lattices; this module holds the interface: what
is accepted, in which layout, and the words of every refusal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import CrfInputError
from . import _lattice
from .checks import (
    FloatArray,
    as_array,
    check_coarse_scores,
    check_compatibility,
    check_float32,
    check_grid,
    check_image,
    check_layout,
    check_probability_sums,
    check_threads,
)
from .parameters import Normalization
from .pruning import labels_to_keep, lossless_margin
from .terms import build_feature_lattice, build_grid_lattice
from .unary import Gaps, feed_coarse_scores, feed_energies, feed_probabilities, feed_scores

Storage = Literal["float32", "float16"]


@dataclass(frozen=True)
class InferenceReport:
    """What one inference did.

    Attributes:
        iterations: how many updates ran.
        cancelled: it was stopped by its token.
        changed: fraction of labels the last update changed; None where nothing counted them.
        start_s, splat_s, blur_s, slice_s: wall seconds by phase.
    """

    iterations: int
    cancelled: bool
    changed: float | None
    start_s: float
    splat_s: float
    blur_s: float
    slice_s: float


class DenseCRF:
    """A dense CRF: unary energies, pairwise terms, marginals.

    Every array over pixels is labels first, then the grid: (L, H, W) for an image, (L, D, H, W) for a volume, (L, N)
    for free points. Results are bit-identical for any number of threads and any processor.

    Not for use by several threads at once; make one for each.
    """

    def __init__(
        self,
        shape: Sequence[int] | int,
        labels: int,
        *,
        threads: int | None = None,
        storage: Storage = "float32",
        mask: npt.NDArray[Any] | None = None,
        kernels: str = "",
    ) -> None:
        """Make a CRF without unary and terms.

        Args:
            shape: the grid, (H, W) or any number of axes, slowest first; an int N for points without a grid.
            labels: how many labels.
            threads: how many threads; None is all.
            storage: "float32", or "float16" for marginals and lattice rows of half the size (arithmetic stays
                float32; see docs/crf.md for the effect).
            mask: bool over the grid; a pixel with False neither sends nor receives messages.
            kernels: forces one of `kernel_names()` instead of the best for this processor.

        Raises:
            CrfInputError: a size, label count or mask that cannot be.
        """
        self.has_grid = not isinstance(shape, (int, np.integer))
        self.shape = check_grid(tuple(shape) if self.has_grid else (shape,), labels)  # type: ignore[arg-type]
        self.labels = int(labels)
        self.points = int(np.prod(self.shape, dtype=np.int64))
        self.threads = check_threads(threads)
        if storage not in ("float32", "float16"):
            raise CrfInputError(f'storage must be "float32" or "float16", got {storage!r}')
        if kernels and kernels not in _lattice.kernel_names():
            raise CrfInputError(f"this processor runs the kernels {_lattice.kernel_names()}, not {kernels!r}")
        self._mask = None if mask is None else _check_mask(mask, self.shape)
        if len(self.shape) == 2:
            self._order = _lattice.PixelOrder.tiled(*self.shape)
        else:
            self._order = _lattice.PixelOrder.linear(self.points)
        self._half, self._kernels = storage == "float16", kernels
        self._field = _lattice.MeanField(self._order, self.labels, self._half, kernels)
        self._gaps: Gaps | None = None
        self._kept: list[int] | None = None
        self._terms: list[tuple[_lattice.Lattice, int, FloatArray]] = []
        self._started = False
        self.report: InferenceReport | None = None

    # ---- unary -------------------------------------------------------------------------------------------------------

    def set_unary(self, energies: Any) -> None:
        """Set the unary energies (smaller is likelier): (L, *shape) float32, any strides."""
        array = self._checked(energies, "energies")
        self._restore_labels()
        self._gaps = feed_energies(self._field, array.reshape(self.labels, -1), self.threads)

    def set_probabilities(self, probabilities: Any, *, clip: float = 1e-5) -> None:
        """Set the unary to -log(clip(p, clip, 1)): (L, *shape) float32, summing to 1 over the labels."""
        array = self._checked(probabilities, "probabilities")
        if not 0.0 < clip < 1.0:
            raise CrfInputError(f"clip must lie between 0 and 1, got {clip}")
        self._restore_labels()
        flat = array.reshape(self.labels, -1)
        self._gaps = None
        gaps = feed_probabilities(self._field, flat, self._order.band, clip, self.threads)
        check_probability_sums(array)
        self._gaps = gaps

    def set_scores(self, scores: Any, *, clip: float = 1e-5) -> None:
        """Set the unary to -log(clip(softmax(scores), clip, 1)).

        Args:
            scores: (L, *shape) float32 before a softmax; for an image also (L, h, w) float32 or float16 of a coarser
                grid, upsampled here with aligned corners (Caffe's Interp), which needs no full-size array of scores.
            clip: lowest probability.
        """
        array = as_array(scores, "scores")
        if not 0.0 < clip < 1.0:
            raise CrfInputError(f"clip must lie between 0 and 1, got {clip}")
        coarse = array.ndim == 3 and len(self.shape) == 2 and array.shape[1:] != self.shape
        if coarse:
            check_coarse_scores(array, self.labels, self.shape)
        else:
            check_layout(array, self.shape, "scores", self.labels)
            check_float32(array, "scores")
        self._restore_labels()
        if coarse:
            shape = (self.shape[0], self.shape[1])
            self._gaps = feed_coarse_scores(self._field, array, shape, clip, self.threads)
        else:
            self._gaps = feed_scores(self._field, array.reshape(self.labels, -1), clip, self.threads)

    def unary_energies(self) -> FloatArray:
        """The unary as the core holds it: (L, *shape) float32 energies."""
        if self._gaps is None:
            raise CrfInputError("there is no unary yet: set it first")
        output = np.empty((self._field.labels, self.points), np.float32)
        self._field.read_unary(output)
        return output.reshape(-1, *self.shape)

    # ---- fewer labels ------------------------------------------------------------------------------------------------

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
        if below is not None and not 0.0 < below < 1.0:
            raise CrfInputError(f"below must lie between 0 and 1, got {below}")
        if self._kept is not None:
            return list(self._kept)
        margin = -math.log(below) if below is not None else lossless_margin(self._terms, self.threads)
        kept = labels_to_keep(self._gaps, margin)
        if len(kept) < self.labels:
            self._field.keep_labels(kept, self.threads)
            self._kept = kept
            self._started = False
            self._field.clear_terms()
            for term in self._terms:
                self._hand_over(*term)
        return kept

    def _restore_labels(self) -> None:
        """Before a new unary: all labels again, the lattices kept."""
        if self._kept is None:
            return
        self._kept = None
        self._started = False
        self._field = _lattice.MeanField(self._order, self.labels, self._half, self._kernels)
        for term in self._terms:
            self._hand_over(*term)

    # ---- pairwise terms ----------------------------------------------------------------------------------------------

    def add_gaussian(self, sxy: Any, compatibility: Any, *, normalization: Normalization = "symmetric") -> None:
        """Add a term of position alone.

        Args:
            sxy: standard deviation in pixels; one number, or one per axis in the order x, y (, z).
            compatibility: a number (positive smooths), (L,) (negative smooths) or (L, L) (a penalty for unequal
                labels; used symmetrised).
            normalization: "symmetric", "after", "before" or "none".

        Raises:
            CrfInputError: see `checks`.
        """
        self._add_grid_term(sxy, None, (), compatibility, normalization)

    def add_bilateral(
        self, sxy: Any, srgb: Any, image: Any, compatibility: Any, *, normalization: Normalization = "symmetric"
    ) -> None:
        """Add a term of position and colour.

        Args:
            sxy: standard deviation in pixels; one number, or one per axis in the order x, y (, z).
            srgb: standard deviation in the image's units; one number or one per channel.
            image: (*shape, C) uint8 or float32, C-contiguous, any number of channels (RGB for a photo).
            compatibility: as for `add_gaussian`.
            normalization: as for `add_gaussian`.

        Raises:
            CrfInputError: see `checks`; also a sigma so small that lattice coordinates leave 16 bits.
        """
        if not self.has_grid:
            raise CrfInputError("points without a grid have no image: use add_features")
        self._add_grid_term(sxy, check_image(image, shape=self.shape), srgb, compatibility, normalization)

    def add_features(self, features: Any, compatibility: Any, *, normalization: Normalization = "symmetric") -> None:
        """Add a term with the kernel exp(-|f_i - f_j|^2 / 2) over free features.

        Args:
            features: (d, N) float32, C-contiguous, N the points in row-major order, already divided by their sigmas.
            compatibility: as for `add_gaussian`.
            normalization: as for `add_gaussian`.

        Raises:
            CrfInputError: see `checks`; also features so large that lattice coordinates leave 16 bits.
        """
        kind, values = check_compatibility(compatibility, self.labels)
        lattice = build_feature_lattice(self._order, features, normalization, self._mask, self.threads)
        self._append(lattice, kind, values)

    def set_compatibilities(self, compatibilities: Sequence[Any]) -> None:
        """Give the terms other compatibilities, in the order they were added, and keep their lattices.

        Labels that were pruned stay so, though the proof was for the old ones: set the unary again before pruning.

        Args:
            compatibilities: one for each term, as `add_gaussian` takes them.

        Raises:
            CrfInputError: another number of them than of terms, or see `checks`.
        """
        if len(compatibilities) != len(self._terms):
            raise CrfInputError(f"{len(compatibilities)} compatibilities do not fit {len(self._terms)} terms")
        lattices = [lattice for lattice, _, _ in self._terms]
        checked = [check_compatibility(compatibility, self.labels) for compatibility in compatibilities]
        self.clear_terms()
        for lattice, (kind, values) in zip(lattices, checked, strict=True):
            self._append(lattice, kind, values)

    def clear_terms(self) -> None:
        """Forget all pairwise terms and their lattices; the unary stays."""
        self._field.clear_terms()
        self._terms.clear()

    def _add_grid_term(
        self, sxy: Any, image: npt.NDArray[Any] | None, srgb: Any, compatibility: Any, normalization: Normalization
    ) -> None:
        if not self.has_grid:
            raise CrfInputError("points without a grid have no position: use add_features")
        kind, values = check_compatibility(compatibility, self.labels)
        lattice = build_grid_lattice(self._order, self.shape, sxy, image, srgb, normalization, self._mask, self.threads)
        self._append(lattice, kind, values)

    def _append(self, lattice: _lattice.Lattice, kind: int, values: FloatArray) -> None:
        self._terms.append((lattice, kind, values))
        self._hand_over(lattice, kind, values)

    def _hand_over(self, lattice: _lattice.Lattice, kind: int, values: FloatArray) -> None:
        if self._kept is not None and kind:
            values = values[np.ix_(self._kept, self._kept)] if kind == 2 else values[self._kept]
        self._field.add_term(lattice, kind, np.ascontiguousarray(values).reshape(-1))

    # ---- inference ---------------------------------------------------------------------------------------------------

    def inference(
        self,
        iterations: int,
        *,
        tolerance: float = 0.0,
        warm: bool = False,
        keep: bool = True,
        token: _lattice.CancelToken | None = None,
    ) -> FloatArray:
        """Run mean-field updates and return the marginals.

        Args:
            iterations: how many updates; 0 gives the softmax of the unary.
            tolerance: stop early once an update changed at most this fraction of the labels; 0 never stops early.
            warm: start from the marginals of the last call (video, a changed unary) instead of from the unary.
            keep: keep the marginals for `step`, `kl_divergence` and `warm`; False lowers the peak of memory.
            token: another thread may call its `cancel()`: the updates stop after the current one.

        Returns:
            (L, *shape) float32, summing to 1 over the labels. `report` tells what was done.
        """
        if isinstance(iterations, bool) or not isinstance(iterations, (int, np.integer)) or iterations < 0:
            raise CrfInputError(f"iterations must be an integer from 0 up, got {iterations!r}")
        if not 0.0 <= tolerance < 1.0:
            raise CrfInputError(f"tolerance is a fraction of the pixels from 0 to 1, got {tolerance}")
        if warm and not self._started:
            raise CrfInputError("a warm start needs the marginals of an earlier inference(..., keep=True)")
        return self._run(int(iterations), tolerance=tolerance, warm=warm, keep=keep, token=token)

    def start(self) -> FloatArray:
        """The softmax of the unary, from where `step` goes on."""
        return self._run(0)

    def step(self) -> FloatArray:
        """One more update; `start` and n times `step` are `inference(n)`."""
        if not self._started:
            raise CrfInputError("step needs start() or inference() before it")
        return self._run(1, warm=True)

    def set_marginals(self, marginals: Any) -> None:
        """Replace the marginals from which `step`, `kl_divergence` and a warm start go on."""
        array = self._checked(marginals, "marginals")
        if self._kept is not None:
            array = array[self._kept]
        self._field.load_marginals(array.reshape(len(array), -1), self.threads)
        self._started = True

    def kl_divergence(self) -> float:
        """The reference's relative monitor: sum of Q log Q + U Q + Q C(F(Q)); not the exact free energy."""
        if not self._started:
            raise CrfInputError("kl_divergence needs start() or inference() before it")
        return float(self._field.kl_divergence(self.threads))

    def _run(
        self,
        iterations: int,
        *,
        tolerance: float = 0.0,
        warm: bool = False,
        keep: bool = True,
        token: _lattice.CancelToken | None = None,
    ) -> FloatArray:
        if self._gaps is None:
            raise CrfInputError("inference needs a unary: call set_probabilities, set_scores or set_unary first")
        kept = self._kept
        output: FloatArray
        if keep or tolerance > 0.0 or token is not None or self._half:
            output = np.empty((self._field.labels, self.points), np.float32)
            done = self._field.run(iterations, self.threads, output, keep, warm, tolerance, token)
        else:
            output, done = self._field.run_in_place(iterations, self.threads, warm)
        changed = done.pop("changed")
        self.report = InferenceReport(changed=None if changed < 0 else changed, **done)
        self._started = keep
        if kept is not None:
            pruned, output = output, np.zeros((self.labels, self.points), np.float32)
            for row, label in zip(pruned, kept, strict=True):
                output[label] = row
        return output.reshape(self.labels, *self.shape)

    # ---- what it is --------------------------------------------------------------------------------------------------

    @property
    def kernels(self) -> str:
        """The instruction set in use."""
        return str(self._field.kernels)

    @property
    def size_bytes(self) -> int:
        """Memory held for marginals, unary, lattices and their rows."""
        return int(self._field.size_bytes) + sum(int(lattice.size_bytes) for lattice, _, _ in self._terms)

    @property
    def lattice_vertices(self) -> list[int]:
        """The number of lattice vertices of each term."""
        return [int(lattice.vertices) for lattice, _, _ in self._terms]

    @property
    def blurred_rows(self) -> list[int]:
        """For each term, how many rows its blur reads and writes in one update, over all axes."""
        return [int(lattice.chained) for lattice, _, _ in self._terms]

    @property
    def build_seconds(self) -> list[dict[str, float]]:
        """Wall seconds of each term's lattice, by phase."""
        return [dict(lattice.seconds) for lattice, _, _ in self._terms]

    def _checked(self, value: Any, what: str) -> npt.NDArray[Any]:
        array = as_array(value, what)
        check_layout(array, self.shape, what, self.labels)
        check_float32(array, what)
        return array


def kernel_names() -> list[str]:
    """The instruction sets whose kernels this processor runs, slowest first."""
    return list(_lattice.kernel_names())


def _check_mask(mask: Any, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    array = as_array(mask, "mask")
    if array.shape != shape or array.dtype not in (np.bool_, np.uint8):
        raise CrfInputError(f"mask must be bool of shape {shape}, got {array.dtype} of {array.shape}")
    return np.ascontiguousarray(array).view(np.uint8)
