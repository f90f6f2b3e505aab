"""Optional libraries: present, absent and broken ones are distinguished."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from atrous import dependencies
from atrous.dependencies import OPTIONAL, Dependency, import_optional, read_version
from atrous.errors import BackendError, MissingDependencyError

ROOT = Path(__file__).parents[2]


def add_library(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str | None) -> None:
    if source is not None:
        (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(dependencies.OPTIONAL, name, Dependency(name, (name,), "cpu", "do something"))
    monkeypatch.delitem(sys.modules, name, raising=False)


def test_present(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_library(tmp_path, monkeypatch, "sound_library", "ANSWER = 42")
    assert import_optional("sound_library").ANSWER == 42
    monkeypatch.delitem(sys.modules, "sound_library")


def test_absent_names_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_library(tmp_path, monkeypatch, "absent_library", None)
    with pytest.raises(MissingDependencyError, match=r'to do something.*pip install "atrous\[cpu\]"') as caught:
        import_optional("absent_library")
    assert caught.value.exit_code == 3


def test_absent_parent_of_a_submodule(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "absent_parent.child"
    monkeypatch.setitem(dependencies.OPTIONAL, name, Dependency(name, ("absent-parent",), "gpu", "do something"))
    with pytest.raises(MissingDependencyError):
        import_optional(name)


@pytest.mark.parametrize(
    ("source", "part"),
    [("import nothing_of_that_name", "lacks nothing_of_that_name"), ("raise OSError('libfoo.so')", "libfoo.so")],
)
def test_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, part: str) -> None:
    add_library(tmp_path, monkeypatch, "broken_library", source)
    with pytest.raises(BackendError, match=part) as caught:
        import_optional("broken_library")
    assert not isinstance(caught.value, MissingDependencyError)


def test_versions() -> None:
    assert read_version("numpy")
    assert read_version("no-distribution-of-that-name") is None


def read_project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def find_bad_pins(constraints: str, requirements: list[str]) -> list[str]:
    """The constraints that pin no version, a version outside a declared range, or nothing that is required."""
    found = []
    declared = [Requirement(line) for line in requirements]
    for pin in [Requirement(line) for line in constraints.splitlines() if line and not line.startswith("#")]:
        ranges = [other.specifier for other in declared if canonicalize_name(other.name) == canonicalize_name(pin.name)]
        versions = [entry.version for entry in pin.specifier if entry.operator == "==" and "*" not in entry.version]
        if len(versions) != 1 or len(pin.specifier) != 1 or not ranges:
            found.append(f"{pin}: not a pin of a required distribution")
        else:
            found += [f"{pin}: outside {allowed}" for allowed in ranges if not allowed.contains(versions[0])]
    return found


def test_constraints_are_pins_of_what_is_required() -> None:
    project = read_project()
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    requirements = [line for group in groups for line in group]
    path = ROOT / ".ci" / "constraints.txt"
    if not path.exists():
        pytest.skip("no .ci/constraints.txt: not a checkout")
    assert find_bad_pins(path.read_text(), requirements) == []


@pytest.mark.parametrize("pin", ["torch", "torch>=2.3", "torch==2.*", "torch==2.2.0", "other==1.0"])
def test_bad_pins_are_found(pin: str) -> None:
    assert find_bad_pins("# comment\nTorch==2.4.0\n", ["torch>=2.3"]) == []
    assert find_bad_pins(pin, ["torch>=2.3"])


def test_extras_exist() -> None:
    project = read_project()
    for dependency in OPTIONAL.values():
        wanted = project["optional-dependencies"][dependency.extra]
        assert any(line.startswith(dependency.distributions) for line in wanted), dependency
