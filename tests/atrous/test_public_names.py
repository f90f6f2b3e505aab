"""The public names: `__all__` of five packages against what is there and what the type checker sees."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("atrous", "atrous.bundle", "atrous.converter", "atrous.runtime", "atrous.runtime.crf")


@pytest.mark.parametrize("name", PACKAGES)
def test_all_lists_what_is_there(name: str) -> None:
    package = importlib.import_module(name)
    listed = package.__all__
    assert len(set(listed)) == len(listed)
    assert set(listed) <= set(dir(package))
    for public in listed:
        assert getattr(package, public) is not None, public
        assert getattr(package, public) is getattr(package, public), public
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = package.no_such_name


@pytest.mark.parametrize("name", PACKAGES)
def test_type_checkers_see_the_same_names(name: str) -> None:
    """Every listed name is imported or assigned in `__init__`, and no other public name is imported there."""
    package = importlib.import_module(name)
    assert package.__file__
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    imported, assigned = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            imported |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            assigned |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    assert set(package.__all__) <= imported | assigned
    assert imported <= set(package.__all__)


def test_private_modules_are_not_needed_to_open_a_bundle() -> None:
    from atrous import bundle

    fields = bundle.Manifest.model_fields
    assert bundle.Deploy in fields["deploy"].annotation.__args__  # type: ignore[union-attr]
    assert bundle.Preprocessing in fields["preprocessing"].annotation.__args__  # type: ignore[union-attr]
    assert bundle.CrfParameters in fields["crf"].annotation.__args__  # type: ignore[union-attr]
    assert bundle.palettes.VOC_CLASSES[0] == "background"


@pytest.mark.parametrize("name", PACKAGES[:4])
def test_importing_a_package_imports_no_library(name: str) -> None:
    code = f"import sys, {name}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "onnx", "onnxruntime", "google.protobuf", "numpy", "pydantic", "PIL"} & set(loaded)


@pytest.mark.parametrize("name", PACKAGES)
def test_the_stability_page_lists_the_names(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "stability.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
    errors = {
        error for error, value in vars(importlib.import_module("atrous.errors")).items() if isinstance(value, type)
    }
    listed = set(importlib.import_module(name).__all__)
    named = set(re.findall(r"`(\w+)`", row.partition("|")[2].partition("|")[2]))
    assert named <= listed
    assert listed - named <= (errors if "the errors it raises" in row else set())


def test_the_stability_page_lists_the_supported_versions() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "stability.md").read_text(encoding="utf-8").partition("## Supported versions")[2]
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    for library in ("numpy", "pillow", "pydantic", "click", "rich", "torch", "protobuf", "onnx", "onnxruntime"):
        found = re.search(rf'"{library}>=([\d.]+)', project)
        assert found
        assert found[1] in page, library
    assert set(re.findall(r"Python :: (3\.\d+)", project)) >= {"3.10", "3.13"}
