"""Which axes of which blobs may change size: found by laying the net out again at other input sizes.

Three symbols are tried: batch, height and width. Inputs whose size agrees with the first image input along an axis
change with it. A symbol is dynamic where the net accepts other sizes with unchanged parameter shapes, for height and
width a much larger one among them: weights for one size let a few more pass, which rounding hides. A blob's axis is
dynamic where its size differs in any accepted layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from ...errors import NetError
from ..graph.build import reshape_net
from ..graph.net import Blob, Net, Shape

#: symbol -> the axis of an image input that it is
SYMBOLS = {"batch": 0, "height": 2, "width": 3}
#: a net that takes height or width at will takes so many pixels more
LARGER = 32


@dataclass(frozen=True)
class DynamicAxes:
    """The result.

    Attributes:
        blobs: id of a blob -> for each axis its name, or None where it is fixed. The name is that of a symbol where the
            size is the input's own, else `<blob>_<axis>`.
    """

    blobs: dict[int, tuple[str | None, ...]]

    def names(self, blob: Blob) -> tuple[str | None, ...]:
        """For each axis of a blob of the net, its name if it is dynamic, else None."""
        return self.blobs[id(blob)]

    def of(self, blob: Blob) -> tuple[bool, ...]:
        """For each axis of a blob of the net, whether it is dynamic."""
        return tuple(name is not None for name in self.blobs[id(blob)])

    def sizes(self, blob: Blob) -> list[str | int]:
        """The blob's shape with names in the place of sizes that may change."""
        return [size if name is None else name for name, size in zip(self.names(blob), blob.shape, strict=True)]


#: a net does not change, and every file written of it asks for its axes
_FOUND: WeakKeyDictionary[Net, DynamicAxes] = WeakKeyDictionary()


def find_dynamic_axes(net: Net) -> DynamicAxes:
    """Probe the net at other sizes (once a net); see the module docstring."""
    if net not in _FOUND:
        _FOUND[net] = _probe_axes(net)
    return _FOUND[net]


def _probe_axes(net: Net) -> DynamicAxes:
    blobs = net.blobs()
    names: list[list[str | None]] = [[None] * len(blob.shape) for blob in blobs]
    reference = next((blob for blob in net.inputs if len(blob.shape) == 4), net.inputs[0] if net.inputs else None)
    if reference is not None:
        for symbol, axis in SYMBOLS.items():
            accepted = list(_probe(net, reference, axis))
            if axis > 0 and all(size < reference.shape[axis] + LARGER for size, _ in accepted):
                continue
            for size, other in accepted:
                for found, blob, probed in zip(names, blobs, other.blobs(), strict=True):
                    _compare(found, blob, probed, symbol, (reference.shape[axis], size))
    return DynamicAxes({id(blob): tuple(found) for blob, found in zip(blobs, names, strict=True)})


def _compare(found: list[str | None], blob: Blob, probed: Blob, symbol: str, change: tuple[int, int]) -> None:
    """Name the axes of a blob that differ when the input's size along `symbol` goes through `change`."""
    if len(blob.shape) != len(probed.shape):
        found[:] = [f"{blob.name}_{axis}" for axis in range(len(found))]
        return
    for axis, sizes in enumerate(zip(blob.shape, probed.shape, strict=True)):
        if sizes[0] != sizes[1]:
            follows = sizes == change and found[axis] in (None, symbol)
            found[axis] = symbol if follows else f"{blob.name}_{axis}"
        elif found[axis] == symbol:
            found[axis] = f"{blob.name}_{axis}"


def _probe(net: Net, reference: Blob, axis: int) -> Iterator[tuple[int, Net]]:
    """Other sizes of the reference along an axis that the net takes, each with the net at it."""
    if axis >= len(reference.shape) or (axis > 0 and len(reference.shape) != 4):
        return
    size = reference.shape[axis]
    parameters = net.parameter_shapes()
    multiple = size * (1 + -(-LARGER // size))  # for layers that take multiples of 3, 5, 7, ... only
    larger = (multiple, size + LARGER, 2 * size + LARGER)
    candidates = (size + 1, size + 2) if axis == 0 else (size + 1, size + 8, size + 16, *larger)
    for candidate in dict.fromkeys(candidates):
        shapes = {blob.name: _resized(blob.shape, axis, size, candidate) for blob in net.inputs}
        try:
            other = reshape_net(net, shapes)
        except NetError:
            continue
        if other.parameter_shapes() == parameters:
            yield candidate, other


def _resized(shape: Shape, axis: int, size: int, candidate: int) -> Shape:
    if axis >= len(shape) or shape[axis] != size or (axis > 0 and len(shape) != 4):
        return shape
    return (*shape[:axis], candidate, *shape[axis + 1 :])
