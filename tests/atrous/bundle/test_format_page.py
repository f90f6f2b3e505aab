"""docs/bundle-format.md names every field of every type of the manifest, and no other."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from atrous.bundle import crf_parameters, manifest, run_plan, size_rule
from atrous.bundle.section import Section

PAGE = (Path(__file__).parents[3] / "docs" / "bundle-format.md").read_text(encoding="utf-8")
TYPES = {
    name: kind
    for module in (manifest, run_plan, size_rule)
    for name, kind in vars(module).items()
    if inspect.isclass(kind) and issubclass(kind, Section) and kind is not Section
}


def read_section(name: str) -> set[str]:
    """The fields in the first column of the table below a heading."""
    found = re.search(rf"^##+ {name}\n(.*?)(?=^##+ |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"no section {name}"
    table = found[1].rpartition("| field |")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {field for row in rows for field in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_field_is_described(name: str) -> None:
    assert read_section(name) == set(TYPES[name].model_fields)


def test_crf_parameters_are_described() -> None:
    names = {field.name for field in dataclasses.fields(crf_parameters.CrfParameters)}
    assert read_section("CrfParameters") == names
    for term in (crf_parameters.GaussianTerm, crf_parameters.BilateralTerm):
        for field in dataclasses.fields(term):
            assert f"`{field.name}`" in PAGE, (term.__name__, field.name)


def test_the_version_is_the_current_one() -> None:
    assert f"`schema_version` {manifest.SCHEMA_VERSION}" in PAGE
