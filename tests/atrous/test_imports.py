"""The import graph of the sources: no circles, and the one-way rules between the top-level packages.

Imports inside functions count; those under `if TYPE_CHECKING` do not, as they never run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from ..conftest import REPO

#: folder -> the name it is imported by
PACKAGES = {
    "atrous": "atrous",
    "proto": "atrous.proto",
    "converter": "atrous.converter",
    "runtime": "atrous.runtime",
    "scripts": "atrous.scripts",
    "tools": "tools",
}
HALVES = ("atrous.proto", "atrous.converter", "atrous.runtime", "atrous.scripts", "tools")
#: package -> packages that it must not import
FORBIDDEN = {
    "atrous.bundle": HALVES,
    "atrous.errors": HALVES,
    "atrous.dependencies": HALVES,
    "atrous.proto": ("atrous.converter", "atrous.runtime", "atrous.scripts", "tools"),
    "atrous.converter": ("atrous.runtime", "atrous.scripts", "tools"),
    "atrous.runtime": ("atrous.proto", "atrous.converter", "atrous.scripts", "tools"),
    "atrous.scripts": ("tools",),
}
#: files of the runtime that may import torch
TORCH_PARTS = {"atrous.runtime.backends.torch", "atrous.runtime.crf.torch"}


def is_inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def find_imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from find_imports(ast.Module(child.orelse, []))
        else:
            yield from find_imports(child)


@cache
def find_modules() -> dict[str, Path]:
    modules = {}
    for folder, package in PACKAGES.items():
        for path in (REPO / folder).rglob("*.py*"):
            if path.suffix in (".py", ".pyi"):
                names = path.relative_to(REPO / folder).with_suffix("").parts
                modules[".".join((package, *names)).removesuffix(".__init__")] = path
    return modules


def resolve(name: str, modules: dict[str, Path]) -> str:
    """The module of the sources that an imported name leads to, or the name itself for other libraries."""
    while name not in modules and "." in name and name.startswith(("atrous", "tools")):
        name = name.rpartition(".")[0]
    return name


@cache
def read_graph() -> dict[str, set[str]]:
    """Module -> the modules and libraries that it imports."""
    modules, graph = find_modules(), {}
    for module, path in modules.items():
        package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
        targets = set()
        for node in find_imports(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets.update(alias.name for alias in node.names)
            else:
                base = ".".join(package[: len(package) + 1 - node.level] if node.level else [])
                base = ".".join(filter(None, (base, node.module)))
                targets.update(f"{base}.{alias.name}" for alias in node.names)
        graph[module] = {resolve(target, modules) for target in targets} - {module}
    return graph


def test_every_package_is_read() -> None:
    graph = read_graph()
    assert all(sum(is_inside(module, package) for module in graph) > 1 for package in PACKAGES.values())
    assert "atrous.converter.graph.net" in graph["atrous.converter.graph.build"]
    assert {"torch", "torch.nn"} & graph["atrous.converter.modules.crop"]


def test_no_circles() -> None:
    graph = read_graph()
    try:
        TopologicalSorter({module: targets & graph.keys() for module, targets in graph.items()}).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("package", FORBIDDEN)
def test_one_way(package: str) -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in read_graph().items()
        if is_inside(module, package)
        for target in sorted(targets)
        if any(is_inside(target, other) for other in FORBIDDEN[package])
    ]
    assert not wrong


def test_runtime_needs_torch_only_in_its_torch_parts() -> None:
    importers = {
        module
        for module, targets in read_graph().items()
        if is_inside(module, "atrous.runtime") and any(is_inside(target, "torch") for target in targets)
    }
    assert importers <= TORCH_PARTS
