"""Writes docs/schemas/COMMAND.json, the published schemas of what commands print with `--json`.

python -m tools.write_schemas
"""

from __future__ import annotations

from pathlib import Path

from atrous.scripts.json_types import COMMANDS, make_schema

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schemas"


def main() -> None:
    """Write all files, and remove those of commands that no longer exist."""
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.json"):
        if path.stem not in COMMANDS:
            path.unlink()
    for command in COMMANDS:
        (FOLDER / f"{command}.json").write_text(make_schema(command), encoding="utf-8")


if __name__ == "__main__":
    main()
