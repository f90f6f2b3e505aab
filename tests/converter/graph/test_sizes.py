"""Size expressions and the proofs over them, against plain integers and exhaustive evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.converter.graph.size_proofs import (
    Tail,
    UnsettledError,
    find_accepted,
    find_tail,
    holds_on_grid,
    sample_accepted,
)
from atrous.converter.graph.sizes import Guard, Size, Trace, at_least, at_run_time, concrete, equality
from atrous.errors import ExportError

Formula = Callable[[Any, Any], Any]


def numbers(least: int, most: int) -> st.SearchStrategy[Formula]:
    return st.integers(least, most).map(lambda number: lambda h, w: number)


@st.composite
def formulas(draw: Any, depth: int = 4) -> Formula:
    """A random formula of h and w in the operations of the layers."""
    if depth == 0:
        return draw(st.sampled_from([lambda h, w: h, lambda h, w: w]))  # type: ignore[no-any-return]
    left, right = draw(formulas(depth - 1)), draw(st.one_of(formulas(depth - 1), numbers(-9, 9)))
    number = draw(st.integers(1, 9))
    operations: list[Formula] = [
        lambda h, w: left(h, w) + right(h, w),
        lambda h, w: left(h, w) - right(h, w),
        lambda h, w: number * left(h, w),
        lambda h, w: (left(h, w) + number) // number,
        lambda h, w: -(-left(h, w) // number),
        lambda h, w: left(h, w) % number,
        lambda h, w: at_least(left(h, w), number),
        lambda h, w: right(h, w) // at_least(left(h, w), number),
    ]
    chosen: Formula = draw(st.sampled_from(operations))
    return chosen


@settings(deadline=None, max_examples=150)
@given(formulas(), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_expressions_compute_what_integers_do(formula: Formula, h: int, w: int, other_h: int, other_w: int) -> None:
    trace = Trace()
    size = formula(trace.symbol("h", h), trace.symbol("w", w))
    assert concrete(size) == formula(h, w)
    assert trace.at(size, {"h": other_h, "w": other_w}) == formula(other_h, other_w)
    partly = trace.at(size, {"h": other_h})
    assert concrete(partly) == formula(other_h, w)
    assert trace.at(partly, {"w": other_w}) == formula(other_h, other_w)
    heights = np.arange(1, 50)
    expected = [formula(int(height), other_w) for height in heights]
    assert np.array_equal(np.broadcast_to(trace.at(size, {"h": heights, "w": other_w}), 49), expected)


@settings(deadline=None, max_examples=150)
@given(formulas(3), st.integers(-20, 20), st.sampled_from(["==", "!=", ">="]))
def test_decisions_for_all_sizes_hold_far_out(formula: Formula, addend: int, relation: str) -> None:
    trace = Trace()
    size = formula(trace.symbol("h", 7), 5) + addend
    if not isinstance(size, Size):
        return
    guard = Guard(size.terms, relation)
    try:
        accepted = find_accepted(trace, [guard], "h")
    except UnsettledError:
        return
    sizes = np.concatenate([np.arange(1, 600), np.random.default_rng(0).integers(600, 10**6, 200)])
    assert np.array_equal(accepted.at(sizes), guard.holds(trace.at(size, {"h": sizes})))
    assert accepted.is_infinite == accepted.at(np.arange(10**6, 10**6 + accepted.period)).any()


@settings(deadline=None, max_examples=150)
@given(formulas(3), st.integers(1, 9), st.integers(0, 9))
def test_what_holds_on_the_grid_holds_at_every_point(formula: Formula, step: int, offset: int) -> None:
    trace = Trace()
    size = formula(trace.symbol("h", 7), trace.symbol("w", 5))
    first = {"h": step + offset, "w": 2 * step + offset}
    for guard in (Guard(size.terms, ">="), equality(size, 0)) if isinstance(size, Size) else ():
        try:
            proven = holds_on_grid(trace, guard, first, step)
        except UnsettledError:
            continue
        steps = step * np.array([0, 1, 2, 3, 5, 8, 13, 40, 101, 5000])
        heights, widths = first["h"] + steps[:, None], first["w"] + steps
        if proven:
            assert np.all(guard.holds(trace.at(size, {"h": heights, "w": widths})))


def test_equal_formulas_have_one_form() -> None:
    trace = Trace()
    h, w = trace.symbol("h", 321), trace.symbol("w", 241)
    assert (h + 2 - 3) // 1 + 1 - h == 0
    assert (8 * h + 7) // 8 - h == 0
    assert (h * w * 64) // (w * 64) - h == 0
    assert ((h + 1) * (w + 3)) // (w + 3) - h == 1
    assert (h * w) % h == 0
    assert (2 * h - 1) // h == 1
    assert not trace.guards.keys() - {Guard(w.terms, ">="), *trace.guards}


def test_tails() -> None:
    trace = Trace()
    h, w = trace.symbol("h", 321), trace.symbol("w", 241)
    pooled = (h + 1) // 2
    assert find_tail(trace, pooled.terms, "h") == Tail(1, 2, 1)
    assert find_tail(trace, ((pooled + 1) // 2).terms, "h") == Tail(1, 4, 1)
    assert find_tail(trace, (2 * pooled // 2 * w).terms, "h") == Tail(1, 2, 1)
    assert find_tail(trace, (2 * pooled // 2 * w).terms, "w") == Tail(1, 1, 1)
    assert find_tail(trace, (h * h // 6).terms, "h") == Tail(1, 12, 2)
    assert find_tail(trace, at_least(h, 100).terms, "h").start >= 100
    far = 7 // h
    assert find_tail(trace, far.terms, "h").degree == 0
    with pytest.raises(UnsettledError):
        find_tail(trace, (h * w // h * h // w // 3 // (h + w)).terms, "h")
    prime = h
    for divisor in (97, 89, 83, 79):
        prime = prime // divisor + h
    with pytest.raises(UnsettledError):
        find_tail(trace, prime.terms, "h")


def test_comparisons_become_guards() -> None:
    trace = Trace()
    h = trace.symbol("h", 8)
    assert h > 3
    assert not h < 5
    assert h != 9
    assert (h - 8) == 0
    one = h.terms
    assert set(trace.guards) == {
        Guard((((), -4), *one), ">="),
        Guard((((), -5), *one), ">="),
        Guard((((), -9), *one), "!="),
        Guard((((), -8), *one), "=="),
    }


@pytest.mark.parametrize(
    "read", [int, hash, range, float, lambda h: h / 2, lambda h: 16 / h, lambda h: [0] * h, lambda h: h * 0.5 + 1]
)
def test_reading_the_number_fixes_the_size(read: Callable[[Any], Any]) -> None:
    trace = Trace()
    h = trace.symbol("h", 8)
    read(h)
    assert list(trace.guards) == [equality(h, 8)]
    accepted = find_accepted(trace, trace.guards, "h")
    assert not accepted.is_infinite
    assert np.flatnonzero(accepted.holds).tolist() == [8]


def test_truth_and_printing() -> None:
    trace = Trace()
    h = trace.symbol("h", 8)
    assert f"{h} {(h, 3)}" == "8 (8, 3)"
    assert not trace.guards
    assert bool(h)
    assert list(trace.guards) == [Guard(h.terms, "!=")]
    assert h != "8"
    with pytest.raises(ZeroDivisionError):
        _ = h // 0


def test_a_closed_trace_takes_no_new_guard() -> None:
    trace = Trace()
    h = trace.symbol("h", 8)
    assert h >= 3
    trace.is_closed = True
    assert h >= 3
    with pytest.raises(ExportError, match="known only at run time"):
        _ = h >= 4


def test_sizes_that_depend_on_the_data_are_apart() -> None:
    trace = Trace()
    n = trace.symbol("n", 8)
    kept, same, other = at_run_time(n, "a"), at_run_time(n, "a"), at_run_time(n, "b")
    assert kept.terms == same.terms != other.terms
    assert trace.at(kept + n, {"n": 5}) == 10
    assert at_run_time(8, "a") == 8
    assert find_tail(trace, kept.terms, "n") == Tail(1, 1, 1)


def test_samples_decide_what_an_expression_is() -> None:
    trace = Trace()
    h = trace.symbol("h", 16)
    assert h % 8 == 0
    accepted = find_accepted(trace, trace.guards, "h")
    sizes, values = sample_accepted(trace, (h // 8 * 8).terms, "h", accepted)
    assert len(sizes) > 1
    assert np.array_equal(sizes, values)
