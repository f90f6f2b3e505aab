"""The published schemas are those of the types, and real outputs follow them (`conftest.py` checks all others)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydantic
import pytest

from atrous.scripts import main as command_line
from atrous.scripts.json_types import COMMANDS, make_schema
from atrous.scripts.main import main

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


def drop_words(schema: Any) -> Any:
    """A schema without what depends on the version of pydantic."""
    if isinstance(schema, dict):
        words = ("description", "additionalProperties")
        return {key: drop_words(value) for key, value in schema.items() if key not in words}
    return [drop_words(each) for each in schema] if isinstance(schema, list) else schema


def test_every_command_has_one() -> None:
    assert set(COMMANDS) == set(command_line.COMMANDS)
    assert {path.stem for path in SCHEMAS.glob("*.json")} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_published_file_is_current(command: str) -> None:
    text = make_schema(command)
    published = (SCHEMAS / f"{command}.json").read_text(encoding="utf-8")
    schema: Any = json.loads(text)
    assert drop_words(json.loads(published)) == drop_words(schema), "run python -m tools.write_schemas"
    if tuple(map(int, pydantic.VERSION.split(".")[:2])) >= (2, 14):  # others describe fewer of the dataclasses
        assert published == text, "run python -m tools.write_schemas"
    assert schema["$schema"].endswith("2020-12/schema")
    shapes = [schema["$defs"][entry["$ref"].rpartition("/")[2]] for entry in schema["anyOf"]]
    for shape in shapes:
        assert {"schema_version", "command"} <= set(shape["required"])
    assert sum("error" in shape["required"] for shape in shapes) == 1


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert capsys.readouterr().out.split() == list(COMMANDS)
    assert main(["schema", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schemas"] == list(COMMANDS)
    assert main(["schema", "segment"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "atrous segment --json"
    assert main(["schema", "segmen"]) == 2
    assert "use one of inspect, convert" in capsys.readouterr().err
