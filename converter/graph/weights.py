"""Matches a weights file to a net by Caffe's rules, and reports what Caffe ignores.

1. A layer of the file belongs to the net's first layer of that name; file layers without one are reported.
2. The number of blobs and each shape must match; ones are ignored, as legacy shapes are 4-D and some forks and tools
   write (1, C, 1, 1). They do not change the order of the numbers.
3. With `strict_dim: false` (DeepLab v1) only the element count must match.
4. Every layer with a shared blob writes it; the last one in the file wins. HDF5 files leave repetitions out.
5. A layer that the file lacks is an error, or on request keeps its fillers, as in Caffe; a missing blob is an error.
6. NaN and infinite values are an error (Caffe would compute with them).
7. A layer type may take other orders and shapes of blobs (`Operator.adapt_blobs`): those of NVCaffe's BatchNorm.
"""

from __future__ import annotations

import difflib
import math
import mmap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import WeightsError
from .net import FloatArray, Layer, Net, ParameterKey, Shape

CHUNK_ELEMENTS = 1 << 20
"""Weights are read in pieces of this size, so that the pages of a mapped file do not pile up."""
#: a layer's arrays in order, or by index where shared ones may be left out
Blobs = Sequence[Any] | Mapping[int, Any]


@dataclass(frozen=True)
class MatchedWeights:
    """Arrays for every parameter of a net, except of filled layers."""

    parameters: dict[ParameterKey, FloatArray]
    extra_layers: tuple[str, ...]  # layers of the file that the net lacks
    filled_layers: tuple[str, ...] = ()  # layers that the file lacks
    notes: tuple[str, ...] = ()  # warnings


def match_weights(
    net: Net, layers: Iterable[tuple[str, Blobs]], *, source: str, fill_missing: bool = False
) -> MatchedWeights:
    """Assign an array to every parameter blob of the net.

    Args:
        net: the net.
        layers: (layer name, its arrays) in the order of the file. Arrays keep the file's shapes.
        source: the file, for messages.
        fill_missing: layers that the file lacks keep their fillers.

    Raises:
        WeightsError: missing, surplus or misshapen blobs.
    """
    targets: dict[str, Layer] = {}
    for layer in net.layers:
        targets.setdefault(layer.name, layer)
    parameters: dict[ParameterKey, FloatArray] = {}
    extra: list[str] = []
    problems: list[tuple[str, str]] = []
    notes: list[str] = []
    for name, blobs in layers:
        if not blobs:
            continue
        target = targets.get(name)  # rule 1
        if target is None:
            extra.append(name)
            continue
        problem = _assign(target, blobs, parameters, notes)
        if problem:
            problems.append((name, problem))
    faulty = {name for name, _ in problems}
    filled = []
    for layer in net.layers:  # rule 5
        if layer.name in faulty or all(key in parameters for key in layer.parameters):
            continue
        first = targets[layer.name]
        if fill_missing and first is layer and not any(key in parameters for key in layer.parameters):
            filled.append(layer.name)
            continue
        candidates = extra if len(problems) < 3 else []  # the message shows three; each comparison is slow
        problems.append((layer.name, _describe_missing(layer, first, candidates)))
    if problems:
        raise WeightsError(source, problems, remedy=_find_remedy(faulty, filled or extra))
    return MatchedWeights(parameters, tuple(extra), tuple(filled), tuple(notes))


def _find_remedy(faulty: set[str], surplus: Sequence[str]) -> str:
    """The advice for a file: of another net, where layers do not fit or are surplus; else only some are missing."""
    if faulty or surplus:
        return "give the prototxt these weights were trained with"
    return "give the weights of this prototxt, or --missing fill to give these layers the values of their fillers"


def _assign(layer: Layer, blobs: Blobs, parameters: dict[ParameterKey, FloatArray], notes: list[str]) -> str | None:
    """Write a file layer's blobs into `parameters` (rules 4 and 7); returns the reason where they do not fit."""
    shapes = layer.operator.weight_shapes()
    numbered = dict(blobs) if isinstance(blobs, Mapping) else dict(enumerate(blobs))
    numbered, note = layer.operator.adapt_blobs(numbered)
    if note is not None:
        notes.append(f'layer "{layer.name}": {note}')
    own = {index for index, key in enumerate(layer.parameters) if key.attribute == layer.attribute}
    needed = own if isinstance(blobs, Mapping) else set(range(len(shapes)))
    if not needed <= numbered.keys() or not numbered.keys() <= set(range(len(shapes))):
        return f"the file has {len(numbered)} blob(s), the net has {len(shapes)}"
    strict = not (layer.message.HasField("strict_dim") and not layer.message.strict_dim)
    for index, blob in numbered.items():
        array, shape = np.asarray(blob), shapes[index]
        fits = _without_ones(array.shape) == _without_ones(shape)
        if not (fits if strict else array.size == math.prod(shape)):
            return f"blob {index} has shape {tuple(array.shape)} in the file, {tuple(shape)} in the net"
        if array.dtype != np.float32:
            array = array.astype(np.float32)
        parameters[layer.parameters[index]] = array.reshape(shape)
    return None


def _without_ones(shape: Sequence[int]) -> Shape:
    return tuple(size for size in shape if size != 1)


def _describe_missing(layer: Layer, first: Layer, extra: Sequence[str]) -> str:
    if first is not layer:
        return "a layer before it has the same name, and with it the blobs of the file; give it a name of its own"
    near = difflib.get_close_matches(layer.name, extra, 1)
    hint = f'; it has "{near[0]}"' if near else ""
    return f"the file has no blobs of this name{hint}"


def require_finite(net: Net) -> None:
    """Check every parameter of the net (rule 6); the WeightsError lists each blob with NaN or infinite values."""
    problems = []
    for layer in net.layers:
        for index, key in enumerate(layer.parameters):
            blob = net.parameters.get(key)
            if blob is None or key.attribute != layer.attribute:
                continue
            values = blob.reshape(-1)
            count = 0
            for start in range(0, values.size, CHUNK_ELEMENTS):
                chunk = values[start : start + CHUNK_ELEMENTS]
                count += chunk.size - int(np.isfinite(chunk).sum())
                release_pages(chunk)
            if count:
                problems.append((layer.name, f"blob {index} has {count} of {blob.size}"))
    if problems:
        raise WeightsError(
            f'net "{net.name}"',
            problems,
            fault="has NaN or infinite weights",
            remedy="training diverged or the file is damaged: take another snapshot",
        )


def release_pages(array: FloatArray) -> None:
    """Release the mapped pages under an array until they are read again; does nothing for ordinary memory."""
    base: object = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if not isinstance(base, mmap.mmap) or not hasattr(base, "madvise"):
        return
    origin = np.frombuffer(base, np.uint8, count=1).__array_interface__["data"][0]
    start = array.__array_interface__["data"][0] - origin
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (start + array.nbytes - first) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:
        base.madvise(mmap.MADV_DONTNEED, first, length)
