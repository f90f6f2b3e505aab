"""The axes whose size may change, of every blob: from one pass over the net with symbols for sizes (see `graph.sizes`).

Three symbols: batch, height and width of the first image input; inputs whose size agrees with it along an axis change
with it. Weights fix the sizes they depend on. A symbol is dynamic where the net accepts infinitely many values of it,
the others as they are; a blob's axis where its size differs between accepted values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast
from weakref import WeakKeyDictionary

import numpy as np

from ..graph.build import build_net
from ..graph.net import Blob, Net, Shape
from ..graph.size_proofs import Accepted, UnsettledError, find_accepted, find_tail
from ..graph.sizes import Size, Trace

#: symbol -> the axis of an image input that it is
SYMBOLS = {"batch": 0, "height": 2, "width": 3}


class DynamicAxes:
    """The sizes of a net's blobs as expressions.

    Attributes:
        trace: their symbols and the guards under which they hold.
        fixed: symbol -> its size, where the net takes that one only.
    """

    def __init__(self, net: Net) -> None:
        self.trace = Trace()
        reference = next((blob for blob in net.inputs if len(blob.shape) == 4), net.inputs[0] if net.inputs else None)
        symbols = {
            axis: self.trace.symbol(name, reference.shape[axis])
            for name, axis in SYMBOLS.items()
            if reference is not None and (len(reference.shape) == 4 or axis < min(1, len(reference.shape)))
        }
        shapes = {blob.name: _name_sizes(blob.shape, symbols) for blob in net.inputs}
        traced = build_net(net.definition, shapes, tolerant=True)
        for shape in traced.parameter_shapes().values():
            list(map(int, shape))  # weights have one size
        self.trace.is_closed = True
        own = {name: symbols[axis].value for name, axis in SYMBOLS.items() if axis in symbols}
        accepted = {name: self._find_accepted(name, {k: v for k, v in own.items() if k != name}) for name in own}
        self.fixed = {name: own[name] for name, sizes in accepted.items() if sizes is None}
        self._accepted = {name: sizes for name, sizes in accepted.items() if sizes is not None}
        self._shapes: dict[Blob, Shape] = {}
        self._names: dict[Blob, tuple[str | None, ...]] = {}
        for blob, twin in zip(net.blobs(), traced.blobs(), strict=True):
            axes = [self._name_axis(size, f"{blob.name}_{axis}") for axis, size in enumerate(twin.shape)]
            self._shapes[blob] = tuple(size for size, _ in axes)
            self._names[blob] = tuple(name for _, name in axes)

    def _find_accepted(self, symbol: str, others: Mapping[str, int]) -> Accepted | None:
        """The sizes that the net accepts along a symbol; None where they are finitely many."""
        try:
            accepted = find_accepted(self.trace, self.trace.restrict(self.trace.guards, others), symbol)
        except UnsettledError:
            return None
        return accepted if accepted.is_infinite else None

    def _name_axis(self, size: int, own_name: str) -> tuple[int, str | None]:
        """A size with fixed symbols put in, and its name if it is dynamic."""
        size = self.trace.at(size, self.fixed)
        if not isinstance(size, Size):
            return size, None
        (symbol, *others) = sorted(self.trace.symbols(size.terms))
        if others or any(atom.kind == "run time" for atom in self.trace.find_atoms(size.terms)):
            return size, own_name
        try:
            tail = find_tail(self.trace, size.terms, symbol)
        except UnsettledError:
            return size, own_name
        accepted = self._accepted[symbol]
        start, period = max(tail.start, accepted.start), np.lcm(tail.period, accepted.period)
        sizes = np.arange(1, start + period * (tail.degree + 2))
        sizes = sizes[accepted.at(sizes)]
        values = self.trace.at(size, {symbol: sizes})
        if (values == size.value).all():
            return size.value, None
        return size, symbol if (values == sizes).all() else own_name

    def names(self, blob: Blob) -> tuple[str | None, ...]:
        """For each axis of a blob of the net, its name if it is dynamic, else None.

        The name is that of a symbol where the size is always the input's own, else `<blob>_<axis>`.
        """
        return self._names[blob]

    def of(self, blob: Blob) -> tuple[bool, ...]:
        """For each axis of a blob of the net, whether it is dynamic."""
        return tuple(name is not None for name in self.names(blob))

    def sizes(self, blob: Blob) -> list[str | int]:
        """The blob's shape with names in the place of sizes that may change."""
        return [size if name is None else name for name, size in zip(self.names(blob), blob.shape, strict=True)]

    def shape(self, blob: Blob) -> Shape:
        """The blob's shape with a Size in the place of sizes that may change."""
        return self._shapes[blob]

    def shape_at(self, blob: Blob, sizes: Mapping[str, int]) -> Shape:
        """The blob's shape at these values of symbols that the net accepts; symbols not given keep theirs."""
        return tuple(self.trace.at(size, {**self.trace.values, **sizes}) for size in self.shape(blob))

    def accepts(self, sizes: Mapping[str, int]) -> bool:
        """Whether the net accepts these values of its symbols; symbols not given keep theirs."""
        values = {**self.trace.values, **sizes}
        same = all(values[name] == size for name, size in self.fixed.items())
        return same and not self.trace.restrict(self.trace.guards, values)


def _name_sizes(shape: Shape, symbols: Mapping[int, Size]) -> Shape:
    """An input's shape with symbols in the place of the sizes that it shares with the reference."""
    varying = symbols.keys() if len(shape) == 4 else {0}
    same = [axis in varying and axis in symbols and symbols[axis].value == size for axis, size in enumerate(shape)]
    return tuple(cast(int, symbols[axis]) if same[axis] else size for axis, size in enumerate(shape))


#: a net does not change, and every file written of it asks for its axes
_FOUND: WeakKeyDictionary[Net, DynamicAxes] = WeakKeyDictionary()


def find_dynamic_axes(net: Net) -> DynamicAxes:
    """The dynamic axes of a net, found once."""
    if net not in _FOUND:
        _FOUND[net] = DynamicAxes(net)
    return _FOUND[net]
