"""`atrous schema`: the JSON schemas of `--json` outputs."""

from __future__ import annotations

import click

from . import console
from .json_types import COMMANDS


@click.command()
@click.argument("name", required=False, metavar="[COMMAND]")
@console.json_option
def command(name: str | None, as_json: bool) -> None:
    """Print the JSON schema of what COMMAND prints with --json; without COMMAND, list the commands that have one.

    Each output is one JSON object with "schema_version" and "command". A command that fails prints an "error" with
    type, message and exit code in its place, and the figures that it had measured before.
    """
    if name is None:
        if as_json:
            console.print_json("schema", {"schemas": list(COMMANDS)})
        for known in () if as_json else COMMANDS:
            click.echo(known)
        return
    if name not in COMMANDS:
        raise click.UsageError(f'"{name}" has no schema: use one of {", ".join(COMMANDS)}')
    from .json_types import make_schema

    click.echo(make_schema(name), nl=False)
