"""What each TensorRT line can do: the table, the modules' own names, and, where there is one, the real module."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace

import pytest

from atrous.runtime.backends.tensorrt.capabilities import LINES, find_line, read_capabilities
from atrous.runtime.errors import BackendError

from . import stubs


@pytest.mark.parametrize("line", stubs.LINES)
def test_the_table_is_what_the_names_say(line: str) -> None:
    found = read_capabilities(stubs.make_tensorrt(line))
    assert found == LINES[line]


def test_an_early_10_lacks_what_came_later() -> None:
    early, late = (read_capabilities(stubs.make_tensorrt("10", version)) for version in ("10.0.1", "10.13.3.9"))
    differing = {field.name for field in fields(early) if getattr(early, field.name) != getattr(late, field.name)}
    assert differing == {"version", "data_types", "hardware_compatibility"}
    assert early.hardware_compatibility == ("AMPERE_PLUS",)


@pytest.mark.parametrize(
    ("version", "line"),
    [("8.5.0", "8.5"), ("8.5.3.1", "8.5"), ("8.6.1.post1", "8.6"), ("9.0.1", "9"), ("10.0.1", "10"), ("12.0", "11")],
)
def test_lines(version: str, line: str) -> None:
    assert find_line(version) == line


@pytest.mark.parametrize("version", ["7.2.3", "8.4.1", "8.0"])
def test_too_old(version: str) -> None:
    with pytest.raises(BackendError, match=r"too old: install 8\.5"):
        read_capabilities(SimpleNamespace(__version__=version))


@pytest.mark.parametrize("version", ["", "eight", "8"])
def test_no_version(version: str) -> None:
    with pytest.raises(BackendError, match="which is not a version"):
        find_line(version)


def test_typing_by_line() -> None:
    assert {line: known.typing for line, known in LINES.items()} == {
        "8.5": "weak",
        "8.6": "weak",
        "9": "flag",
        "10": "flag",
        "11": "always",
    }
