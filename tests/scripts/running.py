"""Runs the command line: as a user does, in a process of its own, or in this process."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atrous.scripts.main import main

from ..processes import child_env


@dataclass(frozen=True)
class Outcome:
    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


def run_atrous(*arguments: object, folder: Path | None = None) -> Outcome:
    """Run `atrous` with arguments and return what came of it."""
    line = [sys.executable, "-m", "atrous.scripts.main", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=folder, env=child_env(), check=False, timeout=120)
    return Outcome(done.returncode, done.stdout, done.stderr)


def run_with(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run `atrous` in this process: (exit code, stdout, stderr)."""
    code = main(list(arguments))
    shown = capsys.readouterr()
    return code, shown.out, shown.err
