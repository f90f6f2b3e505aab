"""What values a graph computes on images: their largest magnitudes, their signs, their histograms.

Images go in as the user's own, uint8 N x H x W x 3; the graph prepares them itself, so what is observed is what will
be computed. Magnitudes are reduced inside the graph. Histograms take a second run, when the range is known, and are
counted a few values at a time, so that a large net needs no more memory than its largest blobs.
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
from .graph_values import list_floats, open_session

Array = NDArray[Any]
BINS = 2048
#: values fetched in one run have at most so many bytes, or are alone
_FETCH_BYTES = 128 << 20


@dataclass
class Observed:
    """What was seen of one value.

    Attributes:
        largest: its largest magnitude.
        least: its least value.
        size: how many numbers it has on the largest image.
    """

    largest: float = 0.0
    least: float = float("inf")
    size: int = 0


@dataclass
class Histogram:
    """Magnitudes of a value, counted.

    Attributes:
        counts: (BINS,) int64 over equal bins from 0 to `largest`; exact zeros are not in it.
        largest: the right end of the last bin.
        zeros: how many numbers were exactly 0.
    """

    counts: NDArray[np.int64]
    largest: float
    zeros: int = 0

    def add(self, values: Array) -> None:
        """Count numbers of any shape; those beyond the range go to the last bin."""
        magnitudes = np.abs(values.ravel())
        magnitudes = magnitudes[magnitudes > 0]
        self.zeros += values.size - magnitudes.size
        if magnitudes.size:
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
    """Largest magnitude, least value and size of every float value of the main graph.

    Args:
        model: a float32 deployment graph.
        images: each H x W x 3 uint8 RGB.
        threads: of one run.
        advance: called with 1 after each image.

    Raises:
        PrecisionError: a value is not finite on one of the images.
    """
    names = list(list_floats(model))
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    for place, name in enumerate(names):
        watched.graph.node.extend(
            [
                helper.make_node("Abs", [name], [f"watch/{place}/abs"]),
                helper.make_node("ReduceMax", [f"watch/{place}/abs"], [f"watch/{place}/largest"], keepdims=0),
                helper.make_node("ReduceMin", [name], [f"watch/{place}/least"], keepdims=0),
                helper.make_node("Size", [name], [f"watch/{place}/size"]),
            ]
        )
        for kind, dtype in (("largest", TensorProto.FLOAT), ("least", TensorProto.FLOAT), ("size", TensorProto.INT64)):
            watched.graph.output.append(helper.make_tensor_value_info(f"watch/{place}/{kind}", dtype, []))
    session = open_session(watched, threads=threads)
    image_name = model.graph.input[0].name
    seen = {name: Observed() for name in names}
    for image in images:
        results = session.run(None, {image_name: image[None]})
        for place, name in enumerate(names):
            largest, least, size = (result.item() for result in results[3 * place : 3 * place + 3])
            if not np.isfinite(largest):
                raise PrecisionError(f"{name} is not finite on an image: the float32 net itself overflows there")
            entry = seen[name]
            entry.largest, entry.least = max(entry.largest, largest), min(entry.least, least)
            entry.size = max(entry.size, size)
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
    """Histograms of some values over all images; `advance` is called with 1 after each image."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    for name in names:
        watched.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = open_session(watched, threads=threads)
    histograms = {name: Histogram(np.zeros(BINS, np.int64), seen[name].largest or 1.0) for name in names}
    groups = _group(names, seen)
    for image in images:
        for group in groups:
            for name, value in zip(group, session.run(group, {model.graph.input[0].name: image[None]}), strict=True):
                histograms[name].add(value)
        advance(1)
    return histograms


def _group(names: Sequence[str], seen: dict[str, Observed]) -> list[list[str]]:
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
