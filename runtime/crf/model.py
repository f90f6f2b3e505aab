"""`DenseCRF`: a fully connected CRF over a grid or over free points, built once and run as often as wanted.

The core (C++, the `_lattice` extension) holds the marginals and the lattices; this module holds the interface: what
is accepted, in which layout, and the words of every refusal.
"""

from __future__ import annotations

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
    check_compatibility,
    check_entries,
    check_float32,
    check_grid,
    check_image,
    check_layout,
    check_probability_sums,
    check_sigmas,
    check_threads,
)
from .parameters import Normalization
from .unary import feed_energies, feed_probabilities, feed_scores

NORMALIZATIONS: dict[str, int] = {"none": 0, "before": 1, "after": 2, "symmetric": 3}

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
        self._field = _lattice.MeanField(self._order, self.labels, storage == "float16", kernels)
        self._lattices: list[_lattice.Lattice] = []
        self._has_unary = False
        self._started = False
        self.report: InferenceReport | None = None

    # ---- unary -------------------------------------------------------------------------------------------------------

    def set_unary(self, energies: Any) -> None:
        """Set the unary energies (smaller is likelier): (L, *shape) float32, any strides."""
        array = self._checked(energies, "energies")
        feed_energies(self._field, array.reshape(self.labels, -1), self.threads)
        self._has_unary = True

    def set_probabilities(self, probabilities: Any, *, clip: float = 1e-5) -> None:
        """Set the unary to -log(clip(p, clip, 1)): (L, *shape) float32, summing to 1 over the labels."""
        array = self._checked(probabilities, "probabilities")
        if not 0.0 < clip < 1.0:
            raise CrfInputError(f"clip must lie between 0 and 1, got {clip}")
        feed_probabilities(self._field, array.reshape(self.labels, -1), self._order.band, clip, self.threads)
        check_probability_sums(array)
        self._has_unary = True

    def set_scores(self, scores: Any, *, clip: float = 1e-5) -> None:
        """Set the unary to -log(clip(softmax(scores), clip, 1)): (L, *shape) float32 scores before a softmax."""
        array = self._checked(scores, "scores")
        if not 0.0 < clip < 1.0:
            raise CrfInputError(f"clip must lie between 0 and 1, got {clip}")
        feed_scores(self._field, array.reshape(self.labels, -1), clip, self.threads)
        self._has_unary = True

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
        array = as_array(features, "features")
        check_float32(array, "features")
        if array.ndim != 2 or array.shape[1] != self.points:
            hint = ": transpose it" if array.ndim == 2 and array.shape[0] == self.points else ""
            raise CrfInputError(f"features must be (dimensions, {self.points}), got {array.shape}{hint}")
        check_entries(self.points, array.shape[0])
        if not array.flags.c_contiguous:
            raise CrfInputError("features are not C-contiguous: pass numpy.ascontiguousarray(features)")
        if not np.isfinite(array).all():
            raise CrfInputError("features hold NaN or infinite values")
        code = _normalization_code(normalization)
        kind, values = check_compatibility(compatibility, self.labels)
        try:
            lattice = _lattice.Lattice.from_features(self._order, array, code, self._mask, self.threads)
        except ValueError as error:
            raise CrfInputError(f"{error}: divide the features by a larger sigma") from None
        self._append(lattice, kind, values)

    def clear_terms(self) -> None:
        """Forget all pairwise terms and their lattices; the unary stays."""
        self._field.clear_terms()
        self._lattices.clear()

    def _add_grid_term(
        self, sxy: Any, image: npt.NDArray[Any] | None, srgb: Any, compatibility: Any, normalization: Normalization
    ) -> None:
        if not self.has_grid:
            raise CrfInputError("points without a grid have no position: use add_features")
        channels = 0 if image is None else image.shape[-1]
        check_entries(self.points, len(self.shape) + channels)
        position_sigmas = check_sigmas(sxy, len(self.shape), "sxy")
        channel_sigmas = check_sigmas(srgb, channels, "srgb") if image is not None else []
        code = _normalization_code(normalization)
        kind, values = check_compatibility(compatibility, self.labels)
        as_bytes = image if image is not None and image.dtype == np.uint8 else None
        as_floats = image if image is not None and image.dtype == np.float32 else None
        try:
            lattice = _lattice.Lattice.from_grid(
                self._order,
                list(self.shape),
                position_sigmas,
                as_bytes,
                as_floats,
                channel_sigmas,
                code,
                self._mask,
                self.threads,
            )
        except ValueError as error:
            sigmas = f"sxy {sxy}" + (f" and srgb {srgb}" if image is not None else "")
            raise CrfInputError(f"{error}: {sigmas} are too small for this image; raise them") from None
        self._append(lattice, kind, values)

    def _append(self, lattice: _lattice.Lattice, kind: int, values: FloatArray) -> None:
        self._field.add_term(lattice, kind, values.reshape(-1))
        self._lattices.append(lattice)

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
        self._field.load_marginals(array.reshape(self.labels, -1), self.threads)
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
        if not self._has_unary:
            zeros = np.zeros((self.labels, 1), np.float32)
            feed_energies(self._field, np.broadcast_to(zeros, (self.labels, self.points)), self.threads)
            self._has_unary = True
        output = np.empty((self.labels, self.points), np.float32)
        done = self._field.run(iterations, self.threads, output, keep, warm, not keep, tolerance, token)
        changed = done.pop("changed")
        self.report = InferenceReport(changed=None if changed < 0 else changed, **done)
        self._started = keep
        return output.reshape(self.labels, *self.shape)

    # ---- what it is --------------------------------------------------------------------------------------------------

    @property
    def kernels(self) -> str:
        """The instruction set in use."""
        return str(self._field.kernels)

    @property
    def size_bytes(self) -> int:
        """Memory held for marginals, unary, lattices and their rows."""
        return int(self._field.size_bytes) + sum(int(lattice.size_bytes) for lattice in self._lattices)

    @property
    def lattice_vertices(self) -> list[int]:
        """The number of lattice vertices of each term."""
        return [int(lattice.vertices) for lattice in self._lattices]

    @property
    def build_seconds(self) -> list[dict[str, float]]:
        """Wall seconds of each term's lattice, by phase."""
        return [dict(lattice.seconds) for lattice in self._lattices]

    def _checked(self, value: Any, what: str) -> npt.NDArray[Any]:
        array = as_array(value, what)
        check_layout(array, self.shape, what, self.labels)
        check_float32(array, what)
        return array


def kernel_names() -> list[str]:
    """The instruction sets whose kernels this processor runs, slowest first."""
    return list(_lattice.kernel_names())


def _normalization_code(name: str) -> int:
    if name not in NORMALIZATIONS:
        raise CrfInputError(f"normalization must be one of {sorted(NORMALIZATIONS)}, got {name!r}")
    return NORMALIZATIONS[name]


def _check_mask(mask: Any, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    array = as_array(mask, "mask")
    if array.shape != shape or array.dtype not in (np.bool_, np.uint8):
        raise CrfInputError(f"mask must be bool of shape {shape}, got {array.dtype} of {array.shape}")
    return np.ascontiguousarray(array).view(np.uint8)
