"""The CRF of one image at changing parameters, for sliders: unary and lattices are kept."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from ...bundle.crf_parameters import BilateralTerm, CrfParameters, GaussianTerm, Normalization
from . import _lattice
from .checks import FloatArray, check_image, check_integer, check_unary_arguments
from .image import FAST
from .model import DenseCRF
from .reduced import average_blocks, average_pixels, shrink_parameters
from .terms import build_grid_lattice

_MOST_LATTICES = 4


class Refiner:
    """Refines one image again and again; each call has the result of `dense_crf` with the same arguments.

    A call whose sigmas and mode are those of an earlier one builds no lattice. One thread at a time.
    """

    def __init__(
        self,
        image: Any,
        probabilities: Any = None,
        *,
        scores: Any = None,
        threads: int | None = None,
        clip: float = 1e-5,
        padded: tuple[int, int] | None = None,
        reduce: int = 1,
    ) -> None:
        """Set the image and the unary.

        Args:
            image: H x W x 3 uint8 RGB, C-contiguous.
            probabilities: as for `dense_crf`.
            scores: instead of probabilities, as for `dense_crf`.
            threads: number of threads; None for all.
            clip: lowest probability.
            padded: as for `dense_crf`.
            reduce: side in pixels of the blocks to run on: 2 for previews of half the height and width.

        Raises:
            CrfInputError: as `dense_crf`.
        """
        check_unary_arguments(probabilities, scores, padded)
        self._image, self._reduce = check_image(image), check_integer(reduce, "reduce", 1, 16)
        self._scores, self._probabilities, self._clip, self._padded = scores, probabilities, clip, padded
        self._is_pruned = False
        labels = len(scores if probabilities is None else probabilities)
        self._crf = DenseCRF(self._image.shape[:2], labels, threads=threads)
        self._set_unary()
        if self._reduce > 1:
            # averaged at full size, because a coarser grid does not end where the last block does
            self._scores, self._probabilities = None, average_blocks(self._crf.inference(0, keep=False), self._reduce)
            self._image = average_pixels(self._image, self._reduce)
            self._crf = DenseCRF(self._image.shape[:2], labels, threads=threads)
            self._set_unary()
        self._lattices: OrderedDict[tuple[Any, ...], _lattice.Lattice] = OrderedDict()

    def __call__(
        self, parameters: CrfParameters, *, fast: bool = False, token: _lattice.CancelToken | None = None
    ) -> FloatArray:
        """The marginals, (L, H, W) float32; with `reduce`, (L, ceil(H / reduce), ceil(W / reduce)).

        Args:
            parameters: terms, mode and iterations.
            fast: drop labels that nowhere reach a hundredth of the best one's probability, and freeze pixels that are
                99.9 % sure after one update; `dense_crf(prune=0.01, settle=0.999)` has the same result.
            token: its `cancel()` stops the updates after the current one.

        Raises:
            CrfInputError: sigmas so small that lattice coordinates leave 16 bits.
        """
        parameters = shrink_parameters(parameters, self._reduce) if self._reduce > 1 else parameters
        crf = self._crf
        if self._is_pruned and not fast:
            self._set_unary()
        crf.clear_terms()
        terms: list[GaussianTerm | BilateralTerm] = [*parameters.gaussian, *parameters.bilateral]
        for term in terms:
            crf.add_lattice(self._find_lattice(term, parameters.normalization), term.weight)
        if fast and not self._is_pruned:
            crf.prune_labels(below=FAST["prune"])
            self._is_pruned = True
        return crf.inference(parameters.iterations, keep=False, settle=FAST["settle"] if fast else 0.0, token=token)

    @property
    def size_bytes(self) -> int:
        """Memory of marginals, unary and lattices, in bytes."""
        return self._crf.size_bytes + sum(lattice.size_bytes for lattice in self._lattices.values())

    def _set_unary(self) -> None:
        """Set the unary of all labels."""
        if self._probabilities is None:
            self._crf.set_scores(self._scores, clip=self._clip, padded=self._padded)
        else:
            self._crf.set_probabilities(self._probabilities, clip=self._clip)
        self._is_pruned = False

    def _find_lattice(self, term: GaussianTerm | BilateralTerm, normalization: Normalization) -> _lattice.Lattice:
        is_color = isinstance(term, BilateralTerm)
        srgb = term.srgb if isinstance(term, BilateralTerm) else ()
        key = (is_color, term.sxy, srgb, normalization)
        if key not in self._lattices:
            image = self._image if is_color else None
            self._lattices[key] = build_grid_lattice(self._crf.grid, term.sxy, image, srgb, normalization)
        self._lattices.move_to_end(key)
        while len(self._lattices) > _MOST_LATTICES:
            self._lattices.popitem(last=False)
        return self._lattices[key]
