"""The dense CRF layers, on a permutohedral lattice of plain tensor operations.

Written for correctness, for nets with a CRF in the prototxt; `atrous.runtime.crf` is the fast implementation.
Formulas: Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice" (2010); Krähenbühl
and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials" (2011).
"""

from __future__ import annotations

import math

import torch
from torch import nn


class PermutohedralLattice:
    """The filter sum_j exp(-|f_i - f_j|^2 / 2) v_j over points i, for features f of shape (N, d), float32.

    Every point lies in a simplex of d + 1 lattice vertices; values are spread onto them (splat), blurred along d + 1
    axes, and gathered back (slice). The float32 operations follow the order of the reference implementation: vertices
    of almost no weight still carry mass in the blur, so different rounding changes the result.
    """

    def __init__(self, features: torch.Tensor) -> None:
        self.count, d = features.shape
        # the reference processes four points at a time and pads the last group with points at the origin
        features = torch.cat((features, features.new_zeros(-self.count % 4, d)))
        elevated = self.elevate(features)
        size = d + 1
        inverse = torch.tensor(1.0 / size, dtype=torch.float32, device=features.device)

        nearest = (elevated * inverse).round() * size
        remainder_sum = (nearest.sum(1, keepdim=True) / size).round()
        below = (elevated - nearest)[:, :, None] < (elevated - nearest)[:, None, :]
        upper = torch.ones(size, size, dtype=torch.bool, device=features.device).triu(1)
        rank = (below & upper).sum(2) + (~below & upper).sum(1) + remainder_sum.long()
        nearest = nearest + size * ((rank < 0).long() - (rank >= size).long())
        rank = rank % size

        weights = features.new_zeros(len(features), size + 1)
        for axis in range(size):
            share = ((elevated[:, axis] - nearest[:, axis]) * inverse)[:, None]
            place = d - rank[:, axis : axis + 1]
            weights.scatter_add_(1, place, share).scatter_add_(1, place + 1, -share)
        weights[:, 0] += 1 + weights[:, size]
        self.weights = weights[: self.count, :size]

        steps = torch.arange(size, device=features.device)[:, None]
        corners = torch.where(rank[:, None, :] <= d - steps, steps, steps - size)
        keys = (nearest.long()[:, None, :] + corners)[:, :, :d]
        self.vertices, self.neighbors, self.vertex_count = self.index(keys)
        self.scale = 1 / (1 + 2.0**-d)

    @staticmethod
    def elevate(features: torch.Tensor) -> torch.Tensor:
        """Map features (N, d) to points (N, d + 1) on the hyperplane of coordinates that sum to 0."""
        d = features.shape[1]
        common = torch.tensor(math.sqrt(2 / 3) * (d + 1), dtype=torch.float32).item()
        columns = []
        total = torch.zeros_like(features[:, 0])
        for axis in range(d, 0, -1):
            factor = torch.tensor(common / math.sqrt((axis + 1) * axis), dtype=torch.float32, device=features.device)
            term = features[:, axis - 1] * factor
            columns.append(total - term * axis)
            total = total + term
        return torch.stack([total, *reversed(columns)], 1)

    def index(self, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Number the vertices.

        Args:
            keys: coordinates of each point's vertices, (points, d + 1, d).

        Returns:
            The vertices of each unpadded point (count, d + 1); the previous and next neighbor of each vertex along
            each axis (d + 1, M, 2); the number of vertices M, which is also the index of an absent neighbor.
        """
        d = keys.shape[2]
        flat = keys.reshape(-1, d)
        # one integer per vertex; the margin keeps a neighbor's coordinates within their digit
        lowest = flat.amin(0) - (d + 1)
        extent = flat.amax(0) + (d + 1) - lowest + 1
        if math.prod(extent.tolist()) >= 2**62:
            raise ValueError(
                "the features span too many lattice cells: the standard deviations are too small; enlarge them"
            )
        strides = torch.cat((extent.flip(0).cumprod(0).flip(0)[1:], extent.new_ones(1)))
        codes, vertices = torch.unique(((flat - lowest) * strides).sum(1), return_inverse=True)
        neighbors = []
        for axis in range(d + 1):
            step = -strides.sum()
            if axis < d:
                step = step + (d + 1) * strides[axis]
            neighbors.append(torch.stack((self.find(codes, codes + step), self.find(codes, codes - step)), 1))
        return vertices.reshape(-1, d + 1)[: self.count], torch.stack(neighbors), len(codes)

    @staticmethod
    def find(codes: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Index of each wanted code among the sorted codes; len(codes) where it is absent."""
        position = torch.searchsorted(codes, wanted).clamp(max=len(codes) - 1)
        return torch.where(codes[position] == wanted, position, len(codes))

    def filter(self, values: torch.Tensor) -> torch.Tensor:
        """Filter values (N, L), float32."""
        # the last row represents absent neighbors and stays 0
        rows = values.new_zeros(self.vertex_count + 1, values.shape[1])
        for corner in range(self.vertices.shape[1]):
            rows.index_add_(0, self.vertices[:, corner], self.weights[:, corner, None] * values)
        for beside in self.neighbors:
            rows[:-1] = rows[:-1] + 0.5 * (rows[beside[:, 0]] + rows[beside[:, 1]])
        result = torch.zeros_like(values)
        for corner in range(self.vertices.shape[1]):
            result += (self.weights[:, corner, None] * self.scale) * rows[self.vertices[:, corner]]
        return result

    def filter_normalized(self, values: torch.Tensor) -> torch.Tensor:
        """Filter values with weights that sum to 1 for each point."""
        if not hasattr(self, "norm"):
            self.norm = 1 / (self.filter(values.new_ones(self.count, 1)) + 1e-20)
        return self.filter(values) * self.norm


def position_features(
    height: int, width: int, deviation: float | tuple[float, float], device: torch.device
) -> torch.Tensor:
    """(x, y) of every pixel, row by row, over the deviation (of x and of y): (height * width, 2)."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack((x.flatten(), y.flatten()), 1).float() / torch.tensor(deviation, device=device)


def bilateral_features(
    image: torch.Tensor, position: float | tuple[float, float], color: float | tuple[float, float, float]
) -> torch.Tensor:
    """(x, y) and the colors of an image (3, H, W), each over its deviation: (H * W, 5)."""
    place = position_features(image.shape[1], image.shape[2], position, image.device)
    return torch.cat((place, image.float().flatten(1).T / torch.tensor(color, device=image.device)), 1)


def infer_marginals(
    scores: torch.Tensor, terms: list[tuple[PermutohedralLattice, float]], iterations: int
) -> torch.Tensor:
    """Mean-field marginals (N, M) of scores (N, M) under (lattice, weight) terms, normalized after filtering."""
    q = scores.softmax(1)
    for _ in range(iterations):
        energy = scores
        for lattice, weight in terms:
            energy = energy + weight * lattice.filter_normalized(q)
        q = energy.softmax(1)
    return q


class DenseCRF(nn.Module):
    """Mean-field inference of DeepLab's fully connected CRF, normalized after filtering.

    Inputs: scores (N, M, H, W); data_dim (N, 1, 1, 2), each item's height and width; the net's input image
    (N, 3, H, W), needed by bilateral terms. As in DeepLab, all items use the colors of the first image. Only the
    top-left data_dim of each item is inferred (all of it if data_dim is at least as large); the rest is 0.

    Args:
        iterations: mean-field steps.
        gaussians: (position deviation, weight) of each smoothness term.
        bilaterals: (position deviation, color deviation, weight) of each appearance term.
        log_output: return log(max(Q, smallest normal float32)) instead of Q.
    """

    def __init__(
        self,
        iterations: int,
        gaussians: tuple[tuple[float, float], ...] = (),
        bilaterals: tuple[tuple[float, float, float], ...] = (),
        log_output: bool = False,
    ) -> None:
        super().__init__()
        self.iterations, self.gaussians, self.bilaterals = iterations, gaussians, bilaterals
        self.log_output = log_output

    def forward(self, scores: torch.Tensor, data_dim: torch.Tensor, image: torch.Tensor | None = None) -> torch.Tensor:
        top = torch.zeros_like(scores)
        for item in range(scores.shape[0]):
            height, width = scores.shape[2:]
            real_height, real_width = (int(size) for size in data_dim[item].flatten()[:2])
            if real_height < height or real_width < width:
                height, width = real_height, real_width
            q = self.infer(scores[item, :, :height, :width].float(), image)
            if self.log_output:
                q = q.clamp(min=torch.finfo(torch.float32).tiny).log()
            top[item, :, :height, :width] = q.T.reshape(-1, height, width).to(scores.dtype)
        return top

    def infer(self, scores: torch.Tensor, image: torch.Tensor | None) -> torch.Tensor:
        """Marginals (H * W, M) of one item's scores (M, H, W)."""
        height, width = scores.shape[1:]
        terms = []
        for deviation, weight in self.gaussians:
            features = position_features(height, width, deviation, scores.device)
            terms.append((PermutohedralLattice(features), weight))
        for position, color, weight in self.bilaterals:
            assert image is not None, "bilateral terms need the image"
            features = bilateral_features(image[0, :, :height, :width], position, color)
            terms.append((PermutohedralLattice(features), weight))
        return infer_marginals(scores.flatten(1).T, terms, self.iterations)


class LabelCRF(nn.Module):
    """CCNN's DenseCRF: the labels (N, 1, H, W) of a fully connected CRF after ten mean-field steps.

    Inputs: scores (N, M, H, W) and the image (N, 3, H, W), BGR, 0 to 255, truncated to whole numbers.

    Args:
        gaussian: deviations of x and y, and the weight of the smoothness term.
        bilateral: deviations of x, y, red, green and blue, and the weight of the appearance term.
    """

    def __init__(
        self,
        gaussian: tuple[float, float, float],
        bilateral: tuple[float, float, float, float, float, float],
    ) -> None:
        super().__init__()
        self.gaussian, self.bilateral = gaussian, bilateral

    def forward(self, scores: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        height, width = scores.shape[2:]
        smooth = PermutohedralLattice(position_features(height, width, self.gaussian[:2], scores.device))
        tops = []
        for item in range(scores.shape[0]):
            colors = image[item].flip(0).float().trunc() % 256
            features = bilateral_features(colors, self.bilateral[:2], self.bilateral[2:5])
            terms = [(smooth, self.gaussian[2]), (PermutohedralLattice(features), self.bilateral[5])]
            q = infer_marginals(scores[item].float().flatten(1).T, terms, 10)
            tops.append(q.argmax(1).reshape(1, height, width))
        return torch.stack(tops).to(scores.dtype)


class MultiStageMeanfield(nn.Module):
    """CRF-RNN: mean-field iterations with learned label matrices; returns scores, not probabilities.

    Inputs: unary scores U (N, M, H, W), first scores Q0 (the same, usually a copy), image (N, 3, H, W).
    Each iteration: P = softmax(previous), out = U - compatibility (spatial_weights S(P) + bilateral_weights B(P)),
    where S and B are the normalized Gaussian and bilateral filters and the (M, M) matrices act on the labels.

    Args:
        labels: M.
        iterations: number of iterations.
        alpha: position deviation of the bilateral filter.
        beta: color deviation of the bilateral filter.
        gamma: position deviation of the Gaussian filter.
    """

    def __init__(self, labels: int, iterations: int, alpha: float, beta: float, gamma: float) -> None:
        super().__init__()
        self.iterations, self.alpha, self.beta, self.gamma = iterations, alpha, beta, gamma
        self.spatial_weights = nn.Parameter(torch.eye(labels))
        self.bilateral_weights = nn.Parameter(torch.eye(labels))
        self.compatibility = nn.Parameter(-torch.eye(labels))

    def forward(self, unary: torch.Tensor, initial: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        height, width = unary.shape[2:]
        spatial = PermutohedralLattice(position_features(height, width, self.gamma, unary.device))
        matrices = [m.float().T for m in (self.spatial_weights, self.bilateral_weights, self.compatibility)]
        tops = []
        for item in range(unary.shape[0]):
            bilateral = PermutohedralLattice(bilateral_features(image[item], self.alpha, self.beta))
            scores = initial[item].float().flatten(1).T
            constant = unary[item].float().flatten(1).T
            for _ in range(self.iterations):
                q = scores.softmax(1)
                message = spatial.filter_normalized(q) @ matrices[0] + bilateral.filter_normalized(q) @ matrices[1]
                scores = constant - message @ matrices[2]
            tops.append(scores.T.reshape(unary.shape[1:]))
        return torch.stack(tops).to(unary.dtype)
