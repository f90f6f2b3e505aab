"""Which axes of which blobs may change size: found by laying the net out again at other input sizes.

Three symbols are tried: batch, height and width. Inputs whose size agrees with the first image input along an axis
change with it. A symbol is dynamic where the net accepts some other size with unchanged parameter shapes; a blob's
axis is dynamic where its size differs in any accepted layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .errors import NetError
from .net import Blob, Net, Shape

SYMBOLS = ("batch", "height", "width")
_AXIS = {"batch": 0, "height": 2, "width": 3}


@dataclass(frozen=True)
class DynamicAxes:
    """The result.

    Attributes:
        symbols: the dynamic symbols among batch, height and width.
        inputs: input name -> for each axis its symbol, or None where it is fixed.
        blobs: for each blob (by recording order of inputs, then tops) whether each axis is dynamic.
    """

    symbols: tuple[str, ...]
    inputs: dict[str, tuple[str | None, ...]]
    blobs: dict[int, tuple[bool, ...]]

    def of(self, blob: Blob) -> tuple[bool, ...]:
        """For each axis of a blob of the net, whether it is dynamic."""
        return self.blobs[id(blob)]


def all_blobs(net: Net) -> list[Blob]:
    """Inputs, then tops in execution order."""
    return [*net.inputs, *(top for layer in net.layers for top in layer.tops)]


def find_dynamic_axes(net: Net) -> DynamicAxes:
    """Probe the net at other sizes; see the module docstring."""
    reference = next((blob for blob in net.inputs if len(blob.shape) == 4), net.inputs[0] if net.inputs else None)
    blobs = all_blobs(net)
    moving = [[False] * len(blob.shape) for blob in blobs]
    symbols = []
    if reference is not None:
        for symbol in SYMBOLS:
            accepted = False
            for other in _probe(net, reference, symbol):
                accepted = True
                for flags, blob, probed in zip(moving, blobs, all_blobs(other), strict=True):
                    if len(blob.shape) != len(probed.shape):
                        flags[:] = [True] * len(flags)
                    else:
                        for axis, (size, new) in enumerate(zip(blob.shape, probed.shape, strict=True)):
                            flags[axis] = flags[axis] or size != new
            if accepted:
                symbols.append(symbol)
    inputs = {
        blob.name: tuple(_symbol_of(axis, moves) for axis, moves in enumerate(flags))
        for blob, flags in zip(net.inputs, moving, strict=False)
    }
    return DynamicAxes(
        tuple(symbols), inputs, {id(blob): tuple(flags) for blob, flags in zip(blobs, moving, strict=True)}
    )


def _symbol_of(axis: int, moves: bool) -> str | None:
    return next((symbol for symbol, a in _AXIS.items() if a == axis), f"axis{axis}") if moves else None


def _probe(net: Net, reference: Blob, symbol: str) -> Iterator[Net]:
    axis = _AXIS[symbol]
    if axis >= len(reference.shape):
        return
    size = reference.shape[axis]
    parameters = net.parameter_shapes()
    candidates = (size + 1, size + 2) if symbol == "batch" else (size + 1, size + 8, size + 16, size + 32, 2 * size)
    for candidate in candidates:
        shapes = {blob.name: _resized(blob.shape, axis, size, candidate) for blob in net.inputs}
        try:
            other = net.reshape(shapes)
        except NetError:
            continue
        if other.parameter_shapes() == parameters:
            yield other


def _resized(shape: Shape, axis: int, size: int, candidate: int) -> Shape:
    if axis >= len(shape) or shape[axis] != size or (axis > 0 and len(shape) != 4):
        return shape
    return (*shape[:axis], candidate, *shape[axis + 1 :])
