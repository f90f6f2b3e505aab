"""Optional libraries: present, absent and broken ones are distinguished."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from atrous import dependencies
from atrous.dependencies import OPTIONAL, Dependency, import_optional, read_version
from atrous.errors import BackendError, MissingDependencyError


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


def test_extras_exist() -> None:
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for dependency in OPTIONAL.values():
        wanted = project["optional-dependencies"][dependency.extra]
        assert any(line.startswith(dependency.distributions) for line in wanted), dependency
