"""Output of the commands: JSON, tables, progress, lines.

Results go to stdout; progress and warnings go to stderr, so that `--json` output can be piped. Lines and tables are
escaped (`atrous.printable`): they may hold names from untrusted files. rich is imported when something is drawn, not
when the command line starts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, TextIO, TypeVar

import click

from ..printable import escape, escape_lines

SCHEMA_VERSION = 1
_PIPE_WIDTH = 240  # columns of a table outside a terminal

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(function: Command) -> Command:
    """Give a command `--json`; the function receives it as the argument `as_json`."""

    def record(context: click.Context, _: click.Parameter, value: bool) -> bool:
        if value:  # main() then reports errors as JSON too, in this command's name
            context.ensure_object(dict)["json"] = context.info_name
        return value

    return click.option("--json", "as_json", is_flag=True, callback=record, help="Print one JSON object to stdout.")(
        function
    )


def debug_option() -> click.Option:
    """The `--debug` option, added to every command by the group."""

    def record(context: click.Context, _: click.Parameter, value: bool) -> None:
        state = context.ensure_object(dict)
        state["debug"] = state.get("debug", False) or value

    return click.Option(
        ["--debug"], is_flag=True, expose_value=False, callback=record, help="Show the traceback of an error."
    )


def print_json(command: str, payload: Mapping[str, object]) -> None:
    """Print one JSON object: `schema_version`, `command`, then `payload`; ValueError for NaN and infinities."""
    click.echo(_to_json({"schema_version": SCHEMA_VERSION, "command": command, **payload}))


def keep_json(payload: Mapping[str, object]) -> None:
    """Keep what was measured: if the command fails later, `main` prints it beside the error."""
    click.get_current_context().ensure_object(dict)["kept"] = payload


def print_json_rows(command: str, payload: Mapping[str, object], name: str, rows: Iterable[object]) -> None:
    """Print as `print_json`, with one more list `name` at the end, whose rows are read one at a time."""
    text = _to_json({"schema_version": SCHEMA_VERSION, "command": command, **payload, name: []})
    click.echo(text.removesuffix("]\n}"), nl=False)
    separator = "\n"
    for row in rows:
        lines = _to_json(row).replace("\n", "\n    ")
        click.echo(f"{separator}    {lines}", nl=False)
        separator = ",\n"
    click.echo(("" if separator == "\n" else "\n  ") + "]\n}")


def _to_json(value: object) -> str:
    return json.dumps(value, indent=2, allow_nan=False, default=_to_plain)


def _to_plain(value: object) -> object:
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table to stdout; columns whose cells are all numbers are aligned to the right."""
    from rich.table import Table

    table = Table(
        title=escape(title) if title else None, title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    for index, name in enumerate(columns):
        is_number = all(isinstance(row[index], int | float) for row in rows)
        table.add_column(escape(name), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else escape(str(cell)) for cell in row))
    _open_console(sys.stdout).print(table)


def print_line(text: str, color: str | None = None) -> None:
    """Print a line to stdout."""
    click.secho(escape_lines(text), fg=color)


def print_warning(message: str) -> None:
    """Print a line to stderr; the work continues."""
    click.secho(escape_lines(message), err=True, fg="yellow")


@contextmanager
def show_progress(
    description: str, total: int | None = None, *, unit: str | None = None
) -> Iterator[Callable[[int], None]]:
    """Draw a progress bar on stderr, if it is a terminal; yields a function that advances it by `unit`s."""
    if not sys.stderr.isatty():
        yield lambda steps: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    clocks = (TimeElapsedColumn(), TimeRemainingColumn())
    speed = () if unit is None else (_make_speed_column(unit),)
    with Progress(*columns, *speed, *clocks, console=_open_console(sys.stderr), transient=True) as bar:
        task = bar.add_task(escape(description), total=total)
        yield lambda steps: bar.advance(task, steps)


def _make_speed_column(unit: str) -> Any:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class SpeedColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.3g} {unit}/s")

    return SpeedColumn()


@contextmanager
def show_steps() -> Iterator[Callable[[str], None]]:
    """Show the current step on stderr, if it is a terminal; yields a function that takes the name of each step."""
    if not sys.stderr.isatty():
        yield lambda step: None
        return
    with _open_console(sys.stderr).status("starting") as status:
        yield lambda step: status.update(escape(step))


def _open_console(stream: TextIO) -> Any:
    from rich.console import Console

    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)
