"""Calibration: value ranges and histograms of a graph on images, and the range that codes of a value cover.

Images go in as they are, uint8 N x H x W x 3; the graph's own preprocessing prepares them. Ranges are reduced inside
the graph. Histograms need a second run, once the range is known, and are counted a few values at a time, so that memory
is bounded by the largest values. All ranges are symmetric, [-r, r]: TensorRT supports no others.

minmax      r is the largest magnitude observed. Nothing is clipped; one outlier makes every step coarse.
percentile  r is the lowest bin edge below which p percent of all numbers lie, zeros included.
entropy     r minimizes the Kullback-Leibler divergence between the histogram clipped at r and its form in 128 levels:
            for each candidate r at a bin edge, the numbers beyond r are added to the last bin (P), and each of the 128
            equal groups of bins distributes its count equally over its nonempty bins (Q). Exact zeros are left out:
            every range represents them exactly, and after a ReLU they would outweigh all other numbers.

The calibrators of `onnxruntime.quantization` are not used: only its min-max gives the same numbers (the tests compare
them), but ignores NaN and the number of threads, while its percentile and entropy give others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ...errors import PrecisionError
from .graph import list_floats, make_feed, open_session
from .images import Array
from .options import Method

BINS = 2048
LEVELS = 128
#: count of an empty bin of Q where P is not empty
_EMPTY = 1e-4
#: size limit of the values fetched in one run; a larger value is fetched alone
_FETCH_BYTES = 128 << 20


@dataclass
class Observed:
    """Range of a value: largest magnitude, least value, and its number of elements on the largest image."""

    largest: float = 0.0
    least: float = float("inf")
    size: int = 0


@dataclass
class Histogram:
    """Magnitudes of a value: (BINS,) counts over equal bins from 0 to `largest`, exact zeros counted apart."""

    counts: NDArray[np.int64]
    largest: float
    zeros: int = 0

    def add(self, values: Array) -> None:
        """Count numbers of any shape; those beyond the range go to the last bin."""
        magnitudes = np.abs(values.ravel())
        magnitudes = magnitudes[magnitudes > 0]
        self.zeros += values.size - magnitudes.size
        places = (magnitudes * np.float32(len(self.counts) / self.largest)).astype(np.int32)
        np.minimum(places, len(self.counts) - 1, out=places)
        self.counts += np.bincount(places, minlength=len(self.counts))


def observe(
    model: onnx.ModelProto,
    images: Iterable[Array],
    *,
    threads: int | None = None,
    advance: Callable[[int], None] = lambda steps: None,
) -> dict[str, Observed]:
    """Observe the range and the size of every float value of the main graph on H x W x 3 uint8 RGB images.

    Raises PrecisionError if a value is not finite on one of the images.
    """
    names = list(list_floats(model))
    watched = _copy_without_outputs(model)
    for place, name in enumerate(names):
        at = f"watch/{place}"
        watched.graph.node.extend(
            [
                helper.make_node("ReduceMin", [name], [f"{at}/least"], keepdims=0),
                helper.make_node("ReduceMax", [name], [f"{at}/most"], keepdims=0),
                helper.make_node("Size", [name], [f"{at}/size"]),
                # 0, or NaN if any element is not finite: ONNX Runtime's ReduceMin and ReduceMax skip NaN
                helper.make_node("Sub", [name, name], [f"{at}/zeros"]),
                helper.make_node("ReduceSum", [f"{at}/zeros"], [f"{at}/finite"], keepdims=0),
            ]
        )
        for part in ("least", "most", "size", "finite"):
            kind = TensorProto.INT64 if part == "size" else TensorProto.FLOAT
            watched.graph.output.append(helper.make_tensor_value_info(f"{at}/{part}", kind, []))
    session = open_session(watched, threads=threads)
    seen = {name: Observed() for name in names}
    for image in images:
        results = session.run(None, {model.graph.input[0].name: make_feed(model, image)})
        for place, (name, entry) in enumerate(seen.items()):
            least, most, size, finite = (result.item() for result in results[4 * place : 4 * place + 4])
            if finite != 0:
                raise PrecisionError(f"{name} is not finite on an image: the float32 net itself overflows there")
            entry.largest = max(entry.largest, abs(least), abs(most))
            entry.least, entry.size = min(entry.least, least), max(entry.size, size)
        advance(1)
    return seen


def count_histograms(
    model: onnx.ModelProto,
    names: Sequence[str],
    seen: dict[str, Observed],
    images: Sequence[Array],
    *,
    threads: int | None = None,
    advance: Callable[[int], None] = lambda steps: None,
) -> dict[str, Histogram]:
    """Count the histograms of some values over all images; `advance` is called with 1 after each image."""
    watched = _copy_without_outputs(model)
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = open_session(watched, threads=threads)
    histograms = {name: Histogram(np.zeros(BINS, np.int64), seen[name].largest or 1.0) for name in names}
    groups = _group(names, seen)
    for image in images:
        feeds = {model.graph.input[0].name: make_feed(model, image)}
        for group in groups:
            for name, value in zip(group, session.run(group, feeds), strict=True):
                histograms[name].add(value)
        advance(1)
    return histograms


def _copy_without_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    return copy


def _group(names: Sequence[str], seen: dict[str, Observed]) -> list[list[str]]:
    """Split values into groups of at most `_FETCH_BYTES`."""
    groups: list[list[str]] = [[]]
    held = 0
    for name in names:
        size_bytes = 4 * seen[name].size
        if groups[-1] and held + size_bytes > _FETCH_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size_bytes
    return groups


def choose_range(histogram: Histogram, method: Method, percentile: float = 99.99) -> float:
    """Choose the largest magnitude to cover; see the module docstring. `minmax` needs no counts."""
    if method == "minmax":
        return histogram.largest
    return find_percentile(histogram, percentile) if method == "percentile" else find_least_divergence(histogram)


def find_percentile(histogram: Histogram, percentile: float) -> float:
    """Find the lowest bin edge that a percentage of the numbers, zeros included, does not exceed."""
    below = histogram.zeros + np.cumsum(histogram.counts)
    place = int(np.searchsorted(below, int(below[-1]) * (percentile / 100)))
    return histogram.largest * (min(place, len(below) - 1) + 1) / len(below)


def find_least_divergence(histogram: Histogram) -> float:
    """Find the bin edge whose clipped and coarsened histogram is closest to the full one."""
    counts = histogram.counts.astype(np.float64)
    total = len(counts)
    if not counts.any():
        return histogram.largest
    beyond = counts.sum() - np.cumsum(counts)
    divergences = [measure_divergence(counts[:kept], beyond[kept - 1]) for kept in range(LEVELS, total + 1)]
    return histogram.largest * (LEVELS + int(np.argmin(divergences))) / total


def measure_divergence(kept: NDArray[np.float64], clipped: Any) -> float:
    """Measure KL(P || Q) in nats of a histogram with `clipped` numbers beyond it against its 128-level form."""
    p = kept.copy()
    p[-1] += clipped
    group = np.arange(len(kept)) * LEVELS // len(kept)  # the level of each bin
    full = kept > 0
    sums = np.bincount(group, kept, LEVELS)
    shares = np.bincount(group, full, LEVELS)
    q = np.where(full, (sums / np.maximum(shares, 1))[group], 0.0)
    held = p > 0
    if not q.any():
        return float("inf")
    p, q = p[held] / p.sum(), np.where(q > 0, q / q.sum(), _EMPTY / p.sum())[held]
    return float(np.sum(p * np.log(p / q)))
