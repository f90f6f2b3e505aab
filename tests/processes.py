"""Processes that the tests start."""

from __future__ import annotations

import os
import sys


def child_env(**variables: str) -> dict[str, str]:
    """The environment of a Python process that imports what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), **variables}
