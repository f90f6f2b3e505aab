"""Runs `atrous build` in this process."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from atrous.scripts import build


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build.command, [str(argument) for argument in arguments], catch_exceptions=False)


def run_json(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
