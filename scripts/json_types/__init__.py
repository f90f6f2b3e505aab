"""The types of what `--json` prints, one union a command; docs/schemas publishes their JSON schemas.

The tests check every JSON output against them. Nothing here is imported by a command that prints.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

# name of a command (also the value of "command") -> module here, and its type there
COMMANDS = {
    "inspect": ("nets", "Inspect"),
    "convert": ("nets", "Convert"),
    "verify": ("nets", "Verify"),
    "precision": ("nets", "Precision"),
    "build": ("nets", "Build"),
    "pack": ("others", "Pack"),
    "export": ("others", "Export"),
    "segment": ("images", "Segment"),
    "crf": ("images", "Crf"),
    "merge": ("images", "Merge"),
    "serve": ("others", "Serve"),
    "plan": ("others", "Plan"),
    "probe": ("images", "Probe"),
    "run": ("images", "Run"),
    "evaluate": ("evaluation", "Evaluate"),
    "tune-crf": ("evaluation", "TuneCrf"),
    "fetch": ("others", "Fetch"),
    "card": ("others", "Card"),
    "push": ("others", "Push"),
    "demo": ("others", "Demo"),
    "bench": ("others", "Bench"),
    "doctor": ("others", "Doctor"),
    "schema": ("others", "Schema"),
}


def find_type(command: str) -> Any:
    """The union of all objects that a command prints with `--json`."""
    module, name = COMMANDS[command]
    return getattr(importlib.import_module(f".{module}", __name__), name)


def make_schema(command: str) -> str:
    """The JSON schema (draft 2020-12) of a command's output, as text that ends with a line break."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(find_type(command)).json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"atrous {command} --json"}
    return json.dumps({**head, **schema}, indent=1, sort_keys=True) + "\n"
