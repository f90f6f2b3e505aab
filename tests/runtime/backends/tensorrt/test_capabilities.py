"""Capabilities of TensorRT versions, against the recorded names of the real modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import SimpleNamespace

import pytest

from atrous.errors import BackendError
from atrous.runtime import tensorrt_choices
from atrous.runtime.backends.tensorrt.capabilities import LINES, find_capabilities, read_capabilities

from . import stubs

Names = Mapping[str, Sequence[str]]


def compare(version: str, names: Names) -> None:
    """Compare the table with the names of a version, in both directions."""
    found = find_capabilities(version)
    flags, config = names["BuilderFlag"], names["IBuilderConfig"]
    assert set(found.hardware_levels) == set(names.get("HardwareCompatibilityLevel", ())) - {"NONE"}
    assert found.version_compatible == ("VERSION_COMPATIBLE" in flags)
    assert found.optimization_level == ("builder_optimization_level" in config)
    replay = {"ERROR_ON_TIMING_CACHE_MISS", "DISABLE_COMPILATION_CACHE"}
    assert set(found.replay_flags) == replay & set(flags)
    assert found.progress_monitor == ("IProgressMonitor" in names and "progress_monitor" in config)
    assert found.parser_nodes == ("node_name" in names["ParserError"])
    has_strong = "STRONGLY_TYPED" in names["NetworkDefinitionCreationFlag"]
    assert found.typing == ("weak" if not has_strong else "flag" if "FP16" in flags else "always")
    assert {"BF16", "FP8"} <= set(names["DataType"]) or found.typing == "weak"
    assert {"set_memory_pool_limit", "set_tactic_sources", "create_timing_cache"} <= set(config)


@pytest.mark.parametrize("version", stubs.read_names())
def test_capabilities_are_what_the_names_say(version: str) -> None:
    """Against the recorded names of the real modules."""
    compare(version, stubs.read_names()[version])
    assert read_capabilities(stubs.make_tensorrt("", version)) == find_capabilities(version)


def test_an_early_10_lacks_what_came_later() -> None:
    early, late = (find_capabilities(version) for version in ("10.0.1", "10.13.3.9"))
    differing = {field.name for field in fields(early) if getattr(early, field.name) != getattr(late, field.name)}
    assert differing == {"version", "hardware_levels"}


def test_a_module_that_lacks_names_of_its_version() -> None:
    """Such as an early release of a line."""
    names = {"BuilderFlag": (), "NetworkDefinitionCreationFlag": (), "HardwareCompatibilityLevel": ()}
    members = {kind: SimpleNamespace(__members__=found) for kind, found in names.items()}
    found = read_capabilities(SimpleNamespace(__version__="9.1.0", ParserError=object, **members))
    assert (found.typing, found.hardware_levels, found.replay_flags) == ("weak", (), ())
    assert not found.progress_monitor
    assert not found.parser_nodes


@pytest.mark.parametrize(
    ("version", "line"),
    [("8.5.0", "8.5"), ("8.5.3.1", "8.5"), ("8.6.1.post1", "8.6"), ("9.0.1", "9"), ("10.0.1", "10"), ("12.0", "11")],
)
def test_lines(version: str, line: str) -> None:
    assert find_capabilities(version).line == line


@pytest.mark.parametrize("version", ["7.2.3", "8.4.1", "8.0"])
def test_too_old(version: str) -> None:
    with pytest.raises(BackendError, match=r"too old: install 8\.5"):
        find_capabilities(version)


@pytest.mark.parametrize("version", ["", "eight", "8"])
def test_no_version(version: str) -> None:
    with pytest.raises(BackendError, match="which is not a version"):
        find_capabilities(version)


def test_the_choices_of_the_command_line() -> None:
    assert tuple(LINES) == tensorrt_choices.LINES
    assert tensorrt_choices.PLANNED_LINE in LINES


def test_typing_by_line() -> None:
    assert {line: known.typing for line, known in LINES.items()} == {
        "8.5": "weak",
        "8.6": "weak",
        "9": "flag",
        "10": "flag",
        "11": "always",
    }
