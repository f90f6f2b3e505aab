"""The dense CRF as a torch layer with gradients, so that a net and its CRF are trained together (as CRF-RNN is).

The native core builds the lattices; torch runs the updates, on any device and in float32 or float64. The result is that
of `atrous.runtime.crf.DenseCRF` up to rounding. Import this module by name: nothing else of the CRF needs torch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from ...bundle.crf_parameters import BilateralTerm, CrfParameters, GaussianTerm
from ...errors import CrfInputError
from . import _lattice
from .checks import check_fraction, check_grid, check_image, check_integer, check_parameters, check_threads
from .terms import Grid, build_grid_lattice


class Lattice:
    """The filter of one kernel over N points as tensors; its transpose is what gradients need.

    Attributes:
        vertices: (N, d + 1) int64, the vertices around each point.
        weights: (N, d + 1), their barycentric weights.
        neighbors: (d + 1, M, 2) int64, along each axis the previous and next vertex, or M where there is none.
        gains: (N, 1), factors of the points before the filter, or None.
        factors: the same after the filter.
    """

    def __init__(self, native: _lattice.Lattice, like: torch.Tensor) -> None:
        """Take a lattice of the core to the device and dtype of `like`."""
        vertices, weights, neighbors, gains, factors = native.arrays()
        self.vertices = torch.from_numpy(vertices).to(like.device, torch.int64)
        self.weights = torch.from_numpy(weights).to(like.device, like.dtype)
        self.neighbors = torch.from_numpy(neighbors).to(like.device, torch.int64)
        self.gains, self.factors = (
            None if array is None else torch.from_numpy(array).to(like.device, like.dtype)[:, None]
            for array in (gains, factors)
        )

    def filter(self, values: torch.Tensor, *, transposed: bool = False) -> torch.Tensor:
        """Filter (N, L)."""
        before, after = (self.factors, self.gains) if transposed else (self.gains, self.factors)
        if before is not None:
            values = before * values
        axes, count, _ = self.neighbors.shape
        rows = values.new_zeros(count + 1, values.shape[1])  # the last one stands for absent neighbors and stays 0
        for corner in range(axes):
            rows.index_add_(0, self.vertices[:, corner], self.weights[:, corner, None] * values)
        for previous, following in (axis.unbind(1) for axis in self.neighbors.flip(0 if transposed else ())):
            rows[:-1] = rows[:-1] + 0.5 * (rows[previous] + rows[following])
        result = torch.zeros_like(values)
        for corner in range(axes):
            result += self.weights[:, corner, None] * rows[self.vertices[:, corner]]
        result *= 1 / (1 + 2.0 ** (1 - axes))
        return result if after is None else after * result


class _Filter(torch.autograd.Function):
    """A filter is linear, so its gradient is the transposed filter and nothing is kept for it."""

    @staticmethod
    def forward(context: Any, values: torch.Tensor, lattice: Lattice) -> torch.Tensor:
        context.lattice = lattice
        return lattice.filter(values)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return context.lattice.filter(gradients[0], transposed=True), None


def _filter(values: torch.Tensor, lattice: Lattice) -> torch.Tensor:
    result: torch.Tensor = _Filter.apply(values, lattice)  # type: ignore[no-untyped-call]
    return result


class DenseCRF(nn.Module):
    """Mean-field updates with trainable weights: score = -U - sum_t weights[t] * F_t(Q) @ compatibility.

    U = -log(clip(softmax(scores), clip, 1)), as in `dense_crf(image, scores=scores)`. Gradients flow to the scores, the
    weights and the compatibility; not to images and standard deviations.

    Attributes:
        settings: mode, number of updates and terms; its weights are the first ones.
        weights: parameter (T,), one for each term: first the Gaussian ones, then the bilateral ones.
        compatibility: parameter (L, L), the penalty of a label (column) beside another (row). It starts as minus the
            identity, Potts' model, and need not stay symmetric; `dense_crf` takes its symmetric part.
    """

    def __init__(
        self, labels: int, parameters: CrfParameters | None = None, *, clip: float | None = 1e-5, threads: int = 1
    ) -> None:
        """Start from the weights of `parameters`, by default DeepLab's.

        Args:
            labels: L.
            parameters: mode (normalization), number of updates and terms.
            clip: lowest probability of the unary, where it has no gradient; None clips nothing.
            threads: for building lattices.

        Raises:
            CrfInputError: an argument out of range.
        """
        super().__init__()
        self.settings = CrfParameters() if parameters is None else parameters
        check_parameters(self.settings)
        self.clip = None if clip is None else check_fraction(clip, "clip")
        self.labels = check_integer(labels, "labels", 1, 65535)
        self._threads = check_threads(threads)
        weights = [term.weight for term in self._terms]
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float32))
        self.compatibility = nn.Parameter(-torch.eye(self.labels))

    @property
    def _terms(self) -> list[GaussianTerm | BilateralTerm]:
        return [*self.settings.gaussian, *self.settings.bilateral]

    def forward(self, scores: torch.Tensor, images: Any) -> torch.Tensor:
        """Refine scores.

        Args:
            scores: (N, L, H, W), before the softmax, float32 or float64 on any device. Scores of half precision are
                converted to float32, and autocast has no effect. `torch.compile` leaves the layer as it is.
            images: N images H x W x 3 uint8 RGB, as one tensor or array or as a list.

        Returns:
            Marginals (N, L, H, W); `marginals.clamp_min(1e-8).log()` suits `torch.nn.functional.nll_loss`.

        Raises:
            CrfInputError: scores or images of another shape or dtype; standard deviations too small for the image.
        """
        refine = self._refine
        if torch.compiler.is_compiling():  # the core cannot be traced; a decorator would import the compiler at once
            refine = torch.compiler.disable(refine)  # type: ignore[no-untyped-call]
        return refine(scores, images)

    def _refine(self, scores: torch.Tensor, images: Any) -> torch.Tensor:
        if not isinstance(scores, torch.Tensor):
            raise CrfInputError(f"scores must be a tensor, got {type(scores).__name__}")
        if scores.ndim != 4 or scores.shape[1] != self.labels or not scores.dtype.is_floating_point or not len(scores):
            raise CrfInputError(
                f"scores must be floating point, (N, {self.labels}, H, W), got {scores.dtype} {(*scores.shape,)}"
            )
        if len(images) != len(scores):
            raise CrfInputError(f"{len(images)} images do not fit scores of {len(scores)}")
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        with torch.autocast(scores.device.type, enabled=False):
            pairs = zip(scores, images, strict=True)
            return torch.stack([self._infer(item, self.build_lattices(image, item)) for item, image in pairs])

    def build_lattices(self, image: Any, like: torch.Tensor) -> list[Lattice]:
        """The lattices of all terms for an image (H, W, 3) uint8 and scores (L, H, W), on the scores' device."""
        shape = check_grid(like.shape[1:], self.labels)
        pixels = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
        pixels = check_image(np.ascontiguousarray(pixels), shape=shape)
        grid = Grid(_lattice.PixelOrder.tiled(*shape), shape, None, "", self._threads)
        normalization = self.settings.normalization
        natives = [
            build_grid_lattice(grid, term.sxy, pixels, term.srgb, normalization)
            if isinstance(term, BilateralTerm)
            else build_grid_lattice(grid, term.sxy, None, (), normalization)
            for term in self._terms
        ]
        return [Lattice(native, like) for native in natives]

    def _infer(self, scores: torch.Tensor, lattices: list[Lattice]) -> torch.Tensor:
        """Marginals (L, H, W) of scores (L, H, W)."""
        logits = scores.flatten(1).T.log_softmax(1)  # (N, L)
        if self.clip is not None:
            logits = logits.clamp_min(math.log(self.clip))
        weights, compatibility = self.weights.to(logits), self.compatibility.to(logits)
        q = logits.softmax(1)
        for _ in range(self.settings.iterations):
            messages = torch.zeros_like(q)
            for weight, lattice in zip(weights, lattices, strict=True):
                messages = messages + weight * _filter(q, lattice)
            q = (logits - messages @ compatibility).softmax(1)
        return q.T.reshape(scores.shape)
