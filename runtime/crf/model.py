"""`DenseCRF`: a fully connected CRF over a grid or over free points, built once and run many times.

The native core (the `_lattice` extension) holds marginals and lattices; this module checks the arguments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ...bundle.crf_parameters import Normalization
from ...errors import CrfInputError
from ._lattice import CancelToken, MeanField, PixelOrder
from .calls import InferenceReport, Output, choose_output, exclusive
from .checks import (
    MAX_ITERATIONS,
    FloatArray,
    check_choice,
    check_compatibility,
    check_fraction,
    check_grid,
    check_image,
    check_integer,
    check_kernels,
    check_mask,
    check_threads,
    check_values,
)
from .pruning import labels_to_keep
from .term_list import TermList
from .terms import Grid, build_feature_lattice, build_grid_lattice
from .unary import Unary

if TYPE_CHECKING:
    from .gpu.engine import DeviceEngine, Kind

Storage = Literal["float32", "float16"]
Device = Literal["cpu", "cuda"]


class DenseCRF:
    """A dense CRF: unary energies, pairwise terms, marginals.

    Every array over pixels is labels first, then the grid: (L, H, W) for an image, (L, D, H, W) for a volume, (L, N)
    for free points. Results are bit-identical for any number of threads, any processor, and on a GPU.

    One thread at a time: a call while another one runs raises `CrfInputError`. Separate objects run in parallel.

    Attributes:
        shape: the grid, or (N,) for free points.
        labels: number of labels.
        points: number of points.
        threads: number of threads in use.
        report: statistics of the last inference, None before it.
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
        device: Device = "cpu",
    ) -> None:
        """Make a CRF without unary and terms.

        Args:
            shape: the grid, (H, W) or any number of axes, slowest first; an int N for points without a grid.
            labels: number of labels.
            threads: number of threads; None is all, fewer for few points, one in a worker process of multiprocessing.
            storage: "float32", or "float16" for marginals and lattice rows of half the size (arithmetic stays
                float32; docs/crf.md has the effect).
            mask: bool over the grid; pixels with False neither send nor receive messages.
            kernels: one of `kernel_names()`, to force it; by default the best for this processor.
            device: "cuda" for the first NVIDIA GPU. Then images and unaries may be arrays in its memory too (DLPack);
                the result is one if the unary was, as an object with `__dlpack__` and `to_host()`. It takes up to 2047
                labels, and has no shortcuts, `kl_divergence` and `prune_labels`.

        Raises:
            CrfInputError: an invalid size, label count or option.
            MissingDependencyError: device "cuda" without cuda-bindings or NVRTC.
            BackendError: device "cuda" without a GPU.
        """
        axes = (shape,) if isinstance(shape, (int, np.integer)) else shape
        self.shape = check_grid(axes, labels)
        self.labels = int(labels)
        self.points = math.prod(self.shape)
        self.threads = check_threads(threads, self.points)
        check_choice(storage, "storage", Storage)
        check_choice(device, "device", Device)
        check_kernels(kernels)
        order = PixelOrder.tiled(*self.shape) if len(self.shape) == 2 else PixelOrder.linear(self.points)
        checked_mask = None if mask is None else check_mask(mask, self.shape)
        self._grid = Grid(order, self.shape if axes is shape else None, checked_mask, kernels, self.threads)
        self._engine: DeviceEngine | None = None
        self._field: Any  # MeanField or DeviceMeanField
        if device == "cuda":
            from .gpu.engine import DeviceEngine

            self._engine = DeviceEngine(self.points, self.labels, storage, kernels)
            self._field = self._engine.field
            self._grid = self._grid._replace(lattices=self._engine.lattices, place=self._engine.place)
        else:
            self._field = MeanField(order, self.labels, storage == "float16", kernels, self.threads)
        self._terms = TermList(self._field)
        self._unary = Unary(self._field, self._engine, self.labels, self.shape, self._grid)
        self._started = False  # whether the core holds marginals
        self.report: InferenceReport | None = None

    # ---- unary -------------------------------------------------------------------------------------------------------

    @exclusive
    def set_unary(self, energies: Any) -> None:
        """Set the unary energies (smaller is likelier): (L, *shape) float32, any strides."""
        self._feed("energies", energies)

    @exclusive
    def set_probabilities(self, probabilities: Any, *, clip: float = 1e-5) -> None:
        """Set the unary to -log(clip(p, clip, 1)): (L, *shape) float32, summing to 1 over the labels."""
        self._feed("probabilities", probabilities, clip)

    @exclusive
    def set_scores(self, scores: Any, *, clip: float = 1e-5, padded: tuple[int, int] | None = None) -> None:
        """Set the unary to -log(clip(softmax(scores), clip, 1)).

        Args:
            scores: (L, *shape) float32 before a softmax; for an image also (L, h, w) float32 or float16 of a coarser
                grid, upsampled here with aligned corners (Caffe's Interp), without a full-size array of scores.
            clip: lowest probability.
            padded: the (height, width) of the padded image, which a coarser grid covers; None for the image's.
        """
        self._feed("scores", scores, clip, padded)

    @exclusive
    def unary_energies(self) -> FloatArray:
        """The unary of the labels in use: (L, *shape) float32 energies."""
        self._unary.require("unary_energies")
        output = np.empty((self._field.labels, self.points), np.float32)
        self._field.read_unary(output)
        return output.reshape(-1, *self.shape)

    def _feed(self, what: Kind, value: Any, clip: float = 1e-5, padded: Any = None) -> None:
        """Set the unary; pruned labels come back, with the lattices kept."""
        set_values = self._unary.prepare(what, value, check_fraction(clip, "clip"), padded)
        if self._terms.kept is not None:
            self._started = False
            self._field.restart(self.labels)
            self._terms.keep(None)
        set_values()

    # ---- pairwise terms ----------------------------------------------------------------------------------------------

    @exclusive
    def add_gaussian(self, sxy: Any, compatibility: Any, *, normalization: Normalization = "symmetric") -> None:
        """Add a term of position alone.

        Args:
            sxy: standard deviation in pixels; one number, or one per axis in the order x, y (, z).
            compatibility: a number (positive smooths), (L,) (negative smooths) or (L, L) (a penalty for unequal
                labels, made symmetric).
            normalization: "symmetric", "after", "before" or "none".

        Raises:
            CrfInputError: an invalid argument; points without a grid.
        """
        checked = check_compatibility(compatibility, self.labels)
        self._terms.append(build_grid_lattice(self._grid, sxy, None, (), normalization), checked)

    @exclusive
    def add_bilateral(
        self, sxy: Any, srgb: Any, image: Any, compatibility: Any, *, normalization: Normalization = "symmetric"
    ) -> None:
        """Add a term of position and color.

        Args:
            sxy: standard deviation in pixels; one number, or one per axis in the order x, y (, z).
            srgb: standard deviation in the image's units; one number or one per channel.
            image: (*shape, C) uint8 or float32, C-contiguous, any number of channels (RGB for a photo).
            compatibility: as for `add_gaussian`.
            normalization: as for `add_gaussian`.

        Raises:
            CrfInputError: an invalid argument; points without a grid; a sigma so small that lattice coordinates leave
                16 bits.
        """
        checked = check_compatibility(compatibility, self.labels)
        pixels = self._check_image(image)
        grid = self._grid  # no reference to this object from itself, which would delay the release of its memory

        def build(pixels: Any) -> Any:
            return build_grid_lattice(grid, sxy, pixels, srgb, normalization)

        self._terms.append(build(pixels), checked, build)

    @exclusive
    def set_image(self, image: Any) -> None:
        """Rebuild the bilateral terms for another image, such as the next frame of a video; the rest stays.

        Args:
            image: as for `add_bilateral`.

        Raises:
            CrfInputError: an invalid image; sigmas so small that lattice coordinates leave 16 bits.
        """
        self._terms.set_image(self._check_image(image))

    @exclusive
    def add_features(self, features: Any, compatibility: Any, *, normalization: Normalization = "symmetric") -> None:
        """Add a term with the kernel exp(-|f_i - f_j|^2 / 2) over free features.

        Args:
            features: (d, N) float32, C-contiguous, N the points in row-major order, already divided by their sigmas.
            compatibility: as for `add_gaussian`.
            normalization: as for `add_gaussian`.

        Raises:
            CrfInputError: an invalid argument; features so large that lattice coordinates leave 16 bits.
        """
        checked = check_compatibility(compatibility, self.labels)
        self._terms.append(build_feature_lattice(self._grid, features, normalization), checked)

    @property
    def grid(self) -> Grid:
        """The points, for `terms.build_grid_lattice`."""
        return self._grid

    @exclusive
    def add_lattice(self, lattice: Any, compatibility: Any) -> None:
        """Add a term with a lattice that was built for this `grid`; compatibility as for `add_gaussian`."""
        self._terms.append(lattice, check_compatibility(compatibility, self.labels))

    @exclusive
    def set_compatibilities(self, compatibilities: Sequence[Any]) -> None:
        """Replace the compatibilities of the terms, in the order they were added, and keep their lattices.

        Pruned labels stay pruned, though the proof was for the old compatibilities: set the unary again before pruning.

        Args:
            compatibilities: one for each term, as for `add_gaussian`.

        Raises:
            CrfInputError: another number of compatibilities than of terms, or an invalid one.
        """
        self._terms.set_compatibilities([check_compatibility(each, self.labels) for each in compatibilities])

    @exclusive
    def clear_terms(self) -> None:
        """Remove all pairwise terms and their lattices; the unary stays."""
        self._terms.clear()

    # ---- fewer labels ------------------------------------------------------------------------------------------------

    @exclusive
    def prune_labels(self, *, below: float | None = None) -> list[int]:
        """Drop labels that cannot win until the next unary is set; returns the labels that stay.

        Args:
            below: None drops only labels proven unable to win at any pixel: their energy stays above the best label's
                by more than the terms can ever compensate. The others' marginals change by no more than the dropped
                mass. A number drops the labels that nowhere reach this fraction of the best label's probability.

        Raises:
            CrfInputError: there is no unary, or `below` is not between 0 and 1.
        """
        gaps = self._unary.require("prune_labels")
        self._refuse_on_device("prune_labels")
        if self._terms.kept is not None:
            return list(self._terms.kept)
        kept = labels_to_keep(gaps, self._terms, self.threads, below)
        if len(kept) < self.labels:
            self._field.keep_labels(kept)
            self._started = False
            self._terms.keep(kept)
        return kept

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
        token: CancelToken | None = None,
        output: Output = "marginals",
    ) -> npt.NDArray[Any]:
        """Run mean-field updates and return the marginals or labels.

        Args:
            iterations: number of updates; 0 gives the softmax of the unary.
            tolerance: stop early once an update changed at most this fraction of the labels; 0 never stops early.
            settle: after one update, freeze pixels with a marginal above this, which saves their part of the work; 0
                freezes none, 0.999 hardly changes a label (see docs/crf.md).
            warm: start from the marginals of the last call (video, a changed unary) instead of from the unary.
            keep: keep the marginals for `step`, `kl_divergence` and `warm`; False lowers the peak of memory.
            token: its `cancel()`, called by another thread, stops the updates after the current one.
            output: "labels" for the first label of the highest marginal.

        Returns:
            (L, *shape) float32, summing to 1 over the labels; or labels (*shape) uint8, uint16 if there are more than
            256. `report` has the statistics.

        Raises:
            CrfInputError: an invalid argument; no unary; a warm start without marginals.
        """
        iterations = check_integer(iterations, "iterations", 0, MAX_ITERATIONS)
        tolerance = check_fraction(tolerance, "tolerance", or_zero=True)
        settle = check_fraction(settle, "settle", or_zero=True)
        if warm and not self._started:
            raise CrfInputError("a warm start needs the marginals of an earlier inference(..., keep=True)")
        check_choice(output, "output", Output)
        return self._run(iterations, keep, warm, tolerance, settle, token, output=output)

    @exclusive
    def start(self) -> FloatArray:
        """Return the softmax of the unary, from which `step` continues."""
        return self._run(0, True, False, 0.0, 0.0, None)

    @exclusive
    def step(self) -> FloatArray:
        """Run one more update; `start` and n times `step` are `inference(n)`."""
        if not self._started:
            raise CrfInputError("step needs start() or inference() before it")
        return self._run(1, True, True, 0.0, 0.0, None)

    @exclusive
    def set_marginals(self, marginals: Any) -> None:
        """Replace the marginals from which `step`, `kl_divergence` and a warm start continue."""
        array = check_values(marginals, "marginals", self.labels, self.shape)
        if not np.isfinite(array).all():
            raise CrfInputError("marginals hold NaN or infinite values")
        if self._terms.kept is not None:
            array = array[self._terms.kept]
        self._field.load_marginals(array.reshape(len(array), -1))
        self._started = True

    @exclusive
    def kl_divergence(self) -> float:
        """The reference's relative monitor: sum of Q log Q + U Q + Q C(F(Q)); not the exact free energy."""
        self._unary.require("kl_divergence")
        self._refuse_on_device("kl_divergence")
        if not self._started:
            raise CrfInputError("kl_divergence needs start() or inference() before it")
        return float(self._field.kl_divergence())

    def _run(self, iterations: int, keep: bool, *options: Any, output: Output = "marginals") -> npt.NDArray[Any]:
        self._unary.require("inference")
        if self._engine is not None:
            result: npt.NDArray[Any]
            result, done = self._engine.run(iterations, options, output, self.shape)
            self.report, self._started = InferenceReport(*done), True
            return result
        marginals: npt.NDArray[Any]
        marginals, done = self._field.run(iterations, keep, *options)
        self.report, self._started = InferenceReport(*done), keep
        marginals = self._terms.spread(marginals, self.labels)
        return choose_output(marginals.reshape(self.labels, *self.shape), output)

    # ---- checks and sizes --------------------------------------------------------------------------------------------

    def _check_image(self, image: Any) -> Any:
        shape = self._grid.require_shape()
        on_device = None if self._engine is None else self._engine.read_image(image, shape)
        return check_image(image, shape=shape) if on_device is None else on_device

    def _refuse_on_device(self, call: str) -> None:
        if self._engine is not None:
            raise CrfInputError(f'{call} does not run on a GPU: make the model with device="cpu"')

    @property
    def kernels(self) -> str:
        """The instruction set in use, or a GPU's architecture."""
        return str(self._field.kernels)

    @property
    @exclusive
    def size_bytes(self) -> int:
        """Memory of marginals, unary, lattices and their rows, in bytes."""
        return int(self._field.size_bytes + sum(term.lattice.size_bytes for term in self._terms))

    @property
    def lattice_vertices(self) -> list[int]:
        """The number of lattice vertices of each term."""
        return [term.lattice.vertices for term in self._terms]

    @property
    def blurred_rows(self) -> list[int]:
        """The number of rows that the blur of each term reads and writes in one update, over all axes."""
        return [term.lattice.chained for term in self._terms]
