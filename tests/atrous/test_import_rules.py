"""The import rules of docs/architecture.md, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: folder -> parts of atrous it must not import
FORBIDDEN = {
    "atrous": {"converter", "runtime", "scripts", "proto"},
    "proto": {"bundle", "converter", "runtime", "scripts"},
    "converter": {"runtime", "scripts"},
    "runtime": {"converter", "proto", "scripts"},
    "scripts": set(),
}
#: the lazy re-exports and `python -m atrous`
EXEMPT = {"atrous/__init__.py", "atrous/__main__.py"}
#: libraries that only these folders may import
LIBRARIES = {"torch": {"converter", "runtime/backends"}, "onnx": {"converter"}}


def find_imports(path: Path) -> Iterator[str]:
    """Absolute names of everything a file imports, as `runtime.crf` for atrous's own."""
    package = path.relative_to(ROOT).parts[:-1]
    package = package[1:] if package[0] == "atrous" else package  # the folder atrous/ is the package atrous itself
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            names = [".".join((*base, *filter(None, [node.module]), alias.name)) for alias in node.names]
            yield from (f"atrous.{name}" if node.level else name for name in names)


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_packages(folder: str) -> None:
    files = [path for path in (ROOT / folder).rglob("*.py") if path.relative_to(ROOT).as_posix() not in EXEMPT]
    assert files
    for path in files:
        for name in find_imports(path):
            first, _, rest = name.partition(".")
            assert first not in ("tools", "tests"), f"{path} imports {name}"
            part = rest.partition(".")[0] if first == "atrous" else ""
            assert part not in FORBIDDEN[folder] or not part, f"{path} imports {name}"


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries(library: str) -> None:
    for folder in FORBIDDEN:
        for path in (ROOT / folder).rglob("*.py"):
            place = path.relative_to(ROOT).as_posix()
            if library in {name.partition(".")[0] for name in find_imports(path)}:
                assert any(f"{place}/".startswith(f"{allowed}/") for allowed in LIBRARIES[library]), place
