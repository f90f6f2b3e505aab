"""The axes whose size may change, of every blob: from one pass over the net with symbols for sizes (see `graph.sizes`).

Three symbols: batch, height and width of the first image input; inputs whose size agrees with it along an axis change
with it. Weights fix the sizes they depend on. A symbol is dynamic where the net accepts infinitely many values of it,
the others as they are; a blob's axis where its size differs between accepted values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from weakref import WeakKeyDictionary

from ..graph.build import build_net
from ..graph.net import Blob, Net, Shape
from ..graph.size_proofs import Accepted, UnsettledError, find_accepted, sample_accepted
from ..graph.sizes import Size, Terms, Trace, concrete

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
        inputs = [blob.shape for blob in net.inputs]
        reference = next((shape for shape in inputs if len(shape) == 4), inputs[0] if inputs else ())
        axes = SYMBOLS if len(reference) == 4 else {"batch": 0} if reference else {}
        symbols = {axis: self.trace.symbol(name, reference[axis]) for name, axis in axes.items()}
        shapes = {blob.name: _put_symbols(blob.shape, symbols) for blob in net.inputs}
        traced = build_net(net.definition, shapes, tolerant=True)
        for shape in traced.parameter_shapes().values():
            tuple(map(int, shape))  # weights fix the sizes that they depend on
        self.trace.is_closed = True
        accepted = {name: self._find_accepted(name) for name in axes}
        self._accepted = {name: sizes for name, sizes in accepted.items() if sizes is not None}
        self.fixed = {name: size for name, size in self.trace.values.items() if name not in self._accepted}
        self._known: dict[Terms, tuple[int, str | None]] = {}
        #: sizes that depend on the data stay, whatever their bounds become
        self._run_time = {
            number: Size(self.trace, (((number,), 1),), concrete(self.trace.at(atom.operands[0], self.trace.values)))
            for number, atom in enumerate(self.trace.atoms)
            if atom.kind == "run time"
        }
        self._axes = {
            blob: [
                (size, f"{blob.name}_{axis}" if name == "" else name)
                for axis, (size, name) in enumerate(map(self._describe, twin.shape))
            ]
            for blob, twin in zip(net.blobs(), traced.blobs(), strict=True)
        }

    def _find_accepted(self, symbol: str) -> Accepted | None:
        """The sizes that the net accepts along a symbol; None where they are finitely many."""
        others = {name: size for name, size in self.trace.values.items() if name != symbol}
        try:
            accepted = find_accepted(self.trace, self.trace.restrict(self.trace.guards, others), symbol)
        except UnsettledError:
            return None
        return accepted if accepted.is_infinite else None

    def _describe(self, size: int) -> tuple[int, str | None]:
        """A size with fixed symbols put in, and its name: None if it never changes, "" if it is equal to no symbol."""
        if not isinstance(size, Size):
            return size, None
        if size.terms not in self._known:
            self._known[size.terms] = self._describe_expression(self.trace.at(size, self.fixed, dict(self._run_time)))
        return self._known[size.terms]

    def _describe_expression(self, size: Any) -> tuple[int, str | None]:
        symbols = self.trace.symbols(size.terms) if isinstance(size, Size) else None
        if symbols is None:
            return size, None
        if len(symbols) != 1 or any(atom.kind == "run time" for atom in self.trace.find_atoms(size.terms)):
            return size, ""
        (symbol,) = symbols
        try:
            sizes, values = sample_accepted(self.trace, size.terms, symbol, self._accepted[symbol])
        except UnsettledError:
            return size, ""
        if (values == size.value).all():
            return size.value, None
        return size, symbol if (values == sizes).all() else ""

    def names(self, blob: Blob) -> tuple[str | None, ...]:
        """For each axis of a blob of the net, its name if it is dynamic, else None.

        The name is that of a symbol where the size is always the input's own, else `<blob>_<axis>`.
        """
        return tuple(name for _, name in self._axes[blob])

    def of(self, blob: Blob) -> tuple[bool, ...]:
        """For each axis of a blob of the net, whether it is dynamic."""
        return tuple(name is not None for name in self.names(blob))

    def sizes(self, blob: Blob) -> list[str | int]:
        """The blob's shape with names in the place of sizes that may change."""
        return [size if name is None else name for name, size in zip(self.names(blob), blob.shape, strict=True)]

    def shape(self, blob: Blob) -> Shape:
        """The blob's shape with a Size in the place of sizes that may change."""
        return tuple(size for size, _ in self._axes[blob])

    def shape_at(self, blob: Blob, sizes: Mapping[str, int]) -> Shape:
        """The blob's shape at these values of symbols that the net accepts; symbols not given keep theirs."""
        return tuple(self.trace.at(size, {**self.trace.values, **sizes}) for size in self.shape(blob))

    def accepts(self, sizes: Mapping[str, int]) -> bool:
        """Whether the net accepts these values of its symbols; symbols not given keep theirs."""
        values = {**self.trace.values, **sizes}
        same = all(values[name] == size for name, size in self.fixed.items())
        return same and not self.trace.restrict(self.trace.guards, values)


class StaticAxes:
    """The sizes of a net's blobs as they are, for a graph of static shapes; see :class:`DynamicAxes`."""

    def of(self, blob: Blob) -> tuple[bool, ...]:
        """No axis is dynamic."""
        return (False,) * len(blob.shape)

    def sizes(self, blob: Blob) -> list[str | int]:
        """The blob's shape."""
        return list(blob.shape)

    def shape(self, blob: Blob) -> Shape:
        """The blob's shape."""
        return blob.shape


def _put_symbols(shape: Shape, symbols: Mapping[int, Size]) -> Shape:
    """An input's shape with symbols in the place of the sizes that it shares with the reference."""
    varying = {axis: symbol for axis, symbol in symbols.items() if axis == 0 or len(shape) == 4}
    pairs = [(size, varying.get(axis)) for axis, size in enumerate(shape)]
    return tuple(size if symbol is None or symbol.value != size else cast(int, symbol) for size, symbol in pairs)


#: a net does not change, and every file written of it asks for its axes
_FOUND: WeakKeyDictionary[Net, DynamicAxes] = WeakKeyDictionary()


def find_dynamic_axes(net: Net) -> DynamicAxes:
    """The dynamic axes of a net, found once."""
    if net not in _FOUND:
        _FOUND[net] = DynamicAxes(net)
    return _FOUND[net]
