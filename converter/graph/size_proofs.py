"""Decisions about all sizes at once, from a finite evaluation of size expressions.

Along one symbol an expression has a tail: from `start` on, within each residue class of the symbol modulo `period`, it
is a polynomial of at most `degree`. (Floor quotients by a number multiply the period; polynomials stay polynomials.)
Where all its forward differences at a point agree in sign, it keeps that sign forever: Newton's form writes the later
values as sums of these differences with coefficients that are not negative. So degree + 1 values a class decide a guard
for all sizes. This is a proof, not a sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .sizes import Guard, Terms, Trace, add_terms

#: an expression that is not settled by this size counts as beyond the algebra
MAX_SIZE = 2**20


class UnsettledError(Exception):
    """An expression whose behavior at large sizes is beyond this algebra."""


class Tail(NamedTuple):
    """From `start` on, a polynomial of at most `degree` in each residue class modulo `period`."""

    start: int = 1
    period: int = 1
    degree: int = 0


class Accepted(NamedTuple):
    """The sizes along one symbol at which guards hold: `holds[size]`, periodic from `start` on."""

    start: int
    period: int
    holds: NDArray[np.bool_]

    @property
    def is_infinite(self) -> bool:
        """Whether arbitrarily large sizes are accepted."""
        return bool(self.holds[self.start :].any())

    def at(self, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each size is accepted."""
        return self.holds[np.where(sizes < self.start, sizes, self.start + (sizes - self.start) % self.period)]


def find_accepted(trace: Trace, guards: Iterable[Guard], symbol: str) -> Accepted:
    """The sizes along a symbol at which guards hold that depend on no other symbol.

    Raises:
        UnsettledError: a guard is beyond this algebra.
    """
    known = list(guards)
    tail = _join(_settle(trace, guard.terms, symbol, find_tail(trace, guard.terms, symbol)) for guard in known)
    sizes = np.arange(tail.start + tail.period)
    values, memo, holds = {symbol: np.maximum(sizes, 1)}, dict[int, Any](), sizes > 0
    for guard in known:
        holds &= guard.holds(trace.at(guard.terms, values, memo))
    return Accepted(tail.start, tail.period, holds)


def sample_accepted(
    trace: Trace, terms: Terms, symbol: str, accepted: Accepted
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Accepted sizes and the values there of an expression of one symbol.

    They are enough that values equal to one number, or to the sizes, are so at all accepted sizes.

    Raises:
        UnsettledError: the expression is beyond this algebra.
    """
    tail = _join((find_tail(trace, terms, symbol), Tail(accepted.start, accepted.period, 1)))
    sizes = np.arange(1, tail.start + tail.period * (tail.degree + 1))
    sizes = sizes[accepted.at(sizes)]
    return sizes, trace.at(terms, {symbol: sizes})


def holds_on_grid(trace: Trace, guard: Guard, first: Mapping[str, int], step: int) -> bool:
    """Whether a guard certainly holds wherever each symbol is `first[symbol]` or any number of steps more.

    Raises:
        UnsettledError: the guard is beyond this algebra.
    """
    values: dict[str, NDArray[np.int64]] = {}
    for position, (symbol, least) in enumerate(first.items()):
        tail = find_tail(trace, guard.terms, symbol)
        period = math.lcm(tail.period, step)
        if tail.start > least or (tail.degree + 1) * period // step > math.isqrt(MAX_SIZE):
            raise UnsettledError
        sizes = least + period * np.arange(tail.degree + 1)[:, None] + np.arange(0, period, step)
        values[symbol] = sizes.reshape(*(1, 1) * position, *sizes.shape, *(1, 1) * (len(first) - position - 1))
    differences = np.asarray(trace.at(guard.terms, values))
    for axis in range(0, 2 * len(first), 2):
        differences = _difference(differences, axis)
    # "!=" is not claimed; a polynomial all of whose differences are 0 is 0
    return bool(
        (differences >= 0).all() if guard.relation == ">=" else guard.relation == "==" and not differences.any()
    )


def find_tail(trace: Trace, terms: Terms, symbol: str) -> Tail:
    """The tail of an expression along a symbol, whatever the value of the others.

    Raises:
        UnsettledError: the expression is beyond this algebra.
    """
    tails = []
    for monomial, _ in terms:
        factors = [_find_atom_tail(trace, number, symbol) for number in monomial]
        tails.append(_join(factors)._replace(degree=sum(factor.degree for factor in factors)))
    return _join(tails)


def _join(tails: Iterable[Tail]) -> Tail:
    """A tail that fits each of these, and their sum."""
    known = [Tail(), *tails]
    start, degree = max(tail.start for tail in known), max(tail.degree for tail in known)
    period = math.lcm(*(tail.period for tail in known))
    if period * (degree + 1) > MAX_SIZE:
        raise UnsettledError
    return Tail(start, period, degree)


def _find_atom_tail(trace: Trace, number: int, symbol: str) -> Tail:
    kind, operands = trace.atoms[number]
    if kind == "symbol":
        return Tail(degree=int(operands[0] == symbol))
    names = trace.symbols((((number,), 1),))
    if symbol not in names:
        return Tail()
    first = find_tail(trace, operands[0], symbol)
    if kind == "run time":
        return first
    divisor = trace.at(operands[1], {})
    if kind == "floor" and isinstance(divisor, int):
        if not first.degree:
            return first
        factor = divisor * math.factorial(first.degree)
        if first.degree == 1 and len(names) == 1:  # each period adds the same amount
            values = _sample(trace, operands[0], symbol, first, first.start)
            factor = divisor // math.gcd(divisor, *np.diff(values, axis=0).ravel().tolist())
        return _join([first._replace(period=first.period * factor)])
    second = find_tail(trace, operands[1], symbol)
    both = _join((first, second))
    if len(names) > 1 or (kind == "floor" and first.degree > second.degree):
        raise UnsettledError
    if kind == "max":
        return _settle(trace, add_terms(operands[0], operands[1], -1), symbol, both)

    def is_constant(start: int) -> bool:
        """Whether the quotient q of each class is: q * divisor <= dividend < (q + 1) * divisor forever."""
        dividend, divisors = (_sample(trace, terms, symbol, both, start) for terms in operands)
        rest = dividend - dividend[0] // np.maximum(divisors[0], 1) * divisors
        return bool((_difference(rest) >= 0).all() and (_difference(divisors - 1 - rest) >= 0).all())

    return Tail(_find_start(both, is_constant), both.period)


def _settle(trace: Trace, terms: Terms, symbol: str, tail: Tail) -> Tail:
    """The tail from where the sign of no residue class changes any more."""

    def is_settled(start: int) -> bool:
        rows = _difference(_sample(trace, terms, symbol, tail, start))
        rises, falls = (rows >= 0).all(0) & (rows[0] > 0), (rows <= 0).all(0) & (rows[0] < 0)
        return bool(((rows == 0).all(0) | rises | falls).all())

    return tail._replace(start=_find_start(tail, is_settled))


def _find_start(tail: Tail, holds: Callable[[int], bool]) -> int:
    start = tail.start
    while not holds(start):
        start = 2 * start + tail.period
        if start > MAX_SIZE:
            raise UnsettledError
    return start


def _sample(trace: Trace, terms: Terms, symbol: str, tail: Tail, start: int) -> NDArray[np.int64]:
    """Values (degree + 1, period) of an expression of one symbol from `start` on."""
    sizes = start + np.arange((tail.degree + 1) * tail.period)
    values = np.broadcast_to(trace.at(terms, {symbol: sizes}), sizes.shape)
    return values.reshape(tail.degree + 1, tail.period)


def _difference(values: NDArray[np.int64], axis: int = 0) -> NDArray[np.int64]:
    """The forward differences of order 0, 1, 2, ... at the first entry along an axis, in its place."""
    rows = []
    while values.shape[axis]:
        rows.append(values.take(0, axis))
        values = np.diff(values, axis=axis)
    return np.stack(rows, axis)
