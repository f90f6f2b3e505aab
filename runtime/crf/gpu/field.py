"""Mean-field inference on the device: what `_lattice.MeanField` does on the CPU; unary and terms by the same calls."""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ....errors import CrfInputError
from .. import _lattice
from ..calls import find_label_dtype
from ..checks import FloatArray, check_integer
from .arrays import DeviceArray
from .lattice import DeviceLattice, queue_filter
from .queue import Block, Queue
from .structures import RANGE, TERM, UnarySource

Ranges = tuple[int, float, float, list[float]]

# update.cu
_MOST_LABELS = 2047
_MOST_VALUES = 2048
_MOST_POINTS = 64

_SCORES = 1  # unary.cu


@dataclass(frozen=True)
class _Term:
    lattice: DeviceLattice
    kind: int
    compatibility: Block
    rows: tuple[Block, Block]


class DeviceMeanField:
    """Marginals, unary and terms of one model; one thread at a time, except in `set_unary`."""

    def __init__(self, queue: Queue, points: int, labels: int) -> None:
        check_integer(labels, "labels on a GPU", 1, _MOST_LABELS)
        self._queue, self._points, self.labels = queue, points, labels
        # rows begin at 32-byte sectors, short ones do not cross any
        self._lanes = next((n for n in (1, 2, 4) if labels <= n), -(-labels // 8) * 8)
        self._lock = threading.Lock()  # held while entered
        self._feeding = threading.Lock()
        self._unary: Block | None = None
        self._q: Block | None = None
        self._terms: list[_Term] = []
        self._table: Block | None = None
        self._update: int | None = None  # executable graph

    def __enter__(self) -> None:
        """Take the model for this thread."""
        if not self._lock.acquire(blocking=False):
            raise _lattice.InUseError("in use by another thread")
        self._queue.driver.activate()

    def __exit__(self, *exception: object) -> None:
        """Give it back."""
        self._lock.release()

    def __del__(self) -> None:
        """Destroy the graph."""
        if getattr(self, "_update", None) is not None:
            with suppress(Exception):  # the interpreter may be ending
                self._forget_update()

    # ---- unary ---------------------------------------------------------------------------------------------------

    def allocate_unary(self) -> None:
        """Make room for all energies."""
        if self._unary is None:
            self._unary = self._queue.allocate(self._points * self.labels, np.float32)

    def set_unary(self, values: npt.NDArray[Any], first: int, kind: int, cap: float) -> Ranges:
        """Set energies (0), scores (1) or logarithms (2), (L, points of the band), from point `first` on."""
        with self._feeding:  # bands come from several threads
            self._queue.driver.activate()
            band = np.ascontiguousarray(values)
            data = self._queue.upload(band)
            source = UnarySource(data=data.address, label_stride=band.shape[1], point_stride=1, kind=kind, cap=cap)
            source.first = first
            return self._prepare(source, band.shape[1])[:4]

    def set_coarse_scores(
        self, scores: npt.NDArray[Any], width: int, padded_height: int, padded_width: int, cap: float
    ) -> Ranges:
        """Set scores (h, w, L) of a coarser grid that covers the padded size of an image of this width."""
        data = self._queue.upload(scores)
        source = UnarySource(data=data.address, label_stride=1, point_stride=self.labels, kind=_SCORES, cap=cap)
        source.set_coarse_grid(scores.shape[:2], (padded_height, padded_width), width)
        return self._prepare(source, self._points)[:4]

    def set_device_unary(
        self, values: DeviceArray, kind: int, width: int, padded: tuple[int, int] | None, clip: float
    ) -> tuple[int, float, float, list[float], float]:
        """Set energies (0), scores (1) or probabilities (3) that are on the device.

        `padded` is the size that scores of a coarser grid cover, for an image of this width.

        Returns the values of `set_unary`, and the largest deviation of a point's sum from 1.
        """
        source = UnarySource(data=values.address, label_stride=math.prod(values.shape[1:]), point_stride=1, kind=kind)
        source.is_half = values.dtype == np.float16
        source.cap, source.clip = -math.log(clip), clip
        if padded is not None:
            source.set_coarse_grid(values.shape[1:], padded, width)
        return self._prepare(source, self._points)

    def _prepare(self, source: UnarySource, count: int) -> tuple[int, float, float, list[float], float]:
        self.allocate_unary()
        threads = 128
        blocks = -(-count // threads)
        ranges = self._queue.allocate(blocks, RANGE)
        rest = (count, self.labels, self._unary, ranges)
        self._queue.launch("prepare", count, source, *rest, share=threads, threads=threads)
        found = self._queue.download(ranges, blocks, RANGE)
        gaps = [0.0] * self.labels  # not measured: labels are not pruned here
        extremes = float(found["lowest"].min()), float(found["highest"].max())
        return int(found["unusable"].sum()), *extremes, gaps, float(found["deviation"].max())

    def read_unary(self, output: FloatArray) -> None:
        """Write the energies to (L, N)."""
        assert self._unary is not None, "no unary has been set"
        rows = self._queue.download(self._unary, self._points * self.labels, np.float32)
        output[...] = rows.reshape(self._points, self.labels).T

    # ---- terms ---------------------------------------------------------------------------------------------------

    def add_term(self, lattice: DeviceLattice, kind: int, values: FloatArray) -> None:
        """Add a term with a compatibility of `kind` axes."""
        count = lattice.vertices * self._lanes
        rows = self._queue.allocate(count, np.float32), self._queue.allocate(count, np.float32)
        self._terms.append(_Term(lattice, kind, self._queue.upload(values), rows))
        self._forget_update()

    def clear_terms(self) -> None:
        """Remove all terms."""
        self._forget_update()
        self._terms.clear()

    def _forget_update(self) -> None:
        executable, self._update, self._table = self._update, None, None
        if executable is not None:
            self._queue.synchronize()
            self._queue.driver.destroy_executable(executable)

    # ---- inference -----------------------------------------------------------------------------------------------

    def queue_updates(
        self, iterations: int, warm: bool, tolerance: float, settle: float, token: _lattice.CancelToken | None
    ) -> tuple[int, bool]:
        """Queue updates; return their number and whether the token stopped them. Only a token makes it wait."""
        if tolerance or settle:
            raise CrfInputError("a GPU has neither tolerance nor settle: leave them 0, or use the CPU")
        assert self._unary is not None, "no unary has been set"
        if self._q is None:
            self._q = self._queue.allocate(self._points * self._lanes, np.float32)
        if not warm:
            self._queue_slice(0)
        for done in range(1, iterations + 1):
            if done > 1 and self._update is None:  # CUDA has loaded all kernels in the first update
                self._update = self._capture()
            if self._update is None:
                self._queue_update()
            else:
                self._queue.driver.launch(self._update, self._queue.stream)
            if token is not None:
                self._queue.synchronize()
                if token.cancelled:
                    return done, True
        return iterations, False

    def _capture(self) -> int:
        driver, stream = self._queue.driver, self._queue.stream
        driver.begin_capture(stream)
        try:
            self._queue_update()
        finally:
            graph = driver.end_capture(stream)
        try:
            return driver.instantiate(graph)
        finally:
            driver.destroy_graph(graph)

    def _queue_update(self) -> None:
        for term in self._terms:
            gains = term.lattice.gains
            queue_filter(self._queue.launch, term.lattice, self._q, gains, self.labels, self._lanes, term.rows)
        self._queue_slice(len(self._terms))

    def _queue_slice(self, terms: int) -> None:
        """Queue the softmax of the unary and the messages of the terms."""
        if terms and self._table is None:
            self._table = self._queue.upload(self._describe_terms())
        stride = self.labels | 1
        group = min(_MOST_POINTS, _MOST_VALUES // stride)
        rest = (terms, self._points, self.labels, self._lanes, self._q)
        self._queue.launch("update", self._points, self._unary, self._table, *rest, share=group)

    def _describe_terms(self) -> npt.NDArray[Any]:
        table = np.zeros(len(self._terms), TERM)
        for row, term in zip(table, self._terms, strict=True):
            lattice = term.lattice
            row["slices"], row["compatibility"] = lattice.slices.address, term.compatibility.address
            row["rows"] = term.rows[lattice.corners % 2].address  # each axis of the blur changes the array
            row["factors"] = lattice.factors.address if lattice.factors is not None else 0
            row["corners"], row["kind"], row["alpha"] = lattice.corners, term.kind, lattice.alpha
        return table

    def marginals_on_device(self, shape: tuple[int, ...]) -> DeviceArray:
        """The marginals, (L, *shape) float32."""
        block = self._queue.allocate(self._points * self.labels, np.float32)
        sizes = (self._points, self.labels, self._lanes)
        self._queue.launch("write_marginals", self._points * self.labels, self._q, *sizes, block)
        return DeviceArray(self._queue, block.address, (self.labels, *shape), np.float32, block)

    def labels_on_device(self, shape: tuple[int, ...]) -> DeviceArray:
        """The label of the highest marginal."""
        dtype = find_label_dtype(self.labels)
        block = self._queue.allocate(self._points, dtype)
        sizes = (self._points, self.labels, self._lanes)
        self._queue.launch("write_labels", self._points, self._q, *sizes, block)
        return DeviceArray(self._queue, block.address, shape, dtype, block)

    def load_marginals(self, values: FloatArray) -> None:
        """Replace the marginals by (L, N)."""
        rows = np.zeros((self._points, self._lanes), np.float32)
        rows[:, : self.labels] = values.T
        self._forget_update()  # which has the old address
        self._q = self._queue.upload(rows)

    @property
    def size_bytes(self) -> int:
        """Device memory of unary, marginals and rows."""
        rows = [block for term in self._terms for block in (*term.rows, term.compatibility)]
        return sum(block.size_bytes for block in (self._unary, self._q, *rows) if block is not None)

    @property
    def kernels(self) -> str:
        """The GPU's architecture."""
        return self._queue.driver.architecture
