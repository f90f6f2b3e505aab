"""A wheel's CRF fails the comparison of bits where a sum differs or is missing."""

from __future__ import annotations

from tools.try_wheels import find_differing


def test_differing() -> None:
    assert find_differing({"random 0": 1, "random 1": 2}, {"random 0": 1, "random 1": 2}) == []
    assert find_differing({"random 0": 1, "random 1": 2}, {"random 0": 3}) == ["random 0", "random 1"]
