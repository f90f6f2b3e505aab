"""Builds permutohedral lattices on the device: sorted keys instead of the CPU's hash table, the same sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _lattice
from .arrays import DeviceArray
from .queue import Block, Queue
from .structures import ENTRY, NEIGHBORS, FeatureSource, KeyLayout

Mask = npt.NDArray[np.uint8]

# lattice.cu
_SORT_THREADS = 128
_SORT_TILE = 16 * _SORT_THREADS
_DIGIT_BITS = 6
_SCAN_THREADS = 1024

_BEFORE, _AFTER, _SYMMETRIC = 1, 2, 3  # Normalization in lattice.h


@dataclass(frozen=True)
class DeviceLattice:
    """As Lattice in ../src/lattice.h; slice weights are without alpha."""

    vertices: int
    corners: int
    slices: Block  # points x corners
    splats: Block  # by vertex
    offsets: Block  # vertices + 1
    neighbors: Block  # corners x vertices
    norms: Block | None
    normalization: int

    @property
    def alpha(self) -> float:
        """The scale of slice."""
        return 1.0 / (1.0 + 2.0 ** (1 - self.corners))

    @property
    def gains(self) -> Block | None:
        """Factors of the points before the filter."""
        return self.norms if self.normalization in (_BEFORE, _SYMMETRIC) else None

    @property
    def factors(self) -> Block | None:
        """Factors of the points after the filter."""
        return self.norms if self.normalization in (_AFTER, _SYMMETRIC) else None

    @property
    def size_bytes(self) -> int:
        """Device memory."""
        blocks = (self.slices, self.splats, self.offsets, self.neighbors, self.norms)
        return sum(block.size_bytes for block in blocks if block is not None)

    @property
    def chained(self) -> int:
        """Rows that blur reads and writes in one update."""
        return self.vertices * self.corners


class LatticeFactory:
    """Builds lattices, with the calls of `_lattice.Lattice`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def from_grid(
        self,
        order: _lattice.PixelOrder,
        grid: list[int],
        position_sigmas: list[float],
        image: npt.NDArray[Any] | DeviceArray | None,
        channel_sigmas: list[float],
        normalization: int,
        mask: Mask | None,
        threads: int,
        kernels: str,
    ) -> DeviceLattice:
        """Build the lattice of grid positions and the channels of an image."""
        on_host = image if isinstance(image, np.ndarray) else None
        keys = _lattice.grid_keys(grid, position_sigmas, on_host, channel_sigmas)
        source = FeatureSource(points=order.points, axes=len(grid), channels=len(channel_sigmas))
        source.grid[: len(grid)] = grid
        sigmas = [*position_sigmas, *channel_sigmas]
        source.sigmas[: len(sigmas)] = sigmas
        pixels = self._queue.upload(image) if isinstance(image, np.ndarray) else image
        if pixels is not None:
            is_bytes = image is not None and image.dtype == np.uint8
            setattr(source, "bytes" if is_bytes else "floats", pixels.address)
        return _Build(self._queue, source, keys, mask).run(normalization)

    def from_features(
        self,
        order: _lattice.PixelOrder,
        features: npt.NDArray[Any],
        normalization: int,
        mask: Mask | None,
        threads: int,
        kernels: str,
    ) -> DeviceLattice:
        """Build the lattice of free features (d, N)."""
        keys = _lattice.feature_keys(features)
        values = self._queue.upload(features)
        source = FeatureSource(points=order.points, axes=0, channels=0, floats=values.address)
        return _Build(self._queue, source, keys, mask).run(normalization)


class _Build:
    """The arrays of one build; `run` frees those that the lattice does not need."""

    def __init__(self, queue: Queue, source: FeatureSource, keys: _lattice.Keys, mask: Mask | None) -> None:
        self._queue, self._source = queue, source
        scale, lowest, word, shift, self._used_bits = keys
        self._words = len(self._used_bits)
        self._layout = layout = KeyLayout(dimensions=len(scale), words=self._words)
        for name, values in (("scale", scale), ("lowest", lowest), ("word", word), ("shift", shift)):
            getattr(layout, name)[: len(values)] = values
        self._corners = len(scale) + 1
        self._masks_some = mask is not None and not mask.all()
        self._mask = queue.upload(mask) if mask is not None else None
        # the reference embeds zero features for the pixels missing from its last group of four
        pads = source.points % 4 != 0 or (mask is not None and not mask.any())
        self._entries = (source.points + pads) * self._corners
        self._tiles = -(-self._entries // _SORT_TILE)

    def run(self, normalization: int) -> DeviceLattice:
        """Build the lattice."""
        queue, entries, corners = self._queue, self._entries, self._corners
        weights = queue.allocate(entries, np.float32)
        keys = queue.allocate(self._words * entries, np.uint64)
        order = queue.allocate(entries, np.uint32)
        points = entries // corners
        queue.launch("embed", points, self._layout, self._source, self._mask, weights, keys, entries, order)
        order = self._sort(keys, order)
        counts = queue.allocate(self._tiles + 1, np.uint32)
        self._launch_tiles("count_heads", keys, self._words, order, entries, counts)
        self._scan(counts, self._tiles)
        found = int(queue.download(counts, 1, np.uint32, 4 * self._tiles)[0])
        vertices = found - self._masks_some  # masked pixels share one key
        offsets = queue.allocate(vertices + 1, np.uint32)
        splats, slices = queue.allocate(entries, ENTRY), queue.allocate(entries, ENTRY)
        vertex_keys = queue.allocate(self._words * vertices, np.uint64)
        chosen = (corners, self._source.points, weights, counts, vertices, offsets, splats, slices, vertex_keys)
        self._launch_tiles("number_vertices", keys, self._words, order, entries, *chosen)
        neighbors = queue.allocate(vertices * corners, NEIGHBORS)
        queue.launch("fill", 2 * vertices * corners, neighbors, -1, 2 * vertices * corners)
        queue.launch("link", vertices * corners, self._layout, vertex_keys, vertices, neighbors)
        lattice = DeviceLattice(vertices, corners, slices, splats, offsets, neighbors, None, normalization)
        if normalization:
            lattice = self._normalize(lattice)
        queue.synchronize()  # other streams may use the lattice
        return lattice

    def _sort(self, keys: Block, order: Block) -> Block:
        """Sort the entries by their keys, stably: pixels of one vertex stay in order."""
        queue, entries = self._queue, self._entries
        places = queue.allocate((1 << _DIGIT_BITS) * self._tiles + 1, np.uint32)
        spare = queue.allocate(entries, np.uint32)
        for word, bits in enumerate(self._used_bits):
            column = keys.address + 8 * entries * word
            for shift in range(0, bits, _DIGIT_BITS):
                self._launch_tiles("count_digits", column, shift, order, entries, places)
                self._scan(places, (1 << _DIGIT_BITS) * self._tiles)
                self._launch_tiles("scatter_digits", column, shift, order, entries, places, spare)
                order, spare = spare, order
        return order

    def _launch_tiles(self, kernel: str, *arguments: Any) -> None:
        self._queue.launch(kernel, self._entries, *arguments, share=_SORT_TILE, threads=_SORT_THREADS)

    def _scan(self, counts: Block, count: int) -> None:
        self._queue.launch("scan", 1, counts, count, threads=_SCAN_THREADS)

    def _normalize(self, lattice: DeviceLattice) -> DeviceLattice:
        """Measure n = lattice(1) by one filter of ones."""
        queue, points = self._queue, self._source.points
        rows = queue.allocate(lattice.vertices, np.float32), queue.allocate(lattice.vertices, np.float32)
        mass = queue_filter(queue.launch, lattice, None, None, 1, 1, rows)
        norms = queue.allocate(points, np.float32)
        is_root = lattice.normalization == _SYMMETRIC
        rest = (lattice.corners, points, lattice.alpha, is_root, norms)
        queue.launch("measure_norms", points, lattice.slices, mass, *rest)
        return DeviceLattice(**{**vars(lattice), "norms": norms})


def queue_filter(
    launch: Callable[..., None],
    lattice: DeviceLattice,
    q: Block | None,
    gains: Block | None,
    labels: int,
    lanes: int,
    rows: tuple[Block, Block],
) -> Block:
    """Queue splat and blur of Q, or of ones; return which of the two arrays of rows holds the result."""
    now, other = rows
    vertices = lattice.vertices
    sizes = (vertices, labels, lanes)
    launch("splat", vertices * labels, lattice.offsets, lattice.splats, gains, q, *sizes, now)
    for axis in range(lattice.corners):
        beside = lattice.neighbors.address + NEIGHBORS.itemsize * vertices * axis
        launch("blur", vertices * labels, beside, now, *sizes, other)
        now, other = other, now
    return now
