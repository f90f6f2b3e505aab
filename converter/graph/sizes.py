"""Size expressions: the size formulas of all layers as functions of the sizes of the net's inputs.

A layer states its sizes once, in integer arithmetic on its bottoms' sizes (+ - * // % and comparisons). Given integers
it builds a net; given :class:`Size` objects it records expressions and conditions in a :class:`Trace`:

1. A Size is a polynomial with integer coefficients over atoms: symbols (an input's height), floor quotients, maxima,
   and sizes that depend on the data. It carries its value at the traced input sizes.
2. A comparison is decided by that value and recorded as a guard. The expressions hold at all sizes at which the guards
   hold; for a size that a layer rejects, some guard fails.
3. Code that needs the plain number (`int`, `range`, `hash`, `/`, floats) fixes the size by the guard `size == value`,
   so no formula can depend on a size unnoticed.

Types say `int` where a Size may stand. `size_proofs` decides what a trace says about all sizes at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from operator import index
from typing import Any, NamedTuple

import numpy as np

from ...errors import ExportError

#: ((atoms of a monomial, its coefficient), ...), sorted; the constant has no atoms
Terms = tuple[tuple[tuple[int, ...], int], ...]


class Atom(NamedTuple):
    """A `symbol` (its name), `floor` quotient or `max` (two Terms), or `run time` size (its bound as Terms, a key)."""

    kind: str
    operands: tuple[Any, ...]


class Guard(NamedTuple):
    """A condition: the terms are `==`, `!=` or `>=` 0."""

    terms: Terms
    relation: str

    def holds(self, value: Any) -> Any:
        """Whether the condition holds for a value, or each of an array of values, of the terms."""
        return value == 0 if self.relation == "==" else value != 0 if self.relation == "!=" else value >= 0


class Trace:
    """The expressions and guards of one pass over a net.

    Attributes:
        atoms: each after the atoms of its operands.
        guards: in order of their recording.
        values: symbol -> its value at the traced sizes.
        is_closed: the guards are complete; code that would add one raises ExportError.
    """

    def __init__(self) -> None:
        self.atoms: list[Atom] = []
        self.guards: dict[Guard, None] = {}
        self.values: dict[str, int] = {}
        self.is_closed = False
        self._numbers: dict[Atom, int] = {}

    def symbol(self, name: str, value: int) -> Any:
        """A size that may vary, with its value at the traced sizes."""
        self.values[name] = value
        return Size(self, self.make_atom("symbol", name), value)

    def make_atom(self, kind: str, *operands: Any) -> Terms:
        """An atom as an expression; equal atoms are one."""
        number = self._numbers.setdefault(Atom(kind, operands), len(self.atoms))
        if number == len(self.atoms):
            self.atoms.append(Atom(kind, operands))
        return (((number,), 1),)

    def record(self, guard: Guard, size: Size) -> None:
        """Add the guard that a decision about a size rests on."""
        if self.is_closed and guard not in self.guards:
            raise ExportError(f"needs the number {size} where the size is known only at run time; use size_tensor")
        self.guards[guard] = None

    def at(self, size: Any, values: Mapping[str, Any], memo: dict[int, Any] | None = None) -> Any:
        """A size or Terms with these values (integers or arrays) in the place of symbols; other symbols stay."""
        if isinstance(size, int):
            return size
        memo = {} if memo is None else memo
        total: Any = 0
        for monomial, coefficient in size.terms if isinstance(size, Size) else size:
            product: Any = coefficient
            for atom in monomial:
                if atom not in memo:
                    memo[atom] = self._atom_at(atom, values, memo)
                product = product * memo[atom]
            total = total + product
        return total

    def _atom_at(self, number: int, values: Mapping[str, Any], memo: dict[int, Any]) -> Any:
        kind, operands = self.atoms[number]
        if kind == "symbol":
            name = operands[0]
            return values[name] if name in values else Size(self, (((number,), 1),), self.values[name])
        first = self.at(operands[0], values, memo)
        if kind == "run time":
            return at_run_time(first, operands[1])
        second = self.at(operands[1], values, memo)
        return at_least(first, second) if kind == "max" else _floor_quotient(first, second)

    def restrict(self, guards: Iterable[Guard], values: Mapping[str, int]) -> list[Guard]:
        """The guards at these values of symbols, without those that then hold for all values of the others."""
        memo: dict[int, Any] = {}
        pairs = [(guard, self.at(guard.terms, values, memo)) for guard in guards]
        return [g._replace(terms=_terms(value)) for g, value in pairs if isinstance(value, Size) or not g.holds(value)]

    def find_atoms(self, terms: Terms) -> set[Atom]:
        """The atoms of an expression, those of their operands included."""
        found = {self.atoms[number] for number in chain.from_iterable(monomial for monomial, _ in terms)}
        for kind, operands in tuple(found):
            for operand in operands[: {"symbol": 0, "run time": 1}.get(kind, 2)]:
                found |= self.find_atoms(operand)
        return found

    def symbols(self, terms: Terms) -> set[str]:
        """Names of the symbols that an expression depends on."""
        return {operands[0] for kind, operands in self.find_atoms(terms) if kind == "symbol"}


class Size:
    """An integer expression with a value; it stands for an `int` in shapes."""

    __slots__ = ("terms", "trace", "value")

    def __init__(self, trace: Trace, terms: Terms, value: int) -> None:
        self.trace, self.terms, self.value = trace, terms, value

    def make(self, terms: Terms, value: int) -> Any:
        """An expression of the same trace; an integer where nothing in it varies."""
        return Size(self.trace, terms, value) if any(m for m, _ in terms) else sum(c for _, c in terms)

    def split_atom(self) -> tuple[int, int] | None:
        """(atom, addend) of a size that is one atom and an addend, else None."""
        (monomial, coefficient), *rest = [term for term in self.terms if term[0]]
        return None if rest or len(monomial) > 1 or coefficient != 1 else (monomial[0], dict(self.terms).get((), 0))

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, (int, Size)):
            return int(self) + other
        return self.make(add_terms(self.terms, _terms(other)), self.value + concrete(other))

    def __mul__(self, other: Any) -> Any:
        if not isinstance(other, (int, Size)):
            return int(self) * other
        return self.make(_multiply(self.terms, _terms(other)), self.value * concrete(other))

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Any:
        return self * -1

    def __sub__(self, other: Any) -> Any:
        return self + -other

    def __rsub__(self, other: int) -> Any:
        return -self + other

    def __floordiv__(self, other: Any) -> Any:
        if isinstance(other, Size):
            _ = other >= 1
        return _floor_quotient(self, other)

    def __rfloordiv__(self, other: int) -> Any:
        _ = self >= 1
        return _floor_quotient(other, self)

    def __mod__(self, other: Any) -> Any:
        return self - self // other * other

    def __rmod__(self, other: int) -> Any:
        return other - other // self * self

    # ---- decisions

    def __ge__(self, other: Any) -> bool:
        difference = self - other
        if not isinstance(difference, Size):
            return bool(difference >= 0)
        holds = bool(difference.value >= 0)
        self.trace.record(Guard(difference.terms if holds else (-difference - 1).terms, ">="), self)
        return holds

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (int, Size)):
            return NotImplemented
        difference = self - other
        if not isinstance(difference, Size):
            return bool(difference == 0)
        holds = bool(difference.value == 0)
        self.trace.record(Guard(difference.terms, "==" if holds else "!="), self)
        return holds

    def __gt__(self, other: Any) -> bool:
        return bool(self >= other + 1)

    def __lt__(self, other: Any) -> bool:
        return not self >= other

    def __le__(self, other: Any) -> bool:
        return not self > other

    def __bool__(self) -> bool:
        return self != 0

    # ---- the plain integer

    def __index__(self) -> int:
        _ = self == self.value
        return self.value

    def __hash__(self) -> int:
        return hash(int(self))

    def __truediv__(self, other: Any) -> float:
        return int(self) / int(other)

    def __rtruediv__(self, other: int) -> float:
        return other / int(self)

    def __repr__(self) -> str:
        return str(self.value)


def concrete(size: Any) -> int:
    """A size's value at the traced sizes, without a guard: for limits that do not shape the net."""
    return size.value if isinstance(size, Size) else int(size)


def as_size(size: Any) -> Any:
    """A size given by a caller as an integer; a Size stays one."""
    return size if isinstance(size, Size) else int(size)


def equality(left: Any, right: Any) -> Guard:
    """The guard that two sizes are equal."""
    return Guard(_terms(left - right), "==")


def at_run_time(size: Any, key: object) -> Any:
    """A size that depends on the data and is at most `size`; equal keys are one size."""
    if not isinstance(size, Size):
        return size
    return Size(size.trace, size.trace.make_atom("run time", size.terms, key), size.value)


def found_at_run_time(trace: Trace, bound: int, key: object) -> Any:
    """A size that depends on the data alone, and is stated as a number; equal keys are one size."""
    return Size(trace, trace.make_atom("run time", _terms(bound), key), bound)


def at_least(size: Any, least: Any) -> Any:
    """The larger of two sizes."""
    owner = size if isinstance(size, Size) else least
    if not isinstance(owner, Size):
        return max(size, least) if isinstance(size, int) and isinstance(least, int) else np.maximum(size, least)
    atom = owner.trace.make_atom("max", _terms(size), _terms(least))
    return Size(owner.trace, atom, max(concrete(size), concrete(least)))


def _floor_quotient(dividend: Any, divisor: Any) -> Any:
    owner = dividend if isinstance(dividend, Size) else divisor
    if not isinstance(owner, Size):
        return dividend // (divisor if isinstance(divisor, int) else np.maximum(divisor, 1))
    if not isinstance(divisor, Size) and divisor <= 0:
        raise ZeroDivisionError(f"a size divided by {divisor}")
    whole, rest = _divide(_terms(dividend), _terms(divisor))
    value = concrete(dividend) // (concrete(divisor) or 1)
    quotient = owner.make(whole, value)
    monomial, coefficient = max(rest, key=_rank, default=((), 0))
    if not rest or not (monomial or isinstance(divisor, Size)):
        return quotient  # a constant rest is from 0 to the divisor - 1
    if coefficient < 0:  # floor(-x / d) = -floor((x + d - 1) / d): ONNX divides toward 0
        opposite = _floor_quotient(owner.make(add_terms((), rest, -1), 0) + divisor - 1, divisor)
        return owner.make(_terms(quotient - opposite), value)
    return owner.make(add_terms(whole, owner.trace.make_atom("floor", rest, _terms(divisor))), value)


# ---- polynomials


def _terms(size: Any) -> Terms:
    return size.terms if isinstance(size, Size) else (((), index(size)),) if size else ()


def _rank(term: tuple[tuple[int, ...], int]) -> tuple[int, tuple[int, ...]]:
    """The order of monomials by degree."""
    return len(term[0]), term[0]


def add_terms(left: Terms, right: Terms, factor: int = 1) -> Terms:
    """Left + factor * right."""
    total = dict(left)
    for monomial, coefficient in right:
        total[monomial] = total.get(monomial, 0) + factor * coefficient
    return tuple(sorted(term for term in total.items() if term[1]))


def _multiply(left: Terms, right: Terms) -> Terms:
    total: Terms = ()
    for monomial, coefficient in left:
        total = add_terms(total, tuple((tuple(sorted(monomial + other)), c) for other, c in right), coefficient)
    return total


def _divide(dividend: Terms, divisor: Terms) -> tuple[Terms, Terms]:
    """Quotient and rest of polynomials, by long division from the highest monomial down.

    A number as divisor goes into every coefficient; any other divides as long as that is exact.
    """
    if not any(monomial for monomial, _ in divisor):
        number = divisor[0][1]
        parts = [(m, c // number if c > 0 or not m else -(-c // number)) for m, c in dividend]
        whole = tuple(term for term in parts if term[1])
        return whole, add_terms(dividend, whole, -number)
    quotient: Terms = ()
    lead, by = max(divisor, key=_rank)
    while dividend:
        monomial, coefficient = max(dividend, key=_rank)
        left = list(monomial)
        if coefficient % by or any(left.count(atom) < lead.count(atom) for atom in lead):
            break
        for atom in lead:
            left.remove(atom)
        step: Terms = ((tuple(left), coefficient // by),)
        quotient, dividend = add_terms(quotient, step), add_terms(dividend, _multiply(step, divisor), -1)
    return quotient, dividend
