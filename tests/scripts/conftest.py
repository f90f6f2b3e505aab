"""Every JSON object that a command prints in these tests is checked against its published type."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from pydantic import TypeAdapter

from atrous.scripts import console
from atrous.scripts.json_types import COMMANDS, find_type


@functools.cache
def make_adapter(command: str) -> TypeAdapter[Any]:
    return TypeAdapter(find_type(command))


@pytest.fixture(autouse=True)
def check_printed_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test whose command prints JSON of another form."""
    print_json, print_json_rows, to_json = console.print_json, console.print_json_rows, console._to_json

    def check(command: str, payload: Mapping[str, object]) -> None:
        if command in COMMANDS:  # tests have commands of their own
            text = to_json({"schema_version": console.SCHEMA_VERSION, "command": command, **payload})
            json.loads(text)
            make_adapter(command).validate_json(text)

    def print_checked(command: str, payload: Mapping[str, object]) -> None:
        check(command, payload)
        print_json(command, payload)

    def print_checked_rows(command: str, payload: Mapping[str, object], name: str, rows: Iterable[object]) -> None:
        kept = list(rows)
        check(command, {**payload, name: kept})
        print_json_rows(command, payload, name, kept)

    monkeypatch.setattr(console, "print_json", print_checked)
    monkeypatch.setattr(console, "print_json_rows", print_checked_rows)
