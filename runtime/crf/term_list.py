"""The pairwise terms of a model in the order they were added, and their copy in the core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...errors import CrfInputError
from .checks import FloatArray

LatticeBuilder = Callable[[Any], Any]
Compatibility = tuple[int, FloatArray]
"""The number of its axes and its float32 values, as `check_compatibility` returns them."""


class Term(NamedTuple):
    """A lattice with its compatibility; `build` makes the lattice for another image, if it depends on one."""

    lattice: Any
    compatibility: Compatibility
    build: LatticeBuilder | None


class TermList:
    """The terms over all labels; the core, a `MeanField` or `DeviceMeanField`, gets them for the labels in use.

    Attributes:
        kept: the labels that pruning left, None for all.
    """

    def __init__(self, field: Any) -> None:
        self._field = field
        self._terms: list[Term] = []
        self.kept: list[int] | None = None

    def __iter__(self) -> Iterator[Term]:
        return iter(self._terms)

    def __len__(self) -> int:
        return len(self._terms)

    def append(self, lattice: Any, compatibility: Compatibility, build: LatticeBuilder | None = None) -> None:
        """Add a term."""
        self._terms.append(Term(lattice, compatibility, build))
        self._pass(self._terms[-1])

    def clear(self) -> None:
        """Remove all terms."""
        self._replace([])

    def keep(self, labels: list[int] | None) -> None:
        """Pass the terms again for these labels; None for all."""
        self.kept = labels
        self._replace(self._terms)

    def spread(self, marginals: FloatArray, labels: int) -> FloatArray:
        """The marginals (labels, N) from those of the labels in use; of dropped labels they are 0."""
        if self.kept is None:
            return marginals
        complete = np.zeros((labels, marginals.shape[1]), np.float32)
        complete[self.kept] = marginals
        return complete

    def set_image(self, pixels: Any) -> None:
        """Build the lattices that depend on the image for another one."""
        self._replace([term._replace(lattice=term.build(pixels)) if term.build else term for term in self._terms])

    def set_compatibilities(self, compatibilities: Sequence[Compatibility]) -> None:
        """Replace the compatibility of each term."""
        if len(compatibilities) != len(self._terms):
            raise CrfInputError(f"{len(compatibilities)} compatibilities do not fit {len(self._terms)} terms")
        pairs = zip(self._terms, compatibilities, strict=True)
        self._replace([term._replace(compatibility=compatibility) for term, compatibility in pairs])

    def _replace(self, terms: list[Term]) -> None:
        self._terms = terms
        self._field.clear_terms()
        for term in terms:
            self._pass(term)

    def _pass(self, term: Term) -> None:
        axes, values = term.compatibility
        if self.kept is not None and axes:
            values = values[np.ix_(*[self.kept] * axes)]
        self._field.add_term(term.lattice, axes, np.ascontiguousarray(values).reshape(-1))
