"""Options are typed; unknown ones are refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from atrous.errors import InputError
from atrous.runtime.backends.options import read_options


@dataclass(frozen=True)
class Example:
    level: Literal["low", "high"] = "low"
    count: int = 1
    delay_ms: float = 0.0
    spin: bool = True
    threads: int | None = None
    name: str = ""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, Example()),
        ({}, Example()),
        ({"level": "high", "count": 3, "delay_ms": 2, "spin": False, "threads": 4}, Example("high", 3, 2.0, False, 4)),
        (
            {"level": "high", "count": "3", "delay_ms": "2.5", "spin": "off", "threads": "none", "name": "x"},
            Example("high", 3, 2.5, False, None, "x"),
        ),
        ({"threads": "8", "spin": "TRUE"}, Example(threads=8)),
    ],
)
def test_reads(given: dict[str, Any] | None, expected: Example) -> None:
    found = read_options(Example, given, backend="example")
    assert found == expected
    assert [type(value) for value in vars(found).values()] == [type(value) for value in vars(expected).values()]


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"speed": 1}, 'no option "speed"; it has level, count'),
        ({"level": "middle"}, "level must be 'low' or 'high', got 'middle'"),
        ({"count": 1.5}, "count must be a valid integer, got 1.5"),
        ({"count": True}, "count must be a valid integer, got True"),
        ({"count": "many"}, "count must be a valid integer, .*, got 'many'"),
        ({"spin": "perhaps"}, "spin must be a valid boolean"),
        ({"spin": 1}, "spin must be a valid boolean"),
        ({"threads": []}, "threads must be a valid integer"),
        ({"name": 3}, "name must be a valid string"),
    ],
)
def test_refuses(given: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part):
        read_options(Example, given, backend="example")
