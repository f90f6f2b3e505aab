"""Run the commands of a document as a reader would: `python -m tools.run_readme README.md`.

Every fenced block marked `bash` is run, in order, by one shell in a temporary folder; the first failure stops it with
its line. A block whose info string says more, as in ```bash official```, needs what a test machine does not have
(official weights, an empty machine) and is left out, with that word printed as the reason.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```bash ?(?P<note>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_LIMIT_S = 900


@dataclass(frozen=True)
class Block:
    """One fenced block: its commands, its first line in the document, and why it is left out (or "")."""

    commands: str
    line: int
    note: str


def find_blocks(text: str) -> list[Block]:
    """The bash blocks of a Markdown text."""
    return [
        Block(found["body"], text.count("\n", 0, found.start("body")) + 1, found["note"].strip())
        for found in _FENCE.finditer(text)
    ]


def run_blocks(blocks: list[Block], folder: Path, environment: dict[str, str]) -> int:
    """Run the blocks in one folder; returns the number that failed (0 or 1, the first failure stops)."""
    for block in blocks:
        if block.note:
            print(f"line {block.line}: left out ({block.note})")
            continue
        print(f"line {block.line}:\n{block.commands}", flush=True)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.commands],
            cwd=folder,
            env=environment,
            timeout=_LIMIT_S,
            check=False,
        )
        if done.returncode:
            print(f"line {block.line}: exit code {done.returncode}")
            return 1
    return 0


def main(arguments: list[str]) -> int:
    """Run the document named first."""
    document = Path(arguments[0]).resolve()
    blocks = find_blocks(document.read_text(encoding="utf-8"))
    if not any(not block.note for block in blocks):
        print(f"{document}: has no bash block to run")
        return 1
    binaries = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory() as folder:
        return run_blocks(blocks, Path(folder), environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
