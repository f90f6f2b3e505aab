"""The tests' reference: the dense CRF in plain NumPy, float64 where the formulas allow.

Slow and short on purpose. Only the embedding is float32, because its rounding decides which vertices exist.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def embed(features: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int64], Array]:
    """(d, N) float32 features -> vertex keys (N, d+1, d) and barycentric weights (N, d+1)."""
    d, points = features.shape
    corners = d + 1
    spread = np.float32(np.sqrt(2.0 / 3.0) * corners)
    scale = [np.float32(1.0 / np.sqrt((i + 2.0) * (i + 1.0)) * np.float64(spread)) for i in range(d)]
    elevated = np.zeros((corners, points), np.float32)
    total = np.zeros(points, np.float32)
    for j in range(d, 0, -1):
        t = features[j - 1] * scale[j - 1]
        elevated[j] = total - np.float32(j) * t
        total = total + t
    elevated[0] = total
    rounded = np.rint(elevated * np.float32(1.0 / corners)).astype(np.float32)
    nearest = rounded * np.float32(corners)
    excess = rounded.sum(axis=0).astype(np.int64)
    rest = elevated - nearest
    rank = np.zeros((corners, points), np.int64)
    for i in range(corners):
        for j in range(corners):
            rank[i] += (rest[i] < rest[j]) if j > i else ~(rest[j] < rest[i]) if j < i else 0
    rank += excess
    turn = np.where(rank < 0, 1, np.where(rank > d, -1, 0))
    rank += turn * corners
    nearest = nearest + (turn * corners).astype(np.float32)
    weights = np.zeros((corners + 1, points), np.float32)
    rows = np.arange(points)
    for i in range(corners):
        t = (elevated[i] - nearest[i]) * np.float32(1.0 / corners)
        weights[d - rank[i], rows] += t
        weights[d - rank[i] + 1, rows] -= t
    weights[0] += np.float32(1.0) + weights[corners]
    keys = np.empty((points, corners, d), np.int64)
    for q in range(corners):
        for i in range(d):
            keys[:, q, i] = nearest[i].astype(np.int64) + np.where(rank[i] <= d - q, q, q - corners)
    return keys, weights[:corners].T.astype(np.float64)


class Lattice:
    """The filter Y = lattice(X) over N points with d features."""

    def __init__(self, features: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_] | None = None) -> None:
        d, points = features.shape
        keys, self.weights = embed(features)
        used = np.ones(points, bool) if mask is None else mask.reshape(-1)
        self.weights[~used] = 0
        every = keys[used].reshape(-1, d)
        if points % 4 or not used.any():
            every = np.concatenate([every, embed(np.zeros((d, 1), np.float32))[0].reshape(-1, d)])
        vertices, ids = np.unique(every, axis=0, return_inverse=True)
        self.ids = np.zeros((points, d + 1), np.int64)
        self.ids[used] = ids.reshape(-1)[: used.sum() * (d + 1)].reshape(-1, d + 1)
        self.count = len(vertices)
        number = {tuple(key): index for index, key in enumerate(vertices.tolist())}
        self.neighbors = []
        for axis in range(d + 1):
            step = np.ones(d, np.int64)
            if axis < d:
                step[axis] = -d
            after = [number.get(tuple(key), self.count) for key in (vertices + step).tolist()]
            before = [number.get(tuple(key), self.count) for key in (vertices - step).tolist()]
            self.neighbors.append((np.array(before), np.array(after)))
        self.alpha = 1.0 / (1.0 + 2.0**-d)

    def __call__(self, values: Array) -> Array:
        """(N, L) -> (N, L)."""
        rows = np.zeros((self.count + 1, values.shape[1]))
        for q in range(self.ids.shape[1]):
            np.add.at(rows, self.ids[:, q], self.weights[:, q, None] * values)
        for before, after in self.neighbors:
            rows[:-1] = rows[:-1] + 0.5 * (rows[before] + rows[after])
        return self.alpha * np.einsum("nq,nql->nl", self.weights, rows[self.ids])


@dataclass
class Term:
    """One pairwise term: features (d, N), a compatibility and a normalization by name."""

    features: npt.NDArray[np.float32]
    compatibility: object
    normalization: str = "symmetric"


def grid_features(
    shape: tuple[int, ...],
    sigmas: list[float],
    image: npt.NDArray[np.generic] | None = None,
    channel_sigmas: object = (),
) -> npt.NDArray[np.float32]:
    """Positions (fastest axis first) over sigmas, then channels over theirs: (d, N) float32."""
    axes = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij")[::-1]
    rows = [axis.ravel() / np.float32(s) for axis, s in zip(axes, sigmas, strict=True)]
    if image is not None:
        flat = image.reshape(-1, image.shape[-1]).astype(np.float32)
        rows += [flat[:, c] / np.float32(s) for c, s in enumerate(channel_sigmas)]  # type: ignore[arg-type]
    return np.stack(rows).astype(np.float32)


class MeanField:
    """Q over (N, L) by parallel updates, all in float64."""

    def __init__(self, unary: Array, terms: list[Term], mask: npt.NDArray[np.bool_] | None = None) -> None:
        self.unary = unary  # (N, L), an energy
        self.filters = []
        for term in terms:
            lattice = Lattice(term.features, mask)
            norm = lattice(np.ones((len(unary), 1))) + 1e-20
            self.filters.append((lattice, norm, term))

    def messages(self, q: Array) -> Array:
        """-sum_k C_k(F_k(Q)), (N, L)."""
        total = np.zeros_like(q)
        for lattice, norm, term in self.filters:
            before = {"symmetric": 1 / np.sqrt(norm), "before": 1 / norm}.get(term.normalization, 1.0)
            after = {"symmetric": 1 / np.sqrt(norm), "after": 1 / norm}.get(term.normalization, 1.0)
            filtered = lattice(q * before) * after
            compat = np.asarray(term.compatibility, np.float64)
            if compat.ndim == 0:
                total += compat * filtered
            elif compat.ndim == 1:
                total -= compat * filtered
            else:
                total -= filtered @ ((compat + compat.T) / 2)
        return total

    def run(self, iterations: int) -> Array:
        """Marginals (N, L)."""
        q = softmax(-self.unary)
        for _ in range(iterations):
            q = softmax(self.messages(q) - self.unary)
        return q

    def kl(self, q: Array) -> float:
        """The relative monitor: sum Q log Q + U Q + Q C(F(Q))."""
        return float((q * np.log(np.maximum(q, 1e-20)) + self.unary * q - q * self.messages(q)).sum())


def softmax(scores: Array) -> Array:
    """Over the last axis."""
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))
