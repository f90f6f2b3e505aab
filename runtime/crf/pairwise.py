"""The frame of a dense CRF: its grid, its pairwise terms with their lattices, and what it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import CrfInputError
from . import _lattice
from .checks import FloatArray, check_compatibility, check_grid, check_image, check_mask, check_threads
from .parameters import Normalization
from .terms import build_feature_lattice, build_grid_lattice

Storage = Literal["float32", "float16"]
P = ParamSpec("P")
R = TypeVar("R")

_SMALLEST_SHARE = 4096  # points a thread


def exclusive(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Refuse calls of `method` while another call on the same model runs: the core works without the GIL."""

    @wraps(method)
    def call(self: Any, /, *args: P.args, **options: P.kwargs) -> R:
        try:
            with self._field:
                return method(self, *args, **options)
        except _lattice.InUseError:
            raise CrfInputError(
                "this DenseCRF is in use by another thread: make one for each thread, or take turns with a lock"
            ) from None

    return call


class PairwiseModel:
    """Points, labels and pairwise terms; `DenseCRF` adds the unary and the inference."""

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
            threads: how many threads; None is all, fewer for few points, one in a worker process of multiprocessing.
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
        if threads is None:  # meeting at barriers would take longer than the work of a small share
            self.threads = min(self.threads, max(1, self.points // _SMALLEST_SHARE))
        if storage not in ("float32", "float16"):
            raise CrfInputError(f'storage must be "float32" or "float16", got {storage!r}')
        if kernels and kernels not in _lattice.kernel_names():
            raise CrfInputError(f"this processor runs the kernels {_lattice.kernel_names()}, not {kernels!r}")
        self._mask = None if mask is None else check_mask(mask, self.shape)
        if len(self.shape) == 2:
            self._order = _lattice.PixelOrder.tiled(*self.shape)
        else:
            self._order = _lattice.PixelOrder.linear(self.points)
        self._half, self._kernels = storage == "float16", kernels
        self._field = _lattice.MeanField(self._order, self.labels, self._half, kernels, self.threads)
        self._kept: list[int] | None = None
        self._terms: list[tuple[_lattice.Lattice, int, FloatArray]] = []

    # ---- pairwise terms ----------------------------------------------------------------------------------------------

    @exclusive
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

    @exclusive
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

    @exclusive
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
        lattice = build_feature_lattice(self._order, features, normalization, self._mask, self._kernels, self.threads)
        self._append(lattice, kind, values)

    @exclusive
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
        self._terms = [(lattice, *values) for lattice, values in zip(lattices, checked, strict=True)]
        self._hand_over_terms()

    @exclusive
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
        lattice = build_grid_lattice(
            self._order, self.shape, sxy, image, srgb, normalization, self._mask, self._kernels, self.threads
        )
        self._append(lattice, kind, values)

    def _append(self, lattice: _lattice.Lattice, kind: int, values: FloatArray) -> None:
        self._terms.append((lattice, kind, values))
        self._hand_over(lattice, kind, values)

    def _hand_over_terms(self) -> None:
        self._field.clear_terms()
        for term in self._terms:
            self._hand_over(*term)

    def _hand_over(self, lattice: _lattice.Lattice, kind: int, values: FloatArray) -> None:
        if self._kept is not None and kind:
            values = values[np.ix_(self._kept, self._kept)] if kind == 2 else values[self._kept]
        self._field.add_term(lattice, kind, np.ascontiguousarray(values).reshape(-1))

    # ---- what it is --------------------------------------------------------------------------------------------------

    @property
    def kernels(self) -> str:
        """The instruction set in use."""
        return str(self._field.kernels)

    @property
    @exclusive
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
